"""COCO folders made from a few lines: images of coloured blotches, boxes as given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobiledet.apps.doctor.collection import Collection, collect
from mobiledet.apps.doctor.report import Finding, Section
from mobiledet.data.coco import load_coco

Box = tuple[int, float, float, float, float]


class Maker:
    """Writes a data set to a new ``root``; ``splits`` maps a split to its images ``(name, image, boxes xywh)``."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "data"

    def __call__(
        self,
        splits: Mapping[str, Sequence[tuple[str, np.ndarray, Sequence[Box]]]],
        names: Sequence[str] = ("cat", "dog"),
        crowds: Sequence[int] = (),
    ) -> Path:
        while self.root.exists():
            self.root = self.root.with_name(f"{self.root.name}_")
        (self.root / "annotations").mkdir(parents=True)
        for split, content in splits.items():
            (self.root / split).mkdir()
            images, annotations = [], []
            for number, (name, image, boxes) in enumerate(content, 1):
                cv2.imwrite(str(self.root / split / name), image[..., ::-1])
                height, width = image.shape[:2]
                images.append({"id": number, "file_name": name, "height": height, "width": width})
                for label, x, y, w, h in boxes:
                    known = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
                    crowd = int(len(annotations) in crowds)
                    annotations.append({**known, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd})
            categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
            coco = {"images": images, "annotations": annotations, "categories": categories}
            (self.root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")
        return self.root

    @staticmethod
    def image(height: int, width: int, seed: int) -> np.ndarray:
        """An image that looks like no other seed's: ``(height, width, 3)`` uint8 RGB."""
        small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    @staticmethod
    def findings(section: Section) -> dict[str, Finding]:
        """What a section noticed, by code."""
        return {finding.code: finding for finding in section.findings}

    def collect(self, *splits: str) -> Collection:
        return collect({split: load_coco(self.root, split) for split in splits})


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)
