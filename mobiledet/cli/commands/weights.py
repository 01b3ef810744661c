"""Pretrained weights: see which there are, fetch them, or convert your own file.

    mobiledet weights list
    mobiledet weights fetch ssd_mobilenet_v1_075_coco
    mobiledet weights import detect.tflite -o coco.pt [--labels labels.txt]

A name works wherever a checkpoint path does. `import` reads TensorFlow Object Detection API SSD MobileNetV1 detectors
and ImageNet MobileNetV1 classifiers (.tflite), frozen TensorFlow graphs of these (.pb), and timm's mobilenetv1_*
(.safetensors).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import new_file
from mobiledet.errors import need_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, what they are, size, licence, scores")
    fetch = commands.add_parser("fetch", help="download and convert, for later use without a network")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    convert = commands.add_parser("import", help="convert a .tflite, .pb or .safetensors file to a checkpoint")
    convert.add_argument("file", type=Path)
    convert.add_argument("-o", "--output", type=new_file, required=True, help="checkpoint to write, such as coco.pt")
    convert.add_argument("--labels", type=Path, help="text file with a detector's class names, one a line")


def run(arguments: argparse.Namespace) -> None:
    """List, fetch or convert."""
    if arguments.command == "list":
        _list()
    elif arguments.command == "fetch":
        _fetch(arguments.names)
    else:
        need_extra("train")
        from mobiledet.weights.checkpoint import save_checkpoint
        from mobiledet.weights.importing import describe_weights, import_weights

        content = import_weights(arguments.file, labels=arguments.labels)
        save_checkpoint(arguments.output, content)
        print(f"{arguments.output}: {describe_weights(content)}")


def _list() -> None:
    from mobiledet.weights.catalogue import SOURCES
    from mobiledet.weights.store import local_file

    for source in SOURCES:
        here = local_file(source)
        kind = "COCO detector, 80 classes" if source.what == "detector" else "ImageNet backbone"
        print(f"{source.name}: {kind}, alpha {source.alpha:g}, {source.input_size} pixels")
        print(f"    published {source.published}; {source.measured}")
        print(f"    {source.licence}, {source.megabytes:g} MB, {here or 'not downloaded yet: ' + source.url}")


def _fetch(names: list[str]) -> None:
    from mobiledet.errors import CheckpointError
    from mobiledet.runtime.choose import check_installed, exported_path
    from mobiledet.weights.catalogue import SOURCES, find_source, suggest_name
    from mobiledet.weights.store import pretrained_checkpoint

    for name in names:
        source = find_source(name)
        if source is None:
            known = f"there are {', '.join(source.name for source in SOURCES)}"
            raise CheckpointError(f"no pretrained weights {name!r}: {suggest_name(name, known)}")
        check_installed(name)
        print(f"{name}: {exported_path(name) or pretrained_checkpoint(source)}")
