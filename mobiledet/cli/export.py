"""Write a detector as a file that runs without PyTorch, and prove that it finds the same.

    python tools/export.py runs/mine/1/best.pt -o model.onnx
    python tools/export.py runs/mine/1/best.pt -o model_int8.onnx --int8 --calibration data/mine/train2017
    python tools/export.py runs/mine/1/best.pt -o model_openvino --format openvino
    python tools/export.py runs/mine/1/best.pt -o model_ncnn --format ncnn

Both are run on the same images (--images, --data, or generated ones); the result is written beside the file as
MODEL.certificate.json. A file that finds too little is refused unless --force.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import thread_count


def main() -> None:
    """Parse arguments, export, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="best.pt, a run folder, or pretrained weights by name")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model.onnx, or a folder; must not exist")
    parser.add_argument(
        "--format", type=_format, default="onnx", help="what runs it (default: onnx); a wrong name lists them"
    )
    parser.add_argument("--batch", type=int, default=1, help="images at once (default: 1)")
    parser.add_argument(
        "--input-size", metavar="HxW", help="for models whose images keep their shape (default: 4:3, as trained)"
    )
    quantised = parser.add_argument_group("INT8")
    quantised.add_argument("--int8", action="store_true", help="quantise: smaller and about twice as fast")
    quantised.add_argument("--calibration", type=Path, nargs="+", default=[], help="real images, files or folders")
    quantised.add_argument(
        "--calibration-images",
        "--calibration-pictures",
        type=int,
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
        "--images", "--pictures", type=Path, nargs="+", default=[], help="files or folders (default: generated)"
    )
    proof.add_argument("--data", type=Path, metavar="ROOT", help="score both on this data set, too")
    proof.add_argument("--split", default="val", help="its split (default: val)")
    proof.add_argument("--limit", type=int, metavar="N", help="only the first N images of it")
    proof.add_argument("--max-ap-loss", type=float, metavar="POINTS", help="default: 0.5, with --int8 1.5")
    proof.add_argument("--force", action="store_true", help="keep the file even if it finds too little")
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    arguments = parser.parse_args()
    if arguments.batch < 1 or arguments.calibration_images < 1 or (arguments.limit or 1) < 1:
        parser.error("--batch, --calibration-images and --limit must be at least 1")
    if (arguments.max_ap_loss or 0) < 0:
        parser.error("--max-ap-loss must be at least 0")
    if not arguments.int8 and (arguments.calibration or arguments.keep_float):
        parser.error("--calibration and --keep-float are for --int8")
    size = _size(parser, arguments.input_size)

    from mobiledet.data.opening import open_split
    from mobiledet.export.agreement import report_path
    from mobiledet.export.base import ExportOptions
    from mobiledet.export.exporting import export_model

    dataset = None
    if arguments.data is not None:
        dataset = open_split(arguments.data, arguments.split)
        if arguments.limit is not None:
            dataset = dataset.first(arguments.limit)
    options = ExportOptions(
        format=arguments.format,
        int8=arguments.int8,
        calibration=arguments.calibration,
        calibration_images=arguments.calibration_images,
        method=arguments.method,
        keep_float=arguments.keep_float,
        batch=arguments.batch,
        input_size=size,
        images=arguments.images,
        dataset=dataset,
        max_ap_loss=arguments.max_ap_loss,
        force=arguments.force,
        threads=arguments.threads,
    )
    report = export_model(arguments.checkpoint, arguments.output, options)
    verdict = "passed" if report.passed else "kept by --force: " + "; ".join(report.problems)
    print(f"{arguments.output}: {verdict}; agreement report: {report_path(arguments.output)}")


def _format(name: str) -> str:
    from mobiledet.errors import ModelFileError
    from mobiledet.export.choose import find_exporter

    try:
        return find_exporter(name).name
    except ModelFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(parser: argparse.ArgumentParser, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) >= 32 for part in parts):
        parser.error(f"--input-size {text!r}: give height and width, at least 32 each, such as 480x640")
    return int(parts[0]), int(parts[1])
