"""What is written comes back; what is damaged, foreign or cut short is refused in one line; disks may fill up."""

import ctypes
import errno
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import mobiledet.weights.checkpoint as checkpoint_module
from mobiledet.errors import CheckpointError
from mobiledet.utils.files import file_digest
from mobiledet.weights.checkpoint import (
    FORMAT,
    VERSION,
    checkpoint_file,
    load_checkpoint,
    load_latest,
    previous_path,
    save_checkpoint,
)


def payload(seed=0, size=40):
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {
            "a.weight": torch.randn(size, 3, 2, 5, generator=generator).contiguous(memory_format=torch.channels_last),
            "a.half": torch.randn(size, generator=generator).to(torch.bfloat16),
            "a.count": torch.tensor(12345678901),
            "a.empty": torch.zeros(0, 4),
            "a.mask": torch.arange(7) % 2 == 0,
        },
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "groups": [{"lr": 0.1, "params": [0, 1]}]},
        "config": {"name": "häuser", "size": [240, 320], "deep": {"none": None, "yes": True, "small": 1e-300}},
        "seed": seed,
    }


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def without_header(content):
    return {key: value for key, value in content.items() if key not in ("format", "version")}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, payload())
    return path


def test_round_trip(saved):
    content = load_checkpoint(saved)
    assert (content["format"], content["version"]) == (FORMAT, VERSION)
    assert_same(without_header(content), payload())
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_the_same_content_is_the_same_file(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name[0]).mkdir()
        save_checkpoint(tmp_path / name[0] / "best.pt", payload())
    assert file_digest(tmp_path / "a" / "best.pt") == file_digest(tmp_path / "b" / "best.pt")
    save_checkpoint(tmp_path / "b" / "best.pt", payload(seed=1))
    assert file_digest(tmp_path / "a" / "best.pt") != file_digest(tmp_path / "b" / "best.pt")


def test_any_flipped_byte_is_noticed(saved):
    whole = saved.read_bytes()
    before = without_header(load_checkpoint(saved))
    refused = 0
    positions = np.linspace(0, len(whole) - 1, 120).astype(int)
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 0x10
        saved.write_bytes(broken)
        try:
            content = load_checkpoint(saved)
        except CheckpointError:
            refused += 1
        else:  # padding between the parts of the file, which nobody reads
            assert_same(without_header(content), before)
    assert refused > len(positions) / 2


def test_a_flipped_bit_in_a_weight_is_found_by_the_checksum(saved):
    whole = bytearray(saved.read_bytes())
    weights = payload()["model"]["a.weight"].permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    start = whole.index(weights)
    for offset in range(0, len(weights), len(weights) // 30):
        broken = bytearray(whole)
        broken[start + offset] ^= 1
        saved.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"last\.pt: damaged, its checksum"):
            load_checkpoint(saved)


@pytest.mark.parametrize("change", ["value", "type", "key", "order", "dtype", "shape", "format"])
def test_the_checksum_covers_everything(saved, change):
    content = torch.load(saved, weights_only=True)
    model = content["model"]
    if change == "value":
        content["config"]["deep"]["small"] = 2e-300
    elif change == "type":
        content["config"]["deep"]["yes"] = 1
    elif change == "key":
        content["config"]["nome"] = content["config"].pop("name")
    elif change == "order":
        content["config"]["size"] = [320, 240]
    elif change == "dtype":
        model["a.weight"] = model["a.weight"].view(torch.int32)
    elif change == "shape":
        model["a.half"] = model["a.half"].view(2, -1)
    elif change == "format":
        content["extra"] = None
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_cut_short(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="not a checkpoint, or damaged"):
        load_checkpoint(saved)


FOREIGN = {
    "text": b"hello\n",
    "json": b'{"format": "mobiledet checkpoint"}',
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(300),
    "zip": b"PK\x03\x04" + bytes(300),
    "pickle": pickle.dumps({"format": FORMAT}),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(tmp_path, kind):
    path = tmp_path / "weights.pt"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"a.weight": torch.ones(2)},
        torch.ones(3),
        [1, 2],
        {"format": "somebody else's"},
        {"format": FORMAT},
        {"format": FORMAT, "version": "one"},
        {"format": FORMAT, "version": VERSION},
        {"format": FORMAT, "version": VERSION, "digest": "0", "model": {1, 2}},
    ],
)
def test_pytorch_files_that_are_no_checkpoints(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt: "):
        load_checkpoint(tmp_path / "weights.pt")


def nested(levels, width=1):
    """A list in a list in a list, each ``width`` times the same one."""
    inner = [1]
    for _ in range(levels):
        inner = [inner] * width
    return inner


def cyclic():
    inner = []
    inner.append(inner)
    return inner


BOMBS = {
    "shared lists": nested(40, 10),
    "deep": nested(150),
    "cyclic": cyclic(),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.empty(1 << 33, device="meta"),
    "one value for 6 GB": torch.zeros(1).expand(40_000, 40_000),
    "the same tensor again and again": [torch.zeros(1000)] * 10_000,
    "a number": 1 << 3_000_000,
    "keys": {(1, 2): 3},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_a_small_file_asks_for_is_bounded(tmp_path, kind):
    torch.save({"format": FORMAT, "version": VERSION, "digest": "0", "model": BOMBS[kind]}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match=r"bomb\.pt: "):
        load_checkpoint(tmp_path / "bomb.pt")


SIX_GB = b"J" + (1_600_000_000).to_bytes(4, "little")  # of a tensor of four numbers: K\x04


@pytest.mark.parametrize(
    "change",
    [
        lambda pickled: pickled.replace(b"K\x04t", SIX_GB + b"t"),  # the storage
        lambda pickled: pickled.replace(b"K\x04\x85", SIX_GB + b"\x85"),  # the shape
        lambda _: b"\x80\x02c__builtin__\nbytearray\n" + SIX_GB + b"\x85R.",
        lambda _: (
            b"\x80\x02}(X\x01\0\0\0aq\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"K\x01u."
        ),
        lambda pickled: pickled + bytes(checkpoint_module.MAX_PICKLE),
    ],
)
def test_what_a_pickle_asks_for_is_bounded(tmp_path, change):
    torch.save({"format": FORMAT, "version": VERSION, "digest": "0", "model": torch.zeros(4)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for entry in plain.namelist():
            content = plain.read(entry)
            bomb.writestr(entry, change(content) if entry.endswith("data.pkl") else content)
    assert (tmp_path / "bomb.pt").read_bytes() != (tmp_path / "plain.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"bomb\.pt: "):
        load_checkpoint(tmp_path / "bomb.pt")


def test_a_packed_file_is_refused(tmp_path, saved):
    with zipfile.ZipFile(saved) as plain, zipfile.ZipFile(tmp_path / "p.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with pytest.raises(CheckpointError, match=r"p\.pt: not a checkpoint"):
        load_checkpoint(tmp_path / "p.pt")


def test_what_was_read_no_longer_needs_the_file(saved):
    content = load_checkpoint(saved)
    with saved.open("r+b") as file:
        file.write(bytes(saved.stat().st_size))
    assert_same(without_header(content), payload())


def test_newer_versions_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "VERSION", VERSION + 1)
    save_checkpoint(tmp_path / "new.pt", payload())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"newer mobiledet .format {VERSION + 1}.; update"):
        load_checkpoint(tmp_path / "new.pt")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_reading_runs_no_code(tmp_path):
    mark = tmp_path / "was here"
    content = {"format": FORMAT, "version": VERSION, "model": Malicious(mark)}
    torch.save(content, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(content))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    assert not mark.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert mark.exists()  # so it does bite whoever reads it carelessly


@pytest.mark.parametrize("value", [Path("x"), np.float32(1.5), {1, 2}, object(), np.zeros(3)])
def test_only_plain_data_is_written(tmp_path, value):
    with pytest.raises(TypeError, match=type(value).__name__):
        save_checkpoint(tmp_path / "last.pt", {"model": {}, "deep": [{"x": value}]})
    assert list(tmp_path.iterdir()) == []


def test_missing_files_say_what_there_is(tmp_path, saved):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*best\.pt.*there are last\.pt"):
        load_checkpoint(tmp_path)  # a folder stands for its best.pt
    with pytest.raises(CheckpointError, match="no folder"):
        load_checkpoint(tmp_path / "nowhere" / "best.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load_checkpoint(tmp_path / "empty")
    assert checkpoint_file(saved) == saved


def test_the_previous_one_is_kept(tmp_path):
    path = tmp_path / "last.pt"
    for seed in range(4):
        save_checkpoint(path, payload(seed), keep_previous=True)
        assert load_checkpoint(path)["seed"] == seed
        if seed:
            assert load_checkpoint(previous_path(path))["seed"] == seed - 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]
    assert path.stat().st_nlink == 1


def test_the_previous_one_is_kept_without_hard_links(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "last.pt"
    for seed in range(3):
        save_checkpoint(path, payload(seed), keep_previous=True)
    assert (load_checkpoint(path)["seed"], load_checkpoint(previous_path(path))["seed"]) == (2, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]


def test_best_keeps_no_previous(tmp_path):
    for seed in range(2):
        save_checkpoint(tmp_path / "best.pt", payload(seed))
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_the_latest_whole_one_is_found(tmp_path, caplog):
    assert load_latest(tmp_path) is None
    path = tmp_path / "last.pt"
    save_checkpoint(path, payload(0), keep_previous=True)
    assert load_latest(tmp_path)["seed"] == 0
    save_checkpoint(path, payload(1), keep_previous=True)
    assert load_latest(tmp_path)["seed"] == 1
    path.write_bytes(path.read_bytes()[:-100])
    assert load_latest(tmp_path)["seed"] == 0
    assert "last.pt" in caplog.text
    assert "continuing from" in caplog.text
    path.unlink()
    assert load_latest(tmp_path)["seed"] == 0
    previous_path(path).write_bytes(b"")
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint .*last\.pt.*last\.previous\.pt"):
        load_latest(tmp_path)


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def fill_up_after(count):
    """Like writing to a disk on which only ``count`` more bytes fit."""

    def write(path, data):
        with path.open("wb") as file:
            file.write(data[:count])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return write


def copy_half(source, destination):
    destination.write_bytes(source.read_bytes()[:1000])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("os.fsync", fail_with(errno.ENOSPC)),
        ("pathlib.Path.write_bytes", fill_up_after(0)),
        ("pathlib.Path.write_bytes", fill_up_after(1000)),
        ("pathlib.Path.replace", fail_with(errno.EDQUOT)),
        ("shutil.copyfile", copy_half),
    ],
)
def test_a_full_disk_leaves_the_old_one_whole(tmp_path, monkeypatch, name, replacement):
    path = tmp_path / "last.pt"
    for seed in range(2):
        save_checkpoint(path, payload(seed), keep_previous=True)
    before = {p.name: file_digest(p) for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(name, replacement)
        if name == "shutil.copyfile":  # what is used where there are no hard links
            patch.setattr("os.link", fail_with(errno.EPERM))
        with pytest.raises(CheckpointError, match=r"last\.pt: the disk is full: [\d,]+ bytes needed, [\d,]+ free"):
            save_checkpoint(path, payload(2), keep_previous=True)
    assert {p.name: file_digest(p) for p in tmp_path.iterdir()} == before
    save_checkpoint(path, payload(2), keep_previous=True)
    assert load_latest(tmp_path)["seed"] == 2


def test_a_full_disk_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", fill_up_after(10))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free=1000))
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / "last.pt", payload())
    needed = len(_bytes_of(payload(), tmp_path, monkeypatch))
    assert f"{needed:,} bytes needed, 1,000 free, {needed - 1000:,} bytes missing" in str(caught.value)
    assert "untouched" not in str(caught.value)  # there was none before


class Usage:
    def __init__(self, free):
        self.free = free


def _bytes_of(content, folder, monkeypatch):
    monkeypatch.undo()
    save_checkpoint(folder / "whole.pt", content)
    return (folder / "whole.pt").read_bytes()


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"last\.pt: can't be written"):
        save_checkpoint(tmp_path / "nowhere" / "last.pt", payload())
    monkeypatch.setattr("pathlib.Path.write_bytes", fail_with(errno.EACCES))
    with pytest.raises(CheckpointError, match="Permission denied"):
        save_checkpoint(tmp_path / "last.pt", payload())


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip("mounting a small file system isn't allowed here")
    yield folder
    assert libc.umount2(bytes(folder), 2) == 0  # MNT_DETACH


def test_a_disk_that_really_is_full(small_disk):
    path = small_disk / "last.pt"
    big = payload(1, size=3000)  # 360,000 bytes of weights: one fits, three don't
    save_checkpoint(path, big, keep_previous=True)
    save_checkpoint(path, {**big, "seed": 2}, keep_previous=True)
    before = {p.name: file_digest(p) for p in small_disk.iterdir()}
    with pytest.raises(CheckpointError, match=r"disk is full: .* bytes missing; the checkpoint before it is untouched"):
        save_checkpoint(path, {**big, "seed": 3}, keep_previous=True)
    assert {p.name: file_digest(p) for p in small_disk.iterdir()} == before
    assert load_latest(small_disk)["seed"] == 2
    previous_path(path).unlink()
    save_checkpoint(path, {**big, "seed": 3}, keep_previous=True)
    assert load_latest(small_disk)["seed"] == 3
