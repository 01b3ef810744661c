"""Write the report, and the files with suspected label errors."""

from __future__ import annotations

import logging
from pathlib import Path

from mobiledet.apps.report.analysis import analyse
from mobiledet.apps.report.images import PageImages
from mobiledet.apps.report.page import report_page
from mobiledet.apps.report.suspects import find_suspects, write_suspects
from mobiledet.evaluation.scoring import Score
from mobiledet.utils.files import write_text
from mobiledet.utils.text import count

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
