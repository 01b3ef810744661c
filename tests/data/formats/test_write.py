from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from mobiledet.data.coco import load_coco
from mobiledet.data.faults import Fault
from mobiledet.data.formats import write
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.formats.write import RECORD, write_coco
from mobiledet.data.images import read_image
from mobiledet.errors import DataError

ROW = "0 0.5 0.5 0.5 0.25"
TOOL = Path(__file__).resolve().parents[3] / "tools" / "convert_dataset.py"


def convert(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name="__main__")
    return int(end.value.code or 0)


@pytest.fixture
def yolo(folder):
    folder.write("data.yaml", "names: [cat, dog]\ntrain: images\n")
    for n in range(10):
        folder.yolo(f"p{n}", f"{ROW}\n{'1 0.5 0.5 1 1' if n % 2 else ROW}\n")
    return folder


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_what_is_written_is_what_was_read(yolo, tmp_path: Path, boxes_of, mode: str) -> None:
    imported = yolo.read()
    written = write_coco(imported, tmp_path / "new" / "coco", mode=mode, val_share=0.2, seed=1)
    output = tmp_path / "new" / "coco"
    assert sorted(p.name for p in output.iterdir()) == ["annotations", RECORD, "train", "val"]
    assert [p.name for p in output.parent.iterdir()] == ["coco"]
    both = {}
    for split, count in (("train", 8), ("val", 2)):
        data = load_coco(output, split)
        assert len(data) == count
        assert data.categories == imported.splits["train"].categories
        assert "repaired" not in data.report.summary()
        assert boxes_of(data) == boxes_of(written[split])
        both |= boxes_of(data)
        for record in data:
            assert record.path.read_bytes() == (yolo.root / "images" / record.path.name).read_bytes()
            assert record.path.samefile(yolo.root / "images" / record.path.name) == (mode == "link")
    assert both == boxes_of(imported.splits["train"])
    record = json.loads((output / RECORD).read_text())
    assert record["format"] == "yolo"
    assert record["held_out"] == {"share": 0.2, "seed": 1}
    assert record["splits"] == {"train": {"pictures": 8, "boxes": 12}, "val": {"pictures": 2, "boxes": 3}}
    assert len(record["account"]["repaired"][Fault.BOX_DUPLICATE.text]) == 5


def test_where_links_are_not_possible_pictures_are_copied(yolo, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(write, "_link", lambda *_: False)
    write_coco(yolo.read(), tmp_path / "coco", mode="link")
    assert len(load_coco(tmp_path / "coco", "train")) == 8


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_exif_rotation_survives(folder, tmp_path: Path, orientation: int) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.image("images/a.jpg", orientation=orientation)
    folder.image("images/square.png", 40, 40, orientation=orientation)
    folder.write("labels/a.txt", ROW)
    folder.write("labels/square.txt", ROW)
    read = folder.read().splits["train"]
    write_coco(folder.read(), tmp_path / "coco", val_share=0)
    data = load_coco(tmp_path / "coco", "train")
    for before, after in zip(read, data, strict=True):
        assert after.target.boxes.tolist() == before.target.boxes.tolist()
        images = [read_image(r.path, apply_orientation=r.apply_orientation) for r in (before, after)]
        assert (images[0] == images[1]).all()


def test_pictures_of_the_same_name_stay_apart(folder, tmp_path: Path) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    names = ("one/a", "two/a", "two/b", "three/A", "one__a")
    for n, name in enumerate(names):
        folder.image(f"images/{name}.jpg", 30 + n)
        folder.write(f"labels/{name}.txt", ROW)
    write_coco(folder.read(), tmp_path / "coco", val_share=0)
    data = load_coco(tmp_path / "coco", "train")
    assert sorted(p.height for p in data) == [30, 31, 32, 33, 34]
    assert {p.path.name for p in data} >= {"b.jpg", "images__one__a.jpg", "images__two__a.jpg"}


def test_a_split_for_validation_is_taken_as_it_is(folder, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        folder.yolo(split, ROW, f"{split}/images", f"{split}/labels")
    folder.write("data.yaml", "names: [cat]\ntrain: train/images\nval: valid/images\ntest: test/images\n")
    assert list(write_coco(folder.read(), tmp_path / "coco")) == ["train", "val", "test"]
    assert load_coco(tmp_path / "coco", "val")[0].path.name == "valid.jpg"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("full", ["full is not empty", "name a new folder"]),
        ("file", ["file is not a folder"]),
        ("set/inside", ["lies inside", "elsewhere"]),
        ("set", ["not empty"]),
        ("file/below", ["file"]),
    ],
)
def test_nothing_is_overwritten(yolo, tmp_path: Path, name: str, words: list[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    imported = yolo.read()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        write_coco(imported, tmp_path / name)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_folder_is_never_left(yolo, tmp_path: Path, monkeypatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(write, "_write_json", fail)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((DataError, KeyboardInterrupt), match=r"No space left|^$"):
        write_coco(yolo.read(), tmp_path / "coco")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(yolo, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    write_coco(yolo.read(), tmp_path / "coco")
    assert len(load_coco(tmp_path / "coco", "train")) == 8


def test_the_program_tells_what_it_did(yolo, tmp_path: Path, monkeypatch, capsys) -> None:
    yolo.write("labels/lone.txt", ROW)
    assert convert(monkeypatch, yolo.root, "-o", tmp_path / "coco", "--val-share", "0.3") == 0
    out = capsys.readouterr().out
    assert "dropped: 1 label files without an image (labels/lone.txt)" in out
    assert "repaired: 5 exact duplicate boxes dropped (labels/p0.txt, line 2" in out
    assert "yolo, 2 classes: cat, dog" in out
    assert "train: 7 images" in out
    assert "val: 3 images" in out
    assert out.count("held out") == 1
    assert len(load_coco(tmp_path / "coco", "val")) == 3
    assert convert(monkeypatch, tmp_path / "coco", "-o", tmp_path / "again", "--link") == 0
    assert [p.path.name for p in load_coco(tmp_path / "again", "val")] == [
        p.path.name for p in load_coco(tmp_path / "coco", "val")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/gone", "-o", "{0}/coco"], "doesn't exist"),
        (["{0}/" + "g" * 3000, "-o", "{0}/coco"], "doesn't exist"),
        (["~nobody/set", "-o", "{0}/coco"], "doesn't exist"),
        (["{0}/set", "-o", "{0}/" + "g" * 3000], "too long"),
        (["{0}/set", "-o", "{0}/set/coco"], "lies inside"),
        (["{0}/set", "-o", "{0}/coco", "--format", "voc"], "no readable VOC xml"),
        (["{0}/set", "-o", "{0}/coco", "--format", "coco"], "no json with images"),
        (["{0}/set/images/p0.jpg", "-o", "{0}/coco"], "is not a yolo"),
        (["{0}/empty", "-o", "{0}/coco"], "is not a data set that can be read"),
    ],
)
def test_the_program_refuses_in_one_line(yolo, tmp_path: Path, monkeypatch, capsys, words, message: str) -> None:
    (tmp_path / "empty").mkdir()
    assert convert(monkeypatch, *(word.format(tmp_path) for word in words)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "coco").exists()


@pytest.mark.parametrize("share", ["1", "-1", "much", "nan"])
def test_the_program_knows_what_a_share_is(tmp_path: Path, monkeypatch, capsys, share: str) -> None:
    assert convert(monkeypatch, tmp_path, "-o", tmp_path / "x", "--val-share", share) == 2
    assert "--val-share" in capsys.readouterr().err


def test_reading_the_result_gives_the_same_boxes(yolo, tmp_path: Path, boxes_of) -> None:
    imported = yolo.read()
    write_coco(imported, tmp_path / "coco", val_share=0)
    again = read_dataset(tmp_path / "coco")
    assert again.format == "coco"
    assert again.log.lines() == []
    assert boxes_of(again.splits["train"]) == boxes_of(imported.splits["train"])
    shutil.rmtree(yolo.root)
    assert len(read_dataset(tmp_path / "coco").splits["train"]) == 10
