from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledet.data.coco import CocoDataset, load_coco
from mobiledet.data.holdout import hold_out
from mobiledet.errors import DataError


def dataset(root: Path, *labels: tuple[int, ...], names: list[str] | None = None) -> CocoDataset:
    """Images that hold boxes of some classes, one each."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    names = names or [f"{n:03}.jpg" for n in range(len(labels))]
    images = [{"id": n + 1, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(names)]
    boxes = [
        {"image_id": n + 1, "category_id": label, "bbox": [1, 1, 5 + label, 5]}
        for n, of in enumerate(labels)
        for label in of
    ]
    categories = [{"id": k, "name": f"c{k}"} for k in range(1, 6)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    stream = io.BytesIO()
    Image.new("RGB", (60, 40)).save(stream, "PNG")
    for name in names:
        (root / "images" / name).write_bytes(stream.getvalue())
    return load_coco(root, "train")


def files(data: CocoDataset) -> list[str]:
    return [data.file_name(index) for index in range(len(data))]


def pictures_with(data: CocoDataset) -> dict[int, int]:
    found: dict[int, int] = {}
    for index in range(len(data)):
        for label in set(data.labels(index).tolist()) or {0}:
            found[label] = found.get(label, 0) + 1
    return found


def mixed(count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(5)
    chances = np.array([0.9, 0.5, 0.1, 0.04])
    return [tuple((np.flatnonzero(rng.random(4) < chances) + 1).tolist()) for _ in range(count)]


def test_every_picture_is_on_one_side_and_classes_are_spread(tmp_path: Path) -> None:
    data = dataset(tmp_path, *mixed(400))
    train, val = hold_out(data, 0.2, 0)
    assert sorted(files(train) + files(val)) == files(data)
    assert len(val) == pytest.approx(80, abs=4)
    whole, held = pictures_with(data), pictures_with(val)
    for label, count in whole.items():
        assert held.get(label, 0) == pytest.approx(0.2 * count, abs=3), label
    assert train.categories == val.categories == data.categories
    assert files(train) == sorted(files(train))
    assert val.image_id(0) == int(files(val)[0][:3]) + 1


def test_the_choice_follows_from_seed_and_names_alone(tmp_path: Path) -> None:
    labels = mixed(60)
    first = files(hold_out(dataset(tmp_path / "a", *labels), 0.25, 0)[1])
    again = files(hold_out(dataset(tmp_path / "b", *labels), 0.25, 0)[1])
    assert first == again
    assert first != files(hold_out(dataset(tmp_path / "b", *labels), 0.25, 1)[1])
    names = [f"{n:03}.jpg" for n in range(60)]
    backwards = dataset(tmp_path / "c", *labels[::-1], names=names[::-1])
    assert sorted(files(hold_out(backwards, 0.25, 0)[1])) == first


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_training_keeps_a_picture_of_every_class(tmp_path: Path, share: float, seed: int) -> None:
    data = dataset(tmp_path, (1,), (1, 2), (1, 2), (1, 3), (1,), (1, 4), (1, 4), (), (1, 2, 4))
    train, val = hold_out(data, share, seed)
    assert set(pictures_with(train)) >= {1, 2, 3, 4}
    assert 1 <= len(val) <= max(1, share * len(data) + 0.5)


def test_augmented_copies_stay_together(tmp_path: Path) -> None:
    names = [f"p{n // 3}_jpg.rf.{n:032x}.jpg" for n in range(60)]
    train, val = hold_out(dataset(tmp_path, *[(1,)] * 60, names=names), 0.2, 0)
    assert {name[:4] for name in files(train)}.isdisjoint({name[:4] for name in files(val)})
    assert len(val) == 12


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_out_of_range(tmp_path: Path, share: float) -> None:
    with pytest.raises(DataError, match=r"a share of .* can't be held out"):
        hold_out(dataset(tmp_path, (1,), (1,)), share, 0)


@pytest.mark.parametrize("labels", [[(1,)], [(1,), (2,), (3,)]])
def test_nothing_to_spare(tmp_path: Path, labels: list[tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match="can be spared for validation"):
        hold_out(dataset(tmp_path, *labels), 0.3, 0)


def test_subset_takes_any_pictures_in_any_order(tmp_path: Path) -> None:
    data = dataset(tmp_path, (1, 2), (), (3,), (4, 1))
    part = data.subset([3, 1, -4])
    assert files(part) == ["003.jpg", "001.jpg", "000.jpg"]
    assert [part.labels(n).tolist() for n in range(3)] == [[4, 1], [], [1, 2]]
    assert part.labels().tolist() == [4, 1, 1, 2]
    assert [a["bbox"][2] for a in part.coco_json()["annotations"]] == [9, 6, 6, 7]
    assert len(data.subset([])) == 0
    assert data.subset(range(4)).fingerprint() == data.fingerprint() != part.fingerprint()
    with pytest.raises(IndexError):
        data.subset([4])
