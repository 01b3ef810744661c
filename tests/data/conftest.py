"""A small COCO folder to break, and the real data sets if they are there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobiledet.data.coco import CocoDataset, load_coco


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image with noise in it, so that its JPEG can be cut anywhere."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clean_coco() -> dict[str, Any]:
    """Two images, neither square, four boxes, two classes with gaps between their ids."""
    return {
        "images": [
            {"id": 10, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 20, "file_name": "b.jpg", "height": 50, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 20, "category_id": 7, "bbox": [5, 10, 20, 30], "area": 500.0, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 2400.0, "iscrowd": 0},
            {"id": 3, "image_id": 10, "category_id": 7, "bbox": [45.5, 2, 10, 20.25], "area": 202.5, "iscrowd": 0},
            {"id": 4, "image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12.0, "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@dataclass
class TmpCoco:
    """A COCO folder in the making: change ``data`` or the images, then load."""

    root: Path
    data: dict[str, Any] = field(default_factory=clean_coco)

    @property
    def images(self) -> Path:
        return self.root / "train2017"

    def save(self, text: str | None = None) -> Path:
        file = self.root / "annotations" / "instances_train2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.data) if text is None else text, encoding="utf-8")
        return file

    def add_image(self, name: str, height: int, width: int, orientation: int | None = None) -> Path:
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        file = self.images / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(height, width)).save(file, exif=exif)
        return file

    def load(self, **options: Any) -> CocoDataset:
        self.save()
        return load_coco(self.root, "train", **options)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def tmp_coco(tmp_path: Path) -> TmpCoco:
    coco = TmpCoco(tmp_path / "coco")
    coco.add_image("a.jpg", 40, 60)
    coco.add_image("b.jpg", 50, 30)
    return coco


@pytest.fixture
def real_data() -> Path:
    """Folder of the real data sets, or a skip."""
    default = Path(__file__).resolve().parents[3] / "shared"
    base = Path(os.environ.get("MOBILEDET_TEST_DATA") or default) / "data"
    if not (base / "coco-mini").is_dir():
        pytest.skip(f"no real data in {base}; set MOBILEDET_TEST_DATA to the folder that holds data/coco-mini")
    return base
