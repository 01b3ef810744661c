"""From a checkpoint to a file that runs without PyTorch: traced, quantised if wanted, compared before it is kept."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobiledet.data.images import find_images, read_image
from mobiledet.data.shapes import draw_picture
from mobiledet.errors import MissingDependencyError, ModelFileError, install_extra
from mobiledet.evaluate.metrics import score_detections
from mobiledet.evaluate.predictions import predict_dataset
from mobiledet.export.agreement import (
    FLOAT_LIMITS,
    INT8_LIMITS,
    Certificate,
    certificate_path,
    compare,
    problems,
)
from mobiledet.preprocess import fit_image
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.detector import Detector
from mobiledet.structures import ImageArray, ResizeRule, Size
from mobiledet.utils.files import write_json

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset
    from mobiledet.export.int8 import Method
    from mobiledet.runtime.pytorch import PyTorchBackend

logger = logging.getLogger(__name__)

Format = Literal["onnx", "openvino", "ncnn"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "ncnn")

GENERATED = 16
"""Pictures drawn for the comparison where none are named."""

COMPARED = 32
"""Most pictures of those named, or of a data set, whose detections are compared one by one."""

PROBED = 8
"""Pictures on which single layers are judged."""

SHOWN = 0.3
"""Detections from here on are looked for where the checkpoint doesn't say what is worth showing."""


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a checkpoint.

    Attributes:
        format: What runs it.
        int8: Quantise.
        calibration: Files and folders of pictures to measure ranges on.
        calibration_pictures: How many of them are taken, evenly spread.
        method: How ranges are chosen, for ONNX.
        keep_float: Layers that aren't quantised, for ONNX.
        batch: Pictures at once.
        input_size: ``(height, width)`` for models whose pictures keep their shape; None for the model's own.
        pictures: Files and folders to compare on; none for generated ones.
        dataset: To score both on.
        max_ap_loss: In points of 100; None for 0.5, and 1.5 with INT8.
        force: Keep a file that passed a limit.
        threads: Of the comparison; 0 takes all cores.
    """

    format: Format = "onnx"
    int8: bool = False
    calibration: Sequence[Path] = ()
    calibration_pictures: int = 60
    method: Method = "minmax"
    keep_float: Sequence[str] = ()
    batch: int = 1
    input_size: Size | None = None
    pictures: Sequence[Path] = ()
    dataset: CocoDataset | None = None
    max_ap_loss: float | None = None
    force: bool = False
    threads: int = 0


def export_model(source: str | Path, output: Path, options: ExportOptions) -> Certificate:
    """Write a checkpoint as a deployable file or folder, with its certificate beside it.

    Args:
        source: A checkpoint, a run folder, or pretrained weights by name.
        output: The file (``.onnx``) or folder to write; it must not exist.
        options: What to make.

    Returns:
        The certificate, which has been written, too.

    Raises:
        ModelFileError: the file exists, can't be made, or finds something else than the checkpoint does.
        MissingDependencyError: a package that the format needs isn't installed.
        MobiledetError: the checkpoint, the pictures or the data can't be used.
    """
    _check(output, options)
    _check_packages(options)
    reference = Detector(source, threads=options.threads)
    network: Any = reference.backend
    if not hasattr(network, "model"):
        raise ModelFileError(f"{source}: exported already; name the checkpoint it was made from")
    card = _card(network, options)
    pictures = _calibration(card, options) if options.int8 else []
    with _workshop(output) as place:
        graph = _make(network, card, place, options, pictures)
        model = Detector(place, threads=options.threads)
        certificate = _certify(reference, model, output, options)
        if certificate.problems and options.int8 and options.format == "onnx":
            logger.info("looking for the layers that do the damage ...")
            certificate = replace(certificate, layers=_damage(graph, pictures[:PROBED], card, place))
        for line in certificate.lines():
            logger.info("%s", line)
        if certificate.problems and not options.force:
            raise ModelFileError(
                f"{output}: not written: {'; '.join(certificate.problems)}; --force keeps it all the same"
            )
        del model
        place.replace(output)
    write_json(certificate_path(output), certificate.to_json_dict())
    return certificate


def _check(output: Path, options: ExportOptions) -> None:
    for path in (output, certificate_path(output)):
        if path.exists():
            raise ModelFileError(f"{path} exists already; name another with -o, nothing is overwritten")
    if not output.parent.is_dir():
        raise ModelFileError(f"{output}: there is no folder {str(output.parent)!r}; make it, or name another")
    if options.format == "onnx" and output.suffix != ".onnx":
        raise ModelFileError(f"{output}: the name of an ONNX file ends with .onnx")
    if options.format != "onnx" and output.suffix in (".onnx", ".pt", ".tflite", ".xml", ".param"):
        raise ModelFileError(f"{output}: {options.format} writes a folder; name one, such as model_{options.format}")
    if options.int8 and options.format == "ncnn":
        raise ModelFileError("INT8 is offered for onnx and openvino, not for ncnn; leave --int8 out, or take another")
    if options.int8 and options.format == "openvino" and options.keep_float:
        raise ModelFileError("--keep-float is for onnx; OpenVINO's quantiser chooses by itself")
    if options.int8 and not options.calibration:
        raise ModelFileError("--int8 needs real pictures to measure ranges on: --calibration path/to/pictures")
    for named in (options.calibration, options.pictures):
        if named:
            find_images(list(named))  # a wrong path is told before the work, not after it
    if options.batch != 1 and options.format == "ncnn":
        raise ModelFileError(f"ncnn takes one picture at a time, not --batch {options.batch}")


def _check_packages(options: ExportOptions) -> None:
    wanted = ["ncnn", "pnnx"] if options.format == "ncnn" else ["onnx", "onnxscript", "onnxruntime"]
    if options.format == "openvino":
        wanted += ["openvino", "nncf"] if options.int8 else ["openvino"]
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        extra = "export" if options.format == "onnx" else "export-all"
        raise MissingDependencyError(
            f"exporting to {options.format} needs {' and '.join(missing)}, not installed here; " + install_extra(extra)
        )


def _card(network: PyTorchBackend, options: ExportOptions) -> ModelCard:
    """The checkpoint's card, changed to what the exported file will be."""
    card, rule = network.card, network.card.resize
    if rule.longest_side is not None:
        # Pictures of any shape can't share a fixed input; most cameras' are 4:3, and others fit into it.
        shorter = min(rule.size)
        size = options.input_size or (shorter, min(rule.longest_side, round(shorter * 4 / 3)))
        rule = ResizeRule(size, letterbox=True)
    elif options.input_size is not None and options.input_size != rule.size:
        height, width = rule.size
        raise ModelFileError(
            f"--input-size is for models whose pictures keep their shape; this one was trained at {height}x{width}"
        )
    precision = "int8" if options.int8 else "float32"
    return replace(card, resize=rule, batch=options.batch, precision=precision)


def _make(
    network: PyTorchBackend, card: ModelCard, place: Path, options: ExportOptions, pictures: Sequence[ImageArray]
) -> Any:
    """Write the model to ``place``; returns the float graph, if there is one."""
    model = network.model
    if options.format == "ncnn":
        from mobiledet.export.ncnn import write_ncnn

        write_ncnn(model, card, place)
        return None
    from mobiledet.export.onnx import trace_onnx, write_onnx

    logger.info("tracing ...")
    graph = made = trace_onnx(model, size=card.resize.size, batch=card.batch)
    if options.int8:
        logger.info("measuring ranges on %d pictures ...", len(pictures) * card.batch)
    if options.format == "onnx":
        if options.int8:
            from mobiledet.export.int8 import quantise

            made = quantise(graph, pictures, method=options.method, keep_float=options.keep_float)
        write_onnx(made, card, place)
    else:
        from mobiledet.export.openvino import quantise_openvino, write_openvino

        write_openvino(quantise_openvino(graph, pictures) if options.int8 else graph, card, place)
    return graph


def _calibration(card: ModelCard, options: ExportOptions) -> list[ImageArray]:
    """Batches ``(B, H, W, 3)`` of pictures in the network's size, evenly spread over those named."""
    paths = _spread(find_images(list(options.calibration)), max(options.calibration_pictures, card.batch))
    pictures = [fit_image(read_image(path), card.resize, fill=card.fill)[0] for path in paths]
    whole = len(pictures) // card.batch * card.batch
    if not whole:
        raise ModelFileError(f"--calibration holds {len(pictures)} pictures, fewer than --batch {card.batch}")
    return [np.stack(pictures[start : start + card.batch]) for start in range(0, whole, card.batch)]


def _certify(reference: Detector, model: Detector, output: Path, options: ExportOptions) -> Certificate:
    pictures = _pictures(reference.card, options)
    logger.info("comparing with the checkpoint on %d pictures ...", len(pictures))
    threshold = reference.card.shown_threshold or SHOWN
    agreement = compare(reference(pictures), model(pictures), threshold=threshold)
    limits = INT8_LIMITS if options.int8 else FLOAT_LIMITS
    if options.max_ap_loss is not None:
        limits = replace(limits, ap_loss=options.max_ap_loss)
    ap = _score_both(reference, model, options.dataset) if options.dataset is not None else None
    return Certificate(
        file=output.name,
        checkpoint=dict(reference.card.origin),
        runtime=model.backend.runtime,
        agreement=agreement,
        ap=ap,
        limits=limits,
        forced=options.force,
        problems=problems(agreement, ap, limits),
        versions={**reference.card.versions, **_versions("onnx", "onnxscript", "onnxruntime", "nncf", "pnnx")},
    )


def _versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _score_both(reference: Detector, model: Detector, dataset: CocoDataset) -> dict[str, Any]:
    truth = dataset.coco_json()
    points = []
    for which, detector in (("checkpoint", reference), ("exported model", model)):
        logger.info("scoring the %s on %d pictures ...", which, len(dataset))
        batch = max(8, detector.card.batch)
        results = predict_dataset(detector, detector.names, dataset, batch_size=batch)
        points.append(100 * (score_detections(truth, results).AP or 0.0))
    return {
        "checkpoint": round(points[0], 4),
        "model": round(points[1], 4),
        "difference": round(points[1] - points[0], 4),
        "pictures": len(dataset),
        "data": dataset.annotation_file.name,
    }


def _pictures(card: ModelCard, options: ExportOptions) -> list[ImageArray]:
    if options.pictures:
        return [read_image(path) for path in _spread(find_images(list(options.pictures)), COMPARED)]
    if options.dataset is not None:
        records = [options.dataset[index] for index in range(min(COMPARED, len(options.dataset)))]
        return [read_image(record.path, apply_orientation=record.apply_orientation) for record in records]
    # Shapes of every size, on pictures that are neither the network's size nor square.
    height, width = card.resize.size
    rng = np.random.default_rng(0)
    return [draw_picture(rng, (height + 17 + index, round(width * 1.2) + index))[0] for index in range(GENERATED)]


def _damage(graph: Any, pictures: Sequence[ImageArray], card: ModelCard, place: Path) -> list[dict[str, Any]]:
    """How far the scores move when only one layer is rounded, for each, worst first."""
    from mobiledet.export.int8 import layer_names, quantise
    from mobiledet.export.onnx import write_onnx
    from mobiledet.runtime.onnx import OnnxBackend

    def scores(made: Any, name: str) -> Any:
        path = place.with_name(name)
        write_onnx(made, card, path)
        network = OnnxBackend(path)
        found = np.stack([network.run(picture, 0.0, card.iou_threshold).scores for picture in pictures])
        path.unlink()
        return found

    layers = layer_names(graph)
    exact = scores(graph, "exact.onnx")
    damage = []
    for layer in layers:
        one = quantise(graph, pictures, keep_float=[name for name in layers if name != layer])
        error = float(np.abs(scores(one, "one.onnx") - exact).mean() / max(1e-9, float(exact.mean())))
        damage.append({"name": layer, "error": round(error, 6)})
    return sorted(damage, key=lambda entry: -float(str(entry["error"])))


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return list(paths)
    return [paths[round(index)] for index in np.linspace(0, len(paths) - 1, count)]


@contextlib.contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """A place of the same name in a hidden folder beside ``output``, which is gone afterwards."""
    folder = output.with_name(f".{output.name}.tmp")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted export left
        folder.mkdir()
    except OSError as error:
        raise ModelFileError(f"can't write to {str(output.parent)!r}: {error.strerror}") from None
    try:
        yield folder / output.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
