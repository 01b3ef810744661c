"""Archives are not trusted: names that lead out, links, damage, more than fits."""

from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from mobiledet.download.archives import extract_folder, extract_member
from mobiledet.errors import DownloadError

BODY = random.Random(0).randbytes(300_000)
FILES = {"model/detect.tflite": BODY, "model/labelmap.txt": b"person\n", "readme": b""}


def tarball(path: Path, files: dict[str, bytes], *links: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE if "hard" in name else tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes], *links: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(info, "/etc/passwd")
    return path


PACKERS = pytest.mark.parametrize("pack", [tarball, zipped])


def refusal(archive: Path, suffix: str, target: Path) -> str:
    before = set(archive.parent.rglob("*"))
    with pytest.raises(DownloadError) as caught:
        extract_member(archive, suffix, target)
    assert "\n" not in str(caught.value)
    assert not [path for path in archive.parent.rglob("*") if path not in before and path.is_file()]
    return str(caught.value)


@PACKERS
def test_the_one_member(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)  # its name says nothing
    target = tmp_path / "deep" / "out.tflite"
    assert extract_member(archive, "detect.tflite", target) == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    extract_member(archive, "detect.tflite", target)  # the same content: fine
    for other in (b"mine", bytes(len(BODY))):
        target.write_bytes(other)
        assert "move it away" in refusal(archive, "detect.tflite", target)
        assert target.read_bytes() == other
    assert extract_member(archive, "readme", tmp_path / "empty").read_bytes() == b""


@PACKERS
def test_no_such_member_or_several(tmp_path: Path, pack) -> None:
    several = refusal(pack(tmp_path / "a", FILES | {"b/detect.tflite": b""}), "detect.tflite", tmp_path / "out")
    assert "2 members" in several
    assert "'b/detect.tflite'" in several
    assert "'model/labelmap.txt'" in refusal(tmp_path / "a", ".pb", tmp_path / "out")
    assert "it has nothing" in refusal(pack(tmp_path / "b", {}), ".pb", tmp_path / "out")
    many = pack(tmp_path / "c", {str(i): b"" for i in range(100)})
    assert "and 92 more" in refusal(many, ".pb", tmp_path / "out")


@PACKERS
@pytest.mark.parametrize("name", ["/etc/x.txt", "../x.txt", "a/../../x.txt", "..\\x.txt", "C:x.txt", "\\x.txt"])
def test_members_that_lead_out(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / "a", FILES | {name: b"evil"})
    for suffix in ("x.txt", "detect.tflite"):
        assert "leads out" in refusal(archive, suffix, tmp_path / "out")


@pytest.mark.parametrize(("pack", "name"), [(tarball, "a/link.txt"), (tarball, "a/hardlink.txt"), (zipped, "link.txt")])
def test_links_are_not_followed(tmp_path: Path, pack, name: str) -> None:
    assert "is a link" in refusal(pack(tmp_path / "a", FILES, name), "link.txt", tmp_path / "out")


@PACKERS
def test_every_way_to_be_damaged(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)
    whole = archive.read_bytes()
    for length in (0, 1, 2, 3, 10, 100, len(whole) // 2, len(whole) - 30, len(whole) - 5, len(whole) - 1):
        archive.write_bytes(whole[:length])
        assert "get it again" in refusal(archive, "detect.tflite", tmp_path / "out"), length
    for place in range(100, len(whole) - 600, len(whole) // 20):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert "get it again" in refusal(archive, "detect.tflite", tmp_path / "out"), place


@pytest.mark.parametrize("content", [b"<html>please log in</html>", gzip.compress(b"not a tar")])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "get it again" in refusal(tmp_path / "a.zip", "x", tmp_path / "out")


def test_what_is_not_there_or_does_not_fit(tmp_path: Path, disk) -> None:
    assert "absent.zip" in refusal(tmp_path / "absent.zip", "x", tmp_path / "out")
    assert str(tmp_path) in refusal(tmp_path, "x", tmp_path / "out")
    disk(100_000)
    assert "lacks 200,000" in refusal(zipped(tmp_path / "a", FILES), "detect.tflite", tmp_path / "out")


def test_a_folder_that_does_not_fit_comes_not_at_all(tmp_path: Path, disk) -> None:
    archive = zipped(tmp_path / "a.zip", {"f/a": bytes(900), "f/b": bytes(100), "f/deep/c": b"", "other": b""})
    disk(999)
    with pytest.raises(DownloadError, match="lacks 1 of them"):
        extract_folder(archive, "f", tmp_path / "f", ["a", "b"])
    assert not (tmp_path / "f").exists()
    disk(1000)
    extract_folder(archive, "f", tmp_path / "f", ["a", "b"])
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["a", "b"]
