"""The complete examination: sections in order, images and report written into a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mobiledet.apps.doctor.anchors import anchor_grids, boxes_in_network, describe_inputs
from mobiledet.apps.doctor.collection import collect
from mobiledet.apps.doctor.duplicates import describe_duplicates, find_duplicates
from mobiledet.apps.doctor.image_facts import describe_images, read_facts
from mobiledet.apps.doctor.plot import plot_boxes
from mobiledet.apps.doctor.recipe import JudgedRecipe
from mobiledet.apps.doctor.report import Code, DoctorReport, Section
from mobiledet.apps.doctor.sheets import duplicate_sheet, orientation_sheet, sample_sheet, suspect_sheet
from mobiledet.apps.doctor.statistics import describe_classes, describe_sizes, describe_splits
from mobiledet.apps.doctor.suspects import find_suspects, find_unlabelled, shared_classes
from mobiledet.data.coco import CocoDataset
from mobiledet.data.faults import ImportLog, Severity
from mobiledet.detections import Detections
from mobiledet.draw.boxes import write_image
from mobiledet.errors import MobiledetError
from mobiledet.structures import ImageArray
from mobiledet.utils.files import write_json, write_text
from mobiledet.utils.text import count, listing

logger = logging.getLogger(__name__)


def examine(
    datasets: Mapping[str, CocoDataset],
    folder: Path,
    *,
    title: str,
    recipe: JudgedRecipe,
    format: str = "",
    log: ImportLog | None = None,
    detect: Callable[[ImageArray], Detections] | None = None,
    detected_names: Sequence[str] = (),
    limited: int | None = None,
    progress: bool = False,
) -> DoctorReport:
    """Examine a data set and write a report and images into a folder.

    Args:
        datasets: name of each split -> its data; all with the same classes.
        folder: takes ``report.txt``, ``report.json``, ``samples.jpg``, ``boxes.png`` and, where there is something to
            show, ``suspects.jpg`` and ``duplicates.jpg``; it must not exist yet, or be empty.
        title: name of the data, for the report.
        recipe: what is going to be trained: the boxes are compared with its input and anchors.
        format: the data's format, for the report.
        log: what reading the data dropped, repaired and noted.
        detect: a model that looks for unlabelled objects: RGB image in, detections out.
        detected_names: its class names.
        limited: how many images of each split were examined, where not all were.
        progress: show bars, if standard error is a terminal.

    Raises:
        MobiledetError: the splits' classes differ, the model knows none of them, the recipe contradicts its weights or
            the data, or the folder isn't empty or can't be written.
    """
    refuse_filled(folder)
    collection = collect(datasets)
    model = recipe.model()
    if detect is not None:
        shared_classes(detected_names, collection.names)  # refused before minutes of reading
    images = count(len(collection), "image")
    heading = f"{title}: {f'{format.upper()}, ' if format else ''}{images} in {', '.join(datasets)}"
    report = DoctorReport(heading, next_command=recipe.train_command)
    logger.info("examining %s", images)
    facts = read_facts(collection, progress=progress)
    duplicates = find_duplicates(collection, facts)
    suspects = find_suspects(collection, duplicates)
    report.sections = [
        *_describe_reading(log, limited),
        describe_splits(collection, model.postprocess.max_detections, recipe.config.data.hold_out),
        describe_classes(collection),
        describe_sizes(collection, model, follows=recipe.config.model.match_aspect),
        describe_inputs(collection, recipe),
        describe_images(collection, facts),
        describe_duplicates(collection, duplicates),
        suspects.section,
    ]
    suspicious = suspects.images
    if detect is not None:
        logger.info("looking for unlabelled objects in %s", images)
        unlabelled = find_unlabelled(collection, detect, detected_names, progress=progress)
        report.sections.append(unlabelled.section)
        suspicious = unlabelled.images + suspicious
    refuse_filled(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobiledetError(f"{folder}: this folder can't be made: {error.strerror}; name another") from None
    for name, sheet, what in (
        ("samples.jpg", sample_sheet(collection), "images with their labels: all classes if possible, small and large"),
        (
            "orientation.jpg",
            orientation_sheet(collection),
            "images with a doubtful EXIF rotation, read both ways; choose by --reading orientation=upright or stored",
        ),
        ("suspects.jpg", suspect_sheet(collection, suspicious), "images that look wrong"),
        ("duplicates.jpg", duplicate_sheet(collection, duplicates.pairs), "pairs of duplicates, side by side"),
    ):
        if sheet is not None:
            write_image(folder / name, sheet)
            report.files[name] = what
    boxes = boxes_in_network(collection, model)
    if len(boxes.xyxy) and anchor_grids(model.head, model.network_size):
        heading = f"{title}: {count(len(boxes.xyxy), 'box', 'boxes')} and the anchors of {recipe.name}"
        plot_boxes(folder / "boxes.png", heading, boxes, model)
        report.files["boxes.png"] = "sizes of the boxes and of the anchors, and how well they overlap"
    write_text(folder / "report.txt", report.to_text())
    write_json(folder / "report.json", report.to_json())
    return report


def refuse_filled(folder: Path) -> None:
    """Make sure, before minutes of work, that a folder for results is new or empty.

    Raises:
        MobiledetError: it isn't empty, or is a file.
    """
    try:
        filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise MobiledetError(f"{folder} can't be read: {error.strerror}; name another folder") from None
    if filled:
        what = "is not empty" if folder.is_dir() else "is a file"
        raise MobiledetError(f"{folder} {what}; name a new folder, nothing is overwritten")


def free_folder(root: Path) -> Path:
    """The first of ``check_<name>``, ``check_<name>_2`` ... that doesn't exist yet.

    It is in the working directory; where that is the data set ``root``, or lies in it, beside the data set, for what is
    written into the data becomes a part of it.

    Raises:
        MobiledetError: Beside the data set nothing can be written.
    """
    root = root.resolve()
    place = root.parent if Path.cwd().is_relative_to(root) else Path()
    if place != Path() and (place == root or not os.access(place, os.W_OK)):
        raise MobiledetError(
            f"the working directory belongs to the data set {root}, and {place} can't be written to; "
            "name a folder for the report elsewhere: -o FOLDER"
        )
    name = root.name or "data"
    folder, number = place / f"check_{name}", 1
    while folder.exists():
        number += 1
        folder = place / f"check_{name}_{number}"
    return folder


def _describe_reading(log: ImportLog | None, limited: int | None) -> list[Section]:
    """What was dropped and repaired while reading, and what was left out on purpose."""
    section = Section("Reading the data", key="Reading it")
    if limited is not None:
        section.say(f"Only the first {limited:,} images of each split were examined; all figures are about these.")
        section.data["limit"] = limited
    if log is not None:
        section.data["account"] = log.to_json()
        for fault, records in log.records.items():
            text, places = f"{len(records):,} {fault.text}", list(map(str, records))
            if log.severity(fault) is Severity.DROPPED:
                remedy = "correct the labels, or train without these"
                section.find(Code.DROPPED, f"dropped while reading: {text}", remedy, places)
            else:
                section.say(f"{log.severity(fault).value}: {text} ({listing(places, 3)})")
        if not log.records:
            section.say("Nothing had to be dropped or repaired.")
    return [section] if section.parts or section.findings else []
