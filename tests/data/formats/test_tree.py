"""Names of images as other programs write them mean the same image in every format."""

from __future__ import annotations

import pytest

from mobiledet.data.faults import Fault


def coco(name: str) -> tuple[str, object]:
    images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "ok.jpg"}]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in (1, 2)]
    return "labels.json", {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


def createml(name: str) -> tuple[str, object]:
    box = [{"label": "cat", "coordinates": {"x": 5, "y": 5, "width": 9, "height": 9}}]
    return "_annotations.createml.json", [{"image": image, "annotations": box} for image in (name, "ok.jpg")]


@pytest.mark.parametrize("format", [coco, createml])
@pytest.mark.parametrize(
    "written",
    [
        "/data/local-files/?d=left%2Fside/a.jpg",  # Label Studio: of two the one behind d=
        "https://host/left/side/0123abcd-a.jpg?sig=1#x",
        "C:\\left\\side\\a.jpg",
        "left/side/a%2Ejpg",
    ],
)
def test_a_foreign_name_is_found(folder, format, written: str) -> None:
    for image in ("left/side/a.jpg", "right/side/a.jpg", "ok.jpg"):
        folder.image(image)
    folder.write(*format(written))
    imported = folder.read()
    assert {image.path for image in imported.splits["train"]} == {
        folder.root / "left/side/a.jpg",
        folder.root / "ok.jpg",
    }
    assert not imported.log.counts[Fault.ENTRY_AMBIGUOUS]


@pytest.mark.parametrize("format", [coco, createml])
@pytest.mark.parametrize("written", ["a", "a.png", "b/a.v2.png"])
def test_an_image_of_another_ending_is_found_but_not_that_of_another_split(folder, format, written: str) -> None:
    there = written.removesuffix(".png").rpartition("/")[2] + ".jpg"
    name, content = format(written)
    folder.image("train/ok.jpg")
    folder.image(f"train/{there}")
    folder.write(f"train/{name}", content)
    assert len(folder.read().splits["train"]) == 2
    (folder.root / "val").mkdir()
    (folder.root / f"train/{there}").rename(folder.root / f"val/{there}")
    assert [image.path.name for image in folder.read().splits["train"]] == ["ok.jpg"]
