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

from mobiledet.download.archives import extract
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


def refusal(archive: Path, name: str, target: Path) -> str:
    before = set(archive.parent.rglob("*"))
    with pytest.raises(DownloadError) as caught:
        extract(archive, {name: target})
    assert "\n" not in str(caught.value)
    assert not [path for path in archive.parent.rglob("*") if path not in before and path.is_file()]
    return str(caught.value)


@PACKERS
def test_files_come_by_name(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)  # its own name says nothing
    target = tmp_path / "deep" / "out.tflite"
    extract(archive, {"detect.tflite": target, "readme": tmp_path / "empty"})
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert (tmp_path / "empty").read_bytes() == b""


def test_what_is_there_is_kept_if_it_is_right(tmp_path: Path) -> None:
    archive, target = zipped(tmp_path / "a", FILES), tmp_path / "out.tflite"
    for content, is_kept in ((BODY, True), (bytes(len(BODY)), False), (BODY[:100], False)):
        target.write_bytes(content)
        before = target.stat().st_ino
        extract(archive, {"detect.tflite": target})
        assert target.read_bytes() == BODY
        assert (target.stat().st_ino == before) == is_kept


@PACKERS
def test_no_such_file_or_several(tmp_path: Path, pack) -> None:
    several = refusal(pack(tmp_path / "a", FILES | {"b/detect.tflite": b""}), "detect.tflite", tmp_path / "out")
    for words in ("once", "'model/detect.tflite'", "'b/detect.tflite'"):
        assert words in several
    assert "'model/labelmap.txt'" in refusal(tmp_path / "a", "graph.pb", tmp_path / "out")
    assert "it has nothing" in refusal(pack(tmp_path / "b", {}), "graph.pb", tmp_path / "out")
    many = pack(tmp_path / "c", {str(i): b"" for i in range(100)})
    assert "and 95 more" in refusal(many, "graph.pb", tmp_path / "out")


@PACKERS
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..\\x", "C:x", "\\x", "a/C:x"])
def test_members_that_lead_out(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / "a", FILES | {name: b"evil"})
    for wanted in ("x", "detect.tflite"):
        assert "leads out" in refusal(archive, wanted, tmp_path / "out")


@pytest.mark.parametrize(("pack", "name"), [(tarball, "a/link"), (tarball, "a/hardlink"), (zipped, "link")])
def test_links_are_not_followed(tmp_path: Path, pack, name: str) -> None:
    assert "doesn't have" in refusal(pack(tmp_path / "a", FILES, name), Path(name).name, tmp_path / "out")


@PACKERS
def test_every_way_to_be_damaged(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)
    whole = archive.read_bytes()
    for length in (0, 1, 2, 3, 10, 100, len(whole) // 2, len(whole) - 30, len(whole) - 5, len(whole) - 1):
        archive.write_bytes(whole[:length])
        assert "download it again" in refusal(archive, "detect.tflite", tmp_path / "out"), length
    for place in range(100, len(whole) - 600, len(whole) // 20):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert "download it again" in refusal(archive, "detect.tflite", tmp_path / "out"), place


@pytest.mark.parametrize("content", [b"<html>please log in</html>", gzip.compress(b"not a tar", mtime=0)])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "download it again" in refusal(tmp_path / "a.zip", "x", tmp_path / "out")


def test_what_is_not_there_or_does_not_fit(tmp_path: Path, disk) -> None:
    assert "absent.zip" in refusal(tmp_path / "absent.zip", "x", tmp_path / "out")
    assert str(tmp_path) in refusal(tmp_path, "x", tmp_path / "out")
    disk(100_000)
    assert "lacks 200,000" in refusal(zipped(tmp_path / "a", FILES), "detect.tflite", tmp_path / "out")


@PACKERS
def test_what_unpacks_to_more_than_the_limit(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", {"a.txt": bytes(5_000_000)})
    with pytest.raises(DownloadError, match="more than 4,000,000"):
        extract(archive, {"a.txt": tmp_path / "out.txt"}, most=4_000_000)
    assert not (tmp_path / "out.txt").exists()
