"""Drawing: copies, clipping, sizes and files; how it looks is for people to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mobiledet.detections import Detections
from mobiledet.draw.boxes import (
    class_color,
    draw_box,
    draw_comparison,
    draw_detections,
    draw_target,
    image_grid,
    legend_strip,
    write_image,
)
from mobiledet.errors import ImageError
from mobiledet.structures import ImageArray, Target

NAMES = ("person", "traffic light", "crème brûlée")


def test_names_that_are_not_text_are_drawn_without_a_crash() -> None:
    sheet = image_grid([gray(40, 60)], columns=1, cell=(90, 120), captions=["a\udcff\ud83d.jpg\x1b[31m"])
    assert np.array_equal(sheet, image_grid([gray(40, 60)], columns=1, cell=(90, 120), captions=["a.jpg[31m"]))


def gray(height: int, width: int, value: int = 120) -> ImageArray:
    return np.full((height, width, 3), value, np.uint8)


def found(boxes: list[list[float]], labels: list[int] | None = None, names: tuple[str, ...] = NAMES) -> Detections:
    count = len(boxes)
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    given = np.array(labels if labels is not None else [1] * count, np.int64)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, given, names)


def wanted(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Target:
    flags = np.array(crowd or [False] * len(boxes), np.bool_)
    return Target(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), flags)


def changed(image: ImageArray, drawn: ImageArray) -> tuple[int, int, int, int]:
    """First and last row and column that differ."""
    rows, columns = np.nonzero((image != drawn).any(axis=-1))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_colors_are_distinct_and_stable() -> None:
    colors = [class_color(label) for label in range(1, 301)]
    assert len(set(colors)) == 300
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    assert class_color(17) == colors[16]
    first = np.array(colors[:20], np.float32)
    gaps = np.abs(first[:, None] - first[None]).sum(-1) + 1000 * np.eye(20)
    assert gaps.min() > 50


@pytest.mark.parametrize("size", [(40, 60), (480, 300), (120, 1600), (4000, 6000)])
def test_drawing_leaves_the_image_alone_and_keeps_its_size(size: tuple[int, int]) -> None:
    image = gray(*size)
    boxes = [[0.1 * size[1], 0.2 * size[0], 0.6 * size[1], 0.9 * size[0]], [-50, -50, 2 * size[1], 2 * size[0]]]
    detections, target = found(boxes, [1, 3]), wanted(boxes, [1, 3], [False, True])
    comparison = draw_comparison(image, target, detections, NAMES)
    for drawn in (draw_detections(image, detections), draw_target(image, target, NAMES), comparison):
        assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
        assert (drawn != image).any()
        assert (image == 120).all()


def test_a_box_is_drawn_where_it_is_in_its_color() -> None:
    image = gray(200, 300)
    drawn = draw_detections(image, found([[40.4, 50.2, 240.3, 150.4]], [2]), labels=False)
    assert changed(image, drawn) == pytest.approx((50, 149, 40, 239), abs=1)
    assert tuple(drawn[100, 40]) == class_color(2)
    assert (drawn[55:145, 45:235] == 120).all()


def test_nothing_found_gives_a_copy() -> None:
    image, nothing = gray(30, 50), Target.empty()
    comparison = draw_comparison(image, nothing, found([]), NAMES)
    for drawn in (draw_detections(image, found([])), draw_target(image, nothing, NAMES), comparison):
        assert not np.shares_memory(drawn, image)
        np.testing.assert_array_equal(drawn, image)


def test_boxes_outside_the_image_or_not_finite_are_skipped_and_single_pixels_drawn() -> None:
    image = gray(100, 150)
    nan = float("nan")
    boxes = [[-30, -30, -5, -5], [160, 10, 200, 50], [10, 120, 40, 140], [nan, 0, 10, 10], [0, 0, float("inf"), 9]]
    np.testing.assert_array_equal(draw_detections(image, found(boxes)), image)
    drawn = draw_detections(image, found([[149.9, 99.9, 150, 100], [20, 30, 20, 30]]), labels=False)
    assert (drawn[99, 149] != 120).any()
    assert (drawn[30, 20] != 120).any()


@pytest.mark.parametrize("corner", [[0, 0, 20, 20], [280, 0, 300, 20], [0, 180, 20, 200], [280, 180, 300, 200]])
def test_tags_stay_inside_the_image(corner: list[float]) -> None:
    # A tag cut at the edge would differ from the whole one: count its colour.
    whole = draw_detections(gray(400, 500), found([[200, 200, 220, 220]], [2]))
    drawn = draw_detections(gray(200, 300), found([corner], [2]))
    color = np.array(class_color(2))
    filled = (drawn == color).all(-1).sum()
    assert filled > 0.55 * (whole == color).all(-1).sum()


def test_tags_avoid_each_other() -> None:
    image = gray(300, 400)
    alone = [draw_detections(image, found([[100, 100, 300, 250]], [label])) for label in (1, 3)]
    both = draw_detections(image, found([[100, 100, 300, 250]] * 2, [1, 3]))
    for label, one in zip((1, 3), alone, strict=True):
        color = np.array(class_color(label))
        tag = (one[:100] == color).all(-1).sum()
        assert (both == color).all(-1).sum() >= 0.9 * tag


def test_long_and_odd_names_fit() -> None:
    image = gray(60, 90)
    for name in ("a very long class name that no image has room for", "苹果", "", "two\nlines"):
        assert draw_detections(image, found([[10, 10, 80, 50]], [1], (name,))).shape == image.shape
    assert draw_target(image, wanted([[10, 10, 80, 50]], [9]), NAMES).shape == image.shape


def test_crowds_are_dashed_and_targets_have_no_class_color() -> None:
    image = gray(400, 300)
    box = [[50, 100, 250, 380]]
    plain = draw_target(image, wanted(box, [1]), NAMES)
    dashed = draw_target(image, wanted(box, [1], [True]), NAMES)
    side = slice(140, 370), 50
    assert (plain[side] != 120).any(-1).all()
    gaps = (dashed[side] == 120).all(-1).mean()
    assert 0.2 < gaps < 0.7
    assert (np.ptp(plain.astype(int), axis=-1) == 0).all()  # nothing but greys


def test_comparison_names_only_what_was_missed() -> None:
    image = gray(300, 400)
    target = wanted([[20, 40, 120, 240], [220, 40, 380, 240]], [1, 2])
    detections = found([[22, 42, 121, 238]], [1])
    drawn = draw_comparison(image, target, detections, NAMES)
    right = draw_comparison(image, target, found([[22, 42, 121, 238], [220, 40, 380, 240]], [1, 2]), NAMES)
    white = (255, 255, 255)
    above = slice(10, 38), slice(215, 400)
    assert (drawn[above] == white).all(-1).sum() > 200
    assert (right[above] == white).all(-1).sum() < 200
    # Found, but called something else, is missed as well.
    wrong = draw_comparison(image, target, found([[220, 40, 380, 240]], [3]), NAMES)
    assert (wrong == white).all(-1).sum() > (right == white).all(-1).sum()


def test_grid_shape_and_proportions() -> None:
    images = [gray(100, 200, 250), gray(300, 50, 250), gray(8, 8, 250), gray(90, 120, 250)]
    sheet = image_grid(images, columns=3, cell=(120, 160))
    assert sheet.shape == (240, 480, 3)
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        cell = sheet[row * 120 : row * 120 + 120, column * 160 : column * 160 + 160]
        rows, columns = np.nonzero((cell == 250).all(-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width / height == pytest.approx(image.shape[1] / image.shape[0], rel=0.06)
        assert max(height / 120, width / 160) > 0.9
    assert (sheet[120:, 160:] == sheet[-1, -1]).all()  # the short last row stays empty


def test_grid_captions() -> None:
    captions = ["short", "a caption that is far too long for the width of its cell, by any measure"]
    sheet = image_grid([gray(100, 200)] * 2, columns=2, cell=(150, 200), captions=captions)
    assert sheet.shape == (150, 400, 3)
    assert all((half > 200).any() for half in (sheet[-25:, :200], sheet[-25:, 200:]))


@pytest.mark.parametrize(
    ("count", "columns", "cell", "captions"),
    [(0, 1, (50, 50), None), (1, 0, (50, 50), None), (1, 1, (50, 4), None), (1, 1, (50, 50), ["a", "b"])],
)
def test_impossible_grids_are_refused(count: int, columns: int, cell: Any, captions: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"grid needs|captions"):
        image_grid([gray(10, 20)] * count, columns=columns, cell=cell, captions=captions)


@pytest.mark.parametrize("name", ["a.png", "写真 é.png", "new/folder/b.PNG"])
def test_written_images_read_back(tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / name
    write_image(path, gray(5, 5))
    write_image(path, image)
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(back[..., ::-1], image)
    assert [child.name for child in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_unwritable_images_are_refused(tmp_path: Path) -> None:
    for name in ("a.xyz", "a"):
        with pytest.raises(ImageError, match=r"name it \.jpg or \.png"):
            write_image(tmp_path / name, gray(5, 8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match="can't be written"):
        write_image(tmp_path / "file" / "a.png", gray(5, 8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="can't be written"):
        write_image(tmp_path / "folder.png", gray(5, 8))
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_single_box_is_edged_and_kept_inside() -> None:
    canvas = gray(60, 80)
    draw_box(canvas, np.array([-20, 10, 40, 500], np.float32), (255, 0, 0), 2)
    assert (canvas[30, 38:42] == (255, 0, 0)).all(-1).any()
    assert (canvas[30, 36:43] == 0).all(-1).any(), "a black edge"
    assert (canvas[30, 50:] == 120).all()


def test_a_legend_takes_as_many_lines_as_it_needs() -> None:
    entries = [((255, 0, 0), "circle (12)"), (None, "Dashed: crowds, which are neither trained on nor scored.")]
    wide, narrow = legend_strip(entries, 1200), legend_strip(entries, 240)
    assert (wide.shape[1], narrow.shape[1]) == (1200, 240)
    assert narrow.shape[0] > wide.shape[0]
    assert all((strip == (255, 0, 0)).all(-1).any() for strip in (wide, narrow))
