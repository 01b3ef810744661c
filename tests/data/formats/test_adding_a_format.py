"""A new format is one file with a `Format`, and one name in `FORMATS`: a made-up one goes through every door."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from programs import mobiledet_in_process

from mobiledet.config import DataConfig
from mobiledet.data.faults import Fault
from mobiledet.data.formats import choose
from mobiledet.data.opening import open_data, open_split
from mobiledet.errors import DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented) -> Path:
    monkeypatch.setattr(choose, "FORMATS", (*choose.FORMATS, documented("lines_format.py")["Lines"]()))
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), ord(name[0]), np.uint8))
    lines = ["a.png cat 1 2 30 20", "a.png dog 5 6 17 28", "b.png cat 10 10 20 20", "c.png dog 0 0 70 50"]
    (folder / "boxes.lines").write_text("\n".join([*lines, "gone.png cat 1 1 5 5"]) + "\n")
    return folder


def test_it_is_recognised_read_and_checked(root: Path) -> None:
    assert choose.recognise(root).format.name == "lines"
    imported = choose.read_dataset(root)
    train = imported.splits["train"]
    assert (imported.format, train.names, len(train)) == ("lines", ("cat", "dog"), 3)
    assert train[0].target.boxes.tolist() == [[1, 2, 31, 22], [5, 6, 22, 34]]
    assert imported.log.counts == {Fault.ENTRY_LONE: 1, Fault.BOX_CLIPPED: 1}
    assert choose.read_dataset(root / "boxes.lines").splits["train"].names == train.names


def test_it_can_be_trained_on_and_scored(root: Path) -> None:
    train, val = open_data(DataConfig(root=str(root), hold_out=0.34))
    assert (len(train), len(val)) == (2, 1)
    assert len(open_split(root, "train")) == 3


def test_the_programs_take_it(root: Path, tmp_path: Path) -> None:
    done = mobiledet_in_process("check", root, "--format", "lines", "-o", tmp_path / "out")
    assert "LINES, 3 images" in done.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verdict"]


def test_messages_name_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"a boxes.lines \(lines\)"):
        choose.recognise(tmp_path / "empty")
    with pytest.raises(DataError, match="openimages, lines"):
        choose.recognise(root, "loins")
