"""Write a detector as a file that runs without PyTorch, and prove that it finds the same.

    mobiledet export runs/mine/1/best.pt -o model.onnx
    mobiledet export runs/mine/1/best.pt -o model_int8.onnx --int8 --calibration data/mine/train2017
    mobiledet export runs/mine/1/best.pt -o model_openvino --format openvino
    mobiledet export runs/mine/1/best.pt -o model_ncnn --format ncnn
    mobiledet export runs/mine/1/best.pt -o model.tflite --int8 --calibration data/mine/train2017
    mobiledet export runs/mine/1/best.pt -o frigate --format frigate --int8 --calibration data/mine/train2017

Both are run on the same images (--images, --data, or generated ones); the result is written beside the file as
MODEL.certificate.json. A file that finds too little is refused unless --force.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import UsageError, at_least, existing, image_size, model, thread_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("checkpoint", type=model, help="best.pt, a run folder, or pretrained weights by name")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="model.onnx, .tflite, or a folder; must not exist"
    )
    parser.add_argument(
        "--format", type=_format, help="what runs it (default: by the name, else onnx); a wrong name lists them"
    )
    parser.add_argument("--batch", type=_batch, default=1, metavar="N", help="images at once (default: 1), or dynamic")
    parser.add_argument("--no-nms", action="store_true", help="end in all boxes and scores, before suppression")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX's version (default: 18)")
    parser.add_argument(
        "--max-detections", type=at_least(1), metavar="N", help="most of an image (default: as trained, mostly 100)"
    )
    parser.add_argument(
        "--write-labels",
        type=Path,
        metavar="FILE",
        help="write the class names, too: lines such as '0 cat'; must not exist",
    )
    parser.add_argument(
        "--input-size",
        type=image_size,
        metavar="HxW",
        help="of the network, smaller is faster (default: as trained; 4:3 where images keep their shape)",
    )
    quantised = parser.add_argument_group("INT8")
    quantised.add_argument("--int8", action="store_true", help="quantise: smaller and about twice as fast")
    quantised.add_argument(
        "--calibration",
        type=existing,
        nargs="+",
        default=[],
        help="real images, files or folders (not needed after train.quantize)",
    )
    quantised.add_argument(
        "--calibration-images",
        "--calibration-pictures",
        type=at_least(1),
        default=60,
        metavar="N",
        help="how many (default: 60)",
    )
    quantised.add_argument(
        "--method", choices=["minmax", "percentile"], default="minmax", help="how ranges are chosen (onnx)"
    )
    quantised.add_argument(
        "--keep-float", nargs="+", default=[], metavar="LAYER", help="layers to leave as they are (onnx)"
    )
    proof = parser.add_argument_group("comparison with the checkpoint")
    proof.add_argument(
        "--images", "--pictures", type=existing, nargs="+", default=[], help="files or folders (default: generated)"
    )
    proof.add_argument("--data", type=existing, metavar="ROOT", help="score both on this data set, too")
    proof.add_argument("--split", default="val", help="its split (default: val)")
    proof.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N images of it")
    proof.add_argument("--max-ap-loss", type=float, metavar="POINTS", help="default: 0.5, with --int8 1.5")
    proof.add_argument("--force", action="store_true", help="keep the file even if it finds too little")
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")


def run(arguments: argparse.Namespace) -> None:
    """Export, compare and print."""
    if (arguments.max_ap_loss or 0) < 0:
        raise UsageError("--max-ap-loss must be at least 0")
    if not arguments.int8 and (arguments.calibration or arguments.keep_float):
        raise UsageError("--calibration and --keep-float are for --int8")
    if arguments.input_size is not None and min(arguments.input_size) < 32:
        raise UsageError("--input-size must be at least 32x32")

    from mobiledet.exporters.choose import format_of
    from mobiledet.exporters.exporting import check_packages

    format = arguments.format or format_of(arguments.output)
    check_packages(format, int8=arguments.int8)

    from mobiledet.data.opening import open_split
    from mobiledet.exporters.agreement import report_path
    from mobiledet.exporters.base import ExportOptions
    from mobiledet.exporters.exporting import export_model

    dataset = None
    if arguments.data is not None:
        dataset = open_split(arguments.data, arguments.split)
        if arguments.limit is not None:
            dataset = dataset.first(arguments.limit)
    options = ExportOptions(
        format=format,
        int8=arguments.int8,
        calibration=arguments.calibration,
        calibration_images=arguments.calibration_images,
        method=arguments.method,
        keep_float=arguments.keep_float,
        batch=arguments.batch,
        suppressed=not arguments.no_nms,
        opset=arguments.opset,
        max_detections=arguments.max_detections,
        labels=arguments.write_labels,
        input_size=arguments.input_size,
        images=arguments.images,
        dataset=dataset,
        max_ap_loss=arguments.max_ap_loss,
        force=arguments.force,
        threads=arguments.threads,
    )
    report = export_model(arguments.checkpoint, arguments.output, options)
    verdict = "passed" if report.passed else "kept by --force: " + "; ".join(report.problems)
    print(f"{arguments.output}: {verdict}; agreement report: {report_path(arguments.output)}")


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else at_least(1)(text)


def _format(name: str) -> str:
    from mobiledet.errors import ModelFileError
    from mobiledet.exporters.choose import find_exporter

    try:
        return find_exporter(name).name
    except ModelFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
