"""The whole examination: sections in order, pictures and report into a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mobiledet.apps.doctor.anchors import AnchorSetting, anchor_grids, best_overlaps
from mobiledet.apps.doctor.collection import Collection, collect
from mobiledet.apps.doctor.duplicates import describe_duplicates, find_duplicates
from mobiledet.apps.doctor.inputs import boxes_in_network, describe_inputs
from mobiledet.apps.doctor.page import duplicate_page, sample_page, suspect_page
from mobiledet.apps.doctor.pictures import describe_pictures, look_at_pictures
from mobiledet.apps.doctor.plot import plot_boxes
from mobiledet.apps.doctor.report import Report, Section
from mobiledet.apps.doctor.sizes import describe_sizes
from mobiledet.apps.doctor.statistics import describe_classes, describe_splits
from mobiledet.apps.doctor.suspects import Suspect, find_suspects, find_unlabelled, shared_classes
from mobiledet.config.schema import ModelConfig
from mobiledet.data.coco import CocoDataset
from mobiledet.draw.boxes import write_image
from mobiledet.errors import MobiledetError
from mobiledet.structures import Detections, ImageArray
from mobiledet.utils.files import write_json, write_text
from mobiledet.utils.text import count

logger = logging.getLogger(__name__)


class Account(Protocol):
    """What became of a data set while it was read; `mobiledet.data.formats` gives one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Kind of finding -> how many."""

    def lines(self) -> list[str]:
        """A line for each kind: ``dropped: ...``, ``repaired: ...`` or ``note: ...``."""

    def to_json(self) -> Mapping[str, Any]:
        """Severity -> kind -> findings."""


def examine(
    datasets: Mapping[str, CocoDataset],
    folder: Path,
    *,
    title: str,
    model: ModelConfig,
    account: Account | None = None,
    detect: Callable[[ImageArray], Detections] | None = None,
    detected_names: Sequence[str] = (),
    limited: int | None = None,
    progress: bool = False,
) -> Report:
    """Look at a data set from all sides and write report and pictures into a folder.

    Args:
        datasets: name of each split -> its data; all with the same classes.
        folder: takes ``report.txt``, ``report.json``, ``samples.jpg``, ``boxes.png`` and, where there is something to
            show, ``suspects.jpg`` and ``duplicates.jpg``; there must be none yet, or an empty one.
        title: names the data in the report.
        model: its input size and anchors are what the boxes are held against.
        account: what reading the data dropped, repaired and noted.
        detect: a model that looks for unlabelled objects: RGB picture in, detections out.
        detected_names: its class names.
        limited: pictures of each split that were looked at, where not all were.
        progress: show bars, if standard error is a terminal.

    Raises:
        MobiledetError: the splits' classes differ, the model knows none of them, the head has no anchors, or the
            folder holds something or can't be written.
    """
    refuse_filled(folder)
    collection = collect(datasets)
    setting, size = AnchorSetting.of(model), model.network_size
    if detect is not None:
        shared_classes(detected_names, collection.names)  # known before minutes of reading
    report = Report(title)
    logger.info("looking at %s", count(len(collection), "picture"))
    facts = look_at_pictures(collection, progress=progress)
    duplicates = find_duplicates(collection, facts)
    suspects = find_suspects(collection, duplicates)
    report.sections = [
        *_reading(account, limited),
        describe_splits(collection),
        describe_classes(collection),
        describe_sizes(collection, size),
        describe_inputs(collection, setting, size),
        describe_pictures(collection, facts),
        describe_duplicates(collection, duplicates),
        suspects.section,
    ]
    pictures = suspects.pictures
    if detect is not None:
        logger.info("looking for unlabelled objects in %s", count(len(collection), "picture"))
        unlabelled = find_unlabelled(collection, detect, detected_names, wrap=_bar if progress else iter)
        report.sections.append(unlabelled.section)
        pictures = unlabelled.pictures + pictures
    _make_folder(folder)
    _write_pictures(report, folder, collection, setting, model, duplicates.pairs, pictures)
    write_text(folder / "report.txt", report.to_text())
    write_json(folder / "report.json", report.to_json())
    return report


def refuse_filled(folder: Path) -> None:
    """Make sure, before minutes of work, that a folder for results is new or empty.

    Raises:
        MobiledetError: it holds something, or is no folder.
    """
    try:
        filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise MobiledetError(f"{folder} can't be looked into: {error.strerror}; name another folder") from None
    if filled:
        what = "holds something already" if folder.is_dir() else "is a file"
        raise MobiledetError(f"{folder} {what}; name a new folder, nothing is overwritten")


def _make_folder(folder: Path) -> None:
    refuse_filled(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobiledetError(f"{folder}: can't make this folder: {error.strerror}; name another") from None


def free_folder(name: str) -> Path:
    """The first of ``check_<name>``, ``check_<name>_2`` ... in the working directory that isn't there yet."""
    number = 1
    while True:
        folder = Path(f"check_{name}" + (f"_{number}" if number > 1 else ""))
        if not folder.exists():
            return folder
        number += 1


def _reading(account: Account | None, limited: int | None) -> list[Section]:
    """What was dropped and repaired on the way in, and what was left out on purpose."""
    section = Section("Reading it")
    if limited is not None:
        section.say(f"Only the first {limited:,} pictures of each split were looked at; all figures are about these.")
        section.data["limit"] = limited
    if account is not None:
        section.data["account"] = dict(account.to_json())
        for line in account.lines():
            severity, _, text = line.partition(": ")
            if severity == "dropped":
                section.find("fault", "dropped", f"left out while reading: {text}", "mend it, or train without")
            else:
                section.say(line)
        if not account.counts:
            section.say("Nothing had to be dropped or repaired.")
    return [section] if section.parts or section.findings else []


def _write_pictures(
    report: Report,
    folder: Path,
    collection: Collection,
    setting: AnchorSetting,
    model: ModelConfig,
    pairs: Sequence[Any],
    suspects: Sequence[Suspect],
) -> None:
    pages = (
        ("samples.jpg", sample_page(collection), "pictures with their labels, every class that fits, small and large"),
        ("suspects.jpg", suspect_page(collection, suspects), "pictures that look wrong"),
        ("duplicates.jpg", duplicate_page(collection, pairs), "the same picture twice"),
    )
    for name, page, what in pages:
        if page is not None:
            write_image(folder / name, page)
            report.files[name] = what
    size = model.network_size
    boxes = boxes_in_network(collection, size)
    if len(boxes):
        grids = anchor_grids(setting, size)
        plot_boxes(
            folder / "boxes.png",
            boxes=boxes,
            overlaps=best_overlaps(boxes, grids),
            grids=grids,
            match_iou=setting.match_iou,
            size=size,
            title=f"{report.title.split(':')[0]}: {len(boxes):,} boxes and the anchors",
        )
        report.files["boxes.png"] = "sizes of the boxes and of the anchors, and how well they overlap"


def _bar(rows: range) -> Iterator[int]:
    import sys

    if not sys.stderr.isatty():
        return iter(rows)
    from tqdm import tqdm

    bar: Iterator[int] = iter(tqdm(rows, desc="detecting", leave=False))
    return bar
