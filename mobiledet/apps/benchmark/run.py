"""A benchmark from its arguments to its report."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from mobiledet.apps.benchmark.candidates import choose_candidates, parse_peers
from mobiledet.apps.benchmark.images import load_eval_split, read_sources
from mobiledet.apps.benchmark.measuring import Bench, Settings
from mobiledet.apps.benchmark.report import BenchmarkReport, make_report
from mobiledet.errors import MobiledetError
from mobiledet.utils.files import refuse_existing, write_json, write_text
from mobiledet.utils.machine import describe_machine
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import count

logger = logging.getLogger(__name__)


def run_benchmark(
    models: Sequence[str],
    settings: Settings,
    *,
    peers: str | None = None,
    images: Path | None = None,
    data: Path | None = None,
    split: str = "val",
    limit: int | None = None,
) -> BenchmarkReport:
    """Measure models side by side.

    Args:
        models: Anything that the Detector takes.
        settings: How to measure.
        peers: Names with commas between, or ``all``; None for none.
        images: A folder of images to detect in; None for drawn ones.
        data: A data set to score on; None for speed alone.
        split: Its part.
        limit: Only its first images.

    Raises:
        MobiledetError: An argument makes no sense, or a model can't be opened.
    """
    _check_numbers(settings, limit)
    if data is None and (limit is not None or split != "val"):
        raise MobiledetError("--limit and --split choose from a data set; name it with --data ROOT")
    installed, skipped = parse_peers(peers)
    candidates = choose_candidates(models, installed)
    if not candidates:
        raise MobiledetError("nothing to measure; name a model, or --peers all")
    for line in skipped:
        logger.warning("%s", line)
    sources = read_sources(images)
    dataset = load_eval_split(data, split, limit) if data is not None else None
    machine = describe_machine()
    with (
        progress_bar(bar_format="{desc}") as line,
        Bench(candidates, settings, sources=sources, on_step=line.set_description_str) as bench,
    ):
        bench.open_all()
        if dataset is not None:
            bench.check_classes(dataset)
        bench.time_all()
        bench.stage_all()
        if dataset is not None:
            bench.score_all(dataset, {"root": str(data), "split": split, "limit": limit})
    return make_report(
        bench.outcomes,
        settings,
        machine,
        images="drawn images" if images is None else f"{count(len(sources), 'image')} of {images}",
        data=f"{count(len(dataset), 'image')} of {data} ({split})" if dataset is not None else None,
        skipped=skipped,
    )


def _check_numbers(settings: Settings, limit: int | None) -> None:
    for name, value, most in (
        ("--threads", settings.threads, 1024),
        ("--rounds", settings.rounds, 10_000),
        ("--calls", settings.calls, 10_000),
        ("--starts", settings.starts, 100),
        ("--limit", 1 if limit is None else limit, 10**9),
    ):
        if not 1 <= value <= most:
            raise MobiledetError(f"{name} is {value}; give a number from 1 to {most}")
    if not (math.isfinite(settings.timeout) and settings.timeout > 0):
        raise MobiledetError(f"--timeout is {settings.timeout:g}; give seconds, more than 0")


def write_report(report: BenchmarkReport, *, json: Path | None = None, html: Path | None = None) -> None:
    """Write all figures as JSON, and a page with charts.

    Raises:
        MobiledetError: A file exists by now, or can't be written.
    """
    if json is not None:
        refuse_existing(json)
        write_json(json, report.to_json_dict())
    if html is not None:
        refuse_existing(html)
        from mobiledet.apps.benchmark.page import report_page

        write_text(html, report_page(report))
