"""A benchmark from its arguments to its report."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobiledet.apps.benchmark.accuracy import open_data
from mobiledet.apps.benchmark.contenders import choose_contenders, parse_peers
from mobiledet.apps.benchmark.measuring import Bench, Settings
from mobiledet.apps.benchmark.page import report_page
from mobiledet.apps.benchmark.pictures import read_sources
from mobiledet.apps.benchmark.report import Report, make_report
from mobiledet.errors import MobiledetError
from mobiledet.utils.files import refuse_existing, write_json, write_text
from mobiledet.utils.machine import describe_machine

logger = logging.getLogger(__name__)


def run_benchmark(
    models: Sequence[str],
    settings: Settings,
    *,
    peers: str | None = None,
    pictures: Path | None = None,
    data: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    json: Path | None = None,
    html: Path | None = None,
) -> Report:
    """Measure models side by side.

    Args:
        models: Whatever the Detector takes, and ``.tflite`` files.
        settings: How to measure.
        peers: Names with commas between, or ``all``; None for none.
        pictures: A folder of pictures to detect in; None for drawn ones.
        data: A data set to score on; None for speed alone.
        split: Its part.
        limit: Only its first pictures.
        json: A file that :func:`write_report` will be given; that it can be written is made sure of now.
        html: Likewise.

    Raises:
        MobiledetError: an argument makes no sense, a model can't be opened, or a file exists already.
    """
    check_settings(settings, limit)
    if data is None and (limit is not None or split != "val"):
        raise MobiledetError("--limit and --split choose from a data set; name it with --data ROOT")
    for path in (json, html):
        refuse_existing(path)
    if json is not None and html is not None and json.resolve() == html.resolve():
        raise MobiledetError(f"--json and --html both name {json}; give them two files")
    there, left_out = parse_peers(peers, models)
    contenders = choose_contenders(models, there)
    if not contenders:
        raise MobiledetError("nothing to measure; name a model, or --peers all")
    for line in left_out:
        logger.warning("%s", line)
    sources = read_sources(pictures)
    dataset = open_data(data, split, limit) if data is not None else None
    machine = describe_machine()
    with Bench(contenders, settings, sources=sources, on_step=_show) as bench:
        bench.open_all()
        if dataset is not None:
            bench.check_classes(dataset)
        bench.time_all()
        bench.stage_all()
        if dataset is not None:
            bench.score_all(dataset, {"root": str(data), "split": split, "limit": limit})
    _show("")
    return make_report(
        bench.outcomes,
        settings,
        machine,
        pictures="drawn pictures" if pictures is None else f"{len(sources)} pictures of {pictures}",
        data=f"{len(dataset)} pictures of {data} ({split})" if dataset is not None else None,
        left_out=left_out,
    )


def check_settings(settings: Settings, limit: int | None = None) -> None:
    """Make sure that there is something to measure.

    Raises:
        MobiledetError: a number is out of its range.
    """
    numbers: dict[str, tuple[Any, int, int]] = {
        "--threads": (settings.threads, 1, 1024),
        "--rounds": (settings.rounds, 1, 10_000),
        "--calls": (settings.calls, 1, 10_000),
        "--starts": (settings.starts, 1, 100),
        "--limit": (1 if limit is None else limit, 1, 10**9),
    }
    for name, (value, least, most) in numbers.items():
        if not least <= value <= most:
            raise MobiledetError(f"{name} is {value}; give a number from {least} to {most}")
    if not (math.isfinite(settings.timeout) and settings.timeout > 0):
        raise MobiledetError(f"--timeout is {settings.timeout:g}; give seconds, more than 0")


def write_report(report: Report, *, json: Path | None = None, html: Path | None = None) -> None:
    """Write all figures as JSON, and the page.

    Raises:
        MobiledetError: a file exists by now, or can't be written.
    """
    if json is not None:
        refuse_existing(json)
        write_json(json, report.to_json_dict())
    if html is not None:
        refuse_existing(html)
        write_text(html, report_page(report))


def _show(step: str) -> None:
    """One line on a terminal's stderr that is written over and over."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{step[:78]}")
        sys.stderr.flush()
