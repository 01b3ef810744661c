"""Write the report, and the files with suspected label errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobiledet.apps.report.analysis import analyse
from mobiledet.apps.report.comparison import comparison_page
from mobiledet.apps.report.images import PageImages
from mobiledet.apps.report.page import report_page
from mobiledet.apps.report.suspects import find_suspects, write_suspects
from mobiledet.evaluation.scoring import Score
from mobiledet.utils.files import write_text
from mobiledet.utils.text import count, short_names

logger = logging.getLogger(__name__)


def write_report(score: Score, model: str, *, page: Path | None = None, suspects: Path | None = None) -> None:
    """Analyse a scored model and write what is asked for.

    Args:
        score: Of the model.
        model: What the user called it.
        page: The page to write.
        suspects: The folder for suspected label errors.

    Raises:
        MobiledetError: A file can't be written.
    """
    analysis, images = analyse(score, model), PageImages(score.dataset)
    found = find_suspects(analysis)
    if page is not None:
        write_text(page, report_page(analysis, images, found))
        logger.info("report: %s", page)
    if suspects is not None:
        every = [one for rows in found.values() for one in rows]
        write_suspects(suspects, analysis, every, images.name)
        logger.info("%s: %s", count(len(every), "suspected label error"), suspects)


def write_comparison(
    scores: Sequence[Score], models: Sequence[str], page: Path, benchmarks: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Analyse models that were scored on the same images, and write a page that compares them.

    Args:
        scores: Of each model.
        models: What the user called them.
        page: The page to write.
        benchmarks: Contents of JSON files of ``mobiledet benchmark``.

    Raises:
        DataError: The images differ.
        MobiledetError: The page can't be written.
    """
    named = zip(scores, models, short_names(models), strict=True)
    analyses = [analyse(score, model, name=name) for score, model, name in named]
    write_text(page, comparison_page(analyses, PageImages(scores[0].dataset), benchmarks))
    logger.info("comparison: %s", page)
