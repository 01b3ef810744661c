"""Small data sets to break, made file by file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobiledet.data.coco import CocoDataset
from mobiledet.data.formats.choose import ImportedDataset, read_dataset

HEIGHT, WIDTH = 40, 60


@dataclass
class Folder:
    """A data set in the making."""

    root: Path

    def write(self, name: str, content: str | bytes | object = "") -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return file

    def image(
        self, name: str, height: int = HEIGHT, width: int = WIDTH, orientation: int | None = None, kind: str = ""
    ) -> Path:
        """An image of its own content; ``kind`` is Pillow's name of a format other than that of the ending."""
        pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, format=kind or None, exif=exif)
        return file

    def xml(self, name: str, *objects: str, filename: str | None = None, size: tuple[int, int] | None = None) -> Path:
        """An xml of objects as `thing` makes them; size is ``(height, width)``."""
        height, width = size or (HEIGHT, WIDTH)
        filename = Path(name).stem + ".jpg" if filename is None else filename
        head = f"<filename>{filename}</filename><size><width>{width}</width><height>{height}</height></size>"
        return self.write(name, f"<annotation>{head}{''.join(objects)}</annotation>")

    def voc(self, name: str, *objects: str, folder: str = "", **options: Any) -> None:
        """An image in JPEGImages and its xml in Annotations."""
        self.image(f"{folder}JPEGImages/{name}.jpg")
        self.xml(f"{folder}Annotations/{name}.xml", *objects, **options)

    def yolo(self, name: str, labels: str | None, images: str = "images", texts: str = "labels") -> None:
        """An image and its label file; None for no such file."""
        self.image(f"{images}/{name}.jpg")
        if labels is not None:
            self.write(f"{texts}/{name}.txt", labels)

    def read(self, **options: Any) -> ImportedDataset:
        return read_dataset(self.root, **options)


def thing(name: str = "cat", *corners: object, extra: str = "") -> str:
    """An object of an xml; corners are xmin, ymin, xmax, ymax."""
    xmin, ymin, xmax, ymax = corners or (11, 6, 30, 25)
    box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


def boxes(dataset: CocoDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """File name -> (class, xywh) of every box."""
    content = dataset.coco_json()
    names = {c["id"]: c["name"] for c in content["categories"]}
    found: dict[str, list[tuple[str, list[float]]]] = {Path(i["file_name"]).name: [] for i in content["images"]}
    files = {i["id"]: Path(i["file_name"]).name for i in content["images"]}
    for a in content["annotations"]:
        found[files[a["image_id"]]].append((names[a["category_id"]], [round(n, 3) for n in a["bbox"]]))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "set").mkdir()
    return Folder(tmp_path / "set")


@pytest.fixture
def make() -> Callable[..., str]:
    return thing


@pytest.fixture
def boxes_of() -> Callable[[CocoDataset], dict[str, list[tuple[str, list[float]]]]]:
    return boxes
