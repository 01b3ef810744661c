from __future__ import annotations

import contextlib
import io
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mobiledet.data import shapes
from mobiledet.data.shapes import CATEGORIES, MARKER, RECORD, draw_image, generate_shapes
from mobiledet.errors import DataError

TRAIN, VAL = 150, 10


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_shapes(tmp_path_factory.mktemp("data") / "shapes", train=TRAIN, val=VAL)


def annotations(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = generate_shapes(tmp_path / "a", train=4, val=2, seed=3)
    second = generate_shapes(tmp_path / "b", train=4, val=2, seed=3)
    assert contents(first) == contents(second)
    assert len(contents(first)) == 4 + 2 + 2 + 1


def test_another_seed_or_split_gives_other_images(root: Path, tmp_path: Path) -> None:
    other = generate_shapes(tmp_path / "a", train=2, val=2, seed=1)
    names = ("train/000001.jpg", "val/000001.jpg")
    assert len({(folder / name).read_bytes() for folder in (root, other) for name in names}) == 4


def test_a_picture_does_not_depend_on_how_many_there_are(root: Path, tmp_path: Path) -> None:
    few = generate_shapes(tmp_path / "few", train=3, val=2)
    for split, count in (("train", 3), ("val", 2)):
        for image_id in range(1, count + 1):
            name = f"{split}/{image_id:06d}.jpg"
            assert (few / name).read_bytes() == (root / name).read_bytes()
        boxes = [a for a in annotations(root, split)["annotations"] if a["image_id"] <= count]
        assert annotations(few, split)["annotations"] == boxes


def test_boxes_are_inside_their_pictures_and_sizes_are_those_of_the_files(root: Path) -> None:
    data = annotations(root, "train")
    sizes = {}
    for entry in data["images"]:
        image = cv2.imread(str(root / "train" / entry["file_name"]))
        assert image.shape == (entry["height"], entry["width"], 3)
        sizes[entry["id"]] = image.shape[:2]
    assert len(sizes) == TRAIN
    assert any(height > width for height, width in sizes.values())
    assert any(height < width for height, width in sizes.values())
    for annotation in data["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0
        assert y >= 0
        assert width >= 2
        assert height >= 2
        assert x + width <= sizes[annotation["image_id"]][1]
        assert y + height <= sizes[annotation["image_id"]][0]
        assert annotation["area"] == width * height


def only_one_shape(monkeypatch: pytest.MonkeyPatch, kind: str | None = None) -> None:
    """One shape on plain grey, without blur and noise: every pixel that isn't grey is the shape's."""
    plain = np.array([128, 128, 128], np.uint8)
    monkeypatch.setattr(shapes, "_background", lambda height, width, rng: np.tile(plain, (height, width, 1)))
    for name, value in {"EMPTY_SHARE": 0.0, "MAX_OBJECTS": 1, "BLUR_SHARE": 0.0, "MAX_NOISE": 0.0}.items():
        monkeypatch.setattr(shapes, name, value)
    if kind is not None:
        monkeypatch.setattr(shapes, "NAMES", (kind,))


def drawn_box(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(np.abs(image.astype(int) - 128).sum(2) > 24)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("kind", list(CATEGORIES))
def test_a_box_is_tight_to_what_is_drawn(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    only_one_shape(monkeypatch, kind)
    monkeypatch.setattr(shapes, "EDGE_SHARE", 0.5)
    for seed in range(25):
        image, [(name, (x, y, width, height))] = draw_image(np.random.default_rng(seed), (90, 150))
        assert name == kind
        # Stripes may come near to the grey; the outermost pixels are half transparent, tips even more.
        assert np.abs(drawn_box(image) - (x, y, x + width, y + height)).max() <= 2, seed


def test_shapes_cut_by_the_edge_have_clipped_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    only_one_shape(monkeypatch, "circle")
    monkeypatch.setattr(shapes, "EDGE_SHARE", 1.0)
    touching = 0
    for seed in range(60):
        image, [(_, (x, y, width, height))] = draw_image(np.random.default_rng(seed), (80, 140))
        touching += x == 0 or y == 0 or x + width == image.shape[1] or y + height == image.shape[0]
    assert touching >= 10


def test_every_drawn_shape_keeps_enough_of_itself_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    only_one_shape(monkeypatch)
    for name, value in {"MAX_OBJECTS": 8, "MIN_EXTENT": 0.3, "EDGE_SHARE": 0.3}.items():
        monkeypatch.setattr(shapes, name, value)
    real = shapes._shape_alpha
    latest, areas = [0], []

    def remember_area(*args: Any) -> np.ndarray:
        alpha = real(*args)
        latest[0] = int((alpha >= 0.5).sum())
        return alpha

    def paint_number(region: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> None:
        areas.append(latest[0])
        region[alpha >= 0.5] = len(areas)

    monkeypatch.setattr(shapes, "_shape_alpha", remember_area)
    monkeypatch.setattr(shapes, "_paint", paint_number)
    shares = []
    for seed in range(40):
        areas.clear()
        image, placed = draw_image(np.random.default_rng(seed), (100, 160))
        assert len(placed) == len(areas)
        shares += [(image[..., 0] == number).sum() / area for number, area in enumerate(areas, start=1)]
    assert min(shares) >= shapes.MIN_VISIBLE
    assert min(shares) < 0.85  # shapes do cover one another
    assert max(shares) == 1


def test_classes_are_balanced_and_ids_have_gaps(root: Path) -> None:
    data = annotations(root, "train")
    ids = [category["id"] for category in data["categories"]]
    assert ids == sorted(set(ids))
    assert ids != list(range(1, len(ids) + 1))
    counts = Counter(annotation["category_id"] for annotation in data["annotations"])
    assert set(counts) == set(ids)
    mean = len(data["annotations"]) / len(ids)
    assert all(0.6 * mean < count < 1.5 * mean for count in counts.values())


def test_all_of_cocos_sizes_and_pictures_without_objects_are_there(root: Path) -> None:
    data = annotations(root, "train")
    areas = np.array([annotation["area"] for annotation in data["annotations"]])
    shares = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0] / len(areas)
    assert shares[0] > 0.02
    assert shares[1] > 0.4
    assert shares[2] > 0.1
    per_image = Counter(annotation["image_id"] for annotation in data["annotations"])
    assert 0 < TRAIN - len(per_image) < 0.1 * TRAIN
    assert max(per_image.values()) == shapes.MAX_OBJECTS


def test_pycocotools_reads_it(root: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(root / "annotations" / "instances_val.json"))
    assert coco.getImgIds() == list(range(1, VAL + 1))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CATEGORIES)
    assert coco.getAnnIds() == list(range(1, len(coco.getAnnIds()) + 1))


def test_a_complete_data_set_is_used_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = generate_shapes(tmp_path / "a", train=2, val=1)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert generate_shapes(folder, train=2, val=1) == folder
    assert "complete already" in caplog.text
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_interrupted_data_set_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(generate_shapes(tmp_path / "whole", train=3, val=2))
    folder = tmp_path / "a"
    real, calls = shapes.draw_image, iter(range(100))

    def stop_at_the_fifth(*args: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            generate_shapes(folder, train=6, val=2)
    assert (folder / MARKER).exists()
    assert not (folder / RECORD).exists()
    generate_shapes(folder, train=3, val=2)
    assert "interrupted" in caplog.text
    assert contents(folder) == whole


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty.*choose another folder"):
        generate_shapes(tmp_path, train=1, val=1)
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(DataError, match=r"notes\.txt.*choose another folder"):
        generate_shapes(tmp_path / "notes.txt", train=1, val=1)


def test_a_data_set_with_other_arguments_or_missing_pictures_is_refused(tmp_path: Path) -> None:
    folder = generate_shapes(tmp_path / "a", train=2, val=1)
    before = contents(folder)
    with pytest.raises(DataError, match=r'"seed": 0.*"seed": 1.*choose another folder'):
        generate_shapes(folder, train=2, val=1, seed=1)
    assert contents(folder) == before
    (folder / "train" / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images in train.*delete the folder"):
        generate_shapes(folder, train=2, val=1)
    (folder / RECORD).write_bytes(b"\xff\x00")
    with pytest.raises(DataError, match="choose another folder or delete it"):
        generate_shapes(folder, train=2, val=1)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"size": (40, 200)}, {"size": (200, 0)}, {"seed": -1}])
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="ask for"):
        generate_shapes(tmp_path / "a", **wrong)
    assert not (tmp_path / "a").exists()


def test_the_smallest_pictures_can_be_drawn() -> None:
    for seed in range(150):
        image, placed = draw_image(np.random.default_rng(seed), (48, 64))
        assert image.dtype == np.uint8
        assert all(min(box[2:]) >= 2 for _, box in placed)
