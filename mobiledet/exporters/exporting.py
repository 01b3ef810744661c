"""From a checkpoint to a file that runs without PyTorch: written, compared with the checkpoint, and only then kept."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.config import config_from_plain
from mobiledet.data.images import find_images, read_image
from mobiledet.data.shapes import draw_image
from mobiledet.errors import ImageError, MissingDependencyError, ModelFileError, install_extra
from mobiledet.evaluation.metrics import score_detections
from mobiledet.evaluation.predictions import predict_dataset
from mobiledet.evaluation.scoring import most_counted
from mobiledet.exporters.agreement import FLOAT_LIMITS, INT8_LIMITS, AgreementReport, compare, problems, report_path
from mobiledet.exporters.base import Exporter, ExportOptions
from mobiledet.exporters.choose import EXPORTERS, find_exporter
from mobiledet.preprocess import fit_image
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.choose import RUNTIMES
from mobiledet.runtime.detector import Detector
from mobiledet.structures import ImageArray, ResizeRule
from mobiledet.utils.files import sync
from mobiledet.utils.machine import instruction_set
from mobiledet.utils.text import count

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset

logger = logging.getLogger(__name__)

_COMPARED_FROM = 0.3
"""Score from which detections are compared, of models without a display threshold."""

GENERATED = 16
"""Images drawn for the comparison where none are named."""

COMPARED = 32
"""Most images of those named, or of a data set, whose detections are compared one by one."""

PROBED = 8
"""Batches of calibration images on which single layers are compared."""

_TRAINING = "train.quantize=true lets a training end in INT8, so that the weights fit it (docs/training.md)"


def export_model(source: str | Path, output: Path, options: ExportOptions) -> AgreementReport:
    """Write a checkpoint as a deployable file or folder, with its agreement report beside it.

    Args:
        source: A checkpoint, a run folder, or pretrained weights by name.
        output: The file (``.onnx``) or folder to write; it must not exist.
        options: What to make.

    Returns:
        The report, which has also been written.

    Raises:
        ModelFileError: The file exists, can't be made, or finds something else than the checkpoint does.
        MissingDependencyError: A package that the format needs isn't installed.
        MobiledetError: The checkpoint, the images or the data can't be used.
    """
    from mobiledet.models.quantization import imitate_int8, trained_ranges
    from mobiledet.runtime.pytorch import PyTorchBackend, open_checkpoint

    exporter = find_exporter(options.format)
    _check_output(exporter, output, options.labels)
    _check_options(exporter, options)
    check_packages(options.format, int8=options.int8)
    reference = Detector(source, threads=options.threads)
    backend = reference.backend
    if not isinstance(backend, PyTorchBackend):
        raise ModelFileError(f"{source}: exported already; name the checkpoint it was made from")
    if options.input_size is not None and reference.card.resize.fixed:
        backend = open_checkpoint(source, threads=options.threads, input_size=options.input_size)
        reference = Detector(backend)
    model = backend.model
    if (most := options.max_detections) is not None:  # the checkpoint is compared with the same limit
        model.postprocess = replace(model.postprocess, max_detections=most)
        reference.backend.card = replace(reference.card, max_detections=most)
    card = _exported_card(reference.card, options)
    if not options.int8:
        imitate_int8(model, None)  # what a float file is compared with
    has_ranges = trained_ranges(model) is not None
    calibration = [] if has_ranges or not options.int8 else _calibration(card, options)
    if options.int8 and has_ranges:
        logger.info("INT8 takes the ranges that it was trained with; no images are measured")
    with temporary_output(output) as path:
        exporter.write(model, card, path, options, calibration)
        for file in path.iterdir() if path.is_dir() else [path]:
            sync(file)
        report = _compare(reference, path, output, options)
        if report.problems and calibration and exporter.layer_errors is not None:
            logger.info("looking for the layers that lose most ...")
            report = replace(report, layers=exporter.layer_errors(model, card, calibration[:PROBED]))
        for line in report.lines():
            logger.info("%s", line)
        for name in exporter.compared:
            other = _compare(reference, path / name, output, options)
            for line in other.lines():
                logger.info("%s: %s", name, line)
            report = replace(report, problems=[*report.problems, *(f"{name}: {what}" for what in other.problems)])
        trainable = calibration and config_from_plain(card.config).model.quantizable
        advice = f"; {_TRAINING}" if trainable else ""
        if report.problems and not options.force:
            raise ModelFileError(
                f"{output}: not written: {'; '.join(report.problems)}; --force keeps it all the same{advice}"
            )
        if trainable and report.ap is not None and report.ap["difference"] < -FLOAT_LIMITS.ap_loss:
            logger.info("%s", _TRAINING)
        path.replace(output)
    report.write(output)
    if options.labels is not None:
        options.labels.write_text(card.label_map(), encoding="utf-8")
    return report


@contextlib.contextmanager
def temporary_output(output: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside ``output``; the folder is removed afterwards.

    Raises:
        ModelFileError: Nothing can be written there.
    """
    folder = output.with_name(f".{output.name}.tmp")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted export left
        folder.mkdir(parents=True)
        yield folder / output.name
    except OSError as error:
        raise ModelFileError(f"{output}: can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_output(exporter: Exporter, output: Path, labels: Path | None) -> None:
    for path in (output, report_path(output), labels):
        if path is not None and path.exists():
            raise ModelFileError(f"{path} exists already; name another with -o, nothing is overwritten")
    suffix, is_file = exporter.runtime.suffix, exporter.runtime.folder_file is None
    if is_file and output.suffix != suffix:
        raise ModelFileError(f"{output}: the name of a file in the format {exporter.name} ends with {suffix}")
    if not is_file and output.suffix in {".pt", ".tflite", *(runtime.suffix for runtime in RUNTIMES)}:
        raise ModelFileError(f"{output}: {exporter.name} writes a folder; name one, such as model_{exporter.name}")


def _check_options(exporter: Exporter, options: ExportOptions) -> None:
    if options.int8 and exporter.int8_packages is None:
        offered = " and ".join(other.name for other in EXPORTERS if other.int8_packages is not None)
        raise ModelFileError(
            f"INT8 is offered for {offered}, not for {exporter.name}; leave --int8 out, or take another format"
        )
    if options.keep_float and exporter.layer_errors is None:
        raise ModelFileError(f"--keep-float is not offered for {exporter.name}, which chooses layers by itself")
    for named in (options.calibration, options.images):
        if named:
            find_images(list(named))  # a wrong path is reported before the work, not after it
    if options.batch not in (1, None) and not exporter.batches:
        raise ModelFileError(f"{exporter.name} takes one image at a time, not --batch {options.batch}")
    asked = {
        "--no-nms": not options.suppressed,
        "--opset": options.opset is not None,
        "--batch dynamic": options.batch is None,
    }
    for choice in (choice for choice, is_asked in asked.items() if is_asked and choice not in exporter.choices):
        offered = " and ".join(other.name for other in EXPORTERS if choice in other.choices)
        raise ModelFileError(f"{choice} is offered for {offered}, not for {exporter.name}")


def check_packages(format: str, *, int8: bool) -> None:
    """Make sure that what writes a format is installed; loads none of it.

    Raises:
        ModelFileError: There is no such format.
        MissingDependencyError: Packages are missing.
    """
    exporter = find_exporter(format)
    wanted = [*exporter.packages, *((exporter.int8_packages or ()) if int8 else ())]
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"exporting to {exporter.name} needs {' and '.join(missing)}, not installed here; "
            + install_extra(exporter.extra)
        )


def _exported_card(card: ModelCard, options: ExportOptions) -> ModelCard:
    """The checkpoint's card, changed to what the exported model will be."""
    rule = card.resize
    if rule.longest_side is not None:
        # Images of any shape can't share a fixed input; most cameras' are 4:3, and others fit into it.
        shorter = min(rule.size)
        size = options.input_size or (shorter, min(rule.longest_side, round(shorter * 4 / 3)))
        rule = ResizeRule(size, letterbox=True)
    precision = "int8" if options.int8 else "float32"
    return replace(card, resize=rule, batch=options.batch, precision=precision)


def _calibration(card: ModelCard, options: ExportOptions) -> list[ImageArray]:
    """Batches ``(B, H, W, 3)`` of images in the network's size, evenly spread over those named."""
    if not options.calibration:
        raise ModelFileError("--int8 needs real images to measure ranges on: --calibration path/to/images")
    batch = card.batch or 1
    paths = _spread(find_images(list(options.calibration)), max(options.calibration_images, batch))
    images = [fit_image(image, card.resize, fill=card.fill)[0] for image in _readable(paths)]
    whole = len(images) // batch * batch
    if not whole:
        raise ModelFileError(f"--calibration holds {count(len(images), 'image')}, fewer than --batch {batch}")
    return [np.stack(images[start : start + batch]) for start in range(0, whole, batch)]


def _compare(reference: Detector, path: Path, output: Path, options: ExportOptions) -> AgreementReport:
    model = Detector(path, threads=options.threads)
    images = _images(reference.card, options)
    logger.info("comparing with the checkpoint on %d images ...", len(images))
    threshold = reference.card.shown_threshold or _COMPARED_FROM
    agreement = compare(reference(images), model(images), threshold=threshold)
    limits = INT8_LIMITS if options.int8 else FLOAT_LIMITS
    if options.max_ap_loss is not None:
        limits = replace(limits, ap_loss=options.max_ap_loss)
    ap = _score_both(reference, model, options.dataset) if options.dataset is not None else None
    versions = dict(reference.card.versions)
    exporter = find_exporter(options.format)
    for package in (*exporter.packages, *(exporter.int8_packages or ())):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return AgreementReport(
        file=output.name,
        checkpoint=dict(reference.card.origin),
        runtime=model.backend.runtime,
        agreement=agreement,
        ap=ap,
        limits=limits,
        forced=options.force,
        problems=problems(agreement, ap, limits),
        versions=versions,
        instruction_set=instruction_set(),
    )


def _images(card: ModelCard, options: ExportOptions) -> list[ImageArray]:
    """What the two are compared on."""
    if options.images:
        return list(_readable(_spread(find_images(list(options.images)), COMPARED)))
    if options.dataset is not None:
        records = [options.dataset[index] for index in range(min(COMPARED, len(options.dataset)))]
        return [read_image(record.path, apply_orientation=record.apply_orientation) for record in records]
    # Shapes of every size, on images that are neither the network's size nor square.
    height, width = card.resize.size
    rng = np.random.default_rng(0)
    return [draw_image(rng, (height + 17 + index, round(width * 1.2) + index))[0] for index in range(GENERATED)]


def _score_both(reference: Detector, model: Detector, dataset: CocoDataset) -> dict[str, Any]:
    truth = dataset.coco_json()
    points = []
    for which, detector in (("checkpoint", reference), ("exported model", model)):
        logger.info("scoring the %s on %d images ...", which, len(dataset))
        results = predict_dataset(detector, detector.names, dataset, batch_size=max(8, detector.card.batch or 1))
        points.append(
            100
            * (score_detections(truth, results, max_detections=most_counted(detector.card.max_detections)).AP or 0.0)
        )
    return {
        "checkpoint": round(points[0], 4),
        "model": round(points[1], 4),
        "difference": round(points[1] - points[0], 4),
        "pictures": len(dataset),
        "data": dataset.annotation_file.name,
    }


def _readable(paths: Sequence[Path]) -> Iterator[ImageArray]:
    """The images, but those that can't be read, which are reported."""
    for path in paths:
        try:
            yield read_image(path)
        except ImageError as error:
            logger.warning("skipped: %s", error)


def _spread(paths: Sequence[Path], number: int) -> list[Path]:
    """``number`` of the paths, or all where there are fewer, evenly spread."""
    if len(paths) <= number:
        return list(paths)
    return [paths[round(index)] for index in np.linspace(0, len(paths) - 1, number)]
