from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Answer, Loopback, closed_port

from mobiledet.data.coco import locate_split
from mobiledet.download.coco import COCO_2017, CocoRelease, download_coco
from mobiledet.download.fetch import Remote
from mobiledet.errors import DownloadError

IMAGES = {
    "val": {f"{i:012d}.jpg": random.Random(i).randbytes(3000 + i) for i in range(3)},
    "train": {f"{i:012d}.jpg": random.Random(i).randbytes(4000 + i) for i in range(10, 15)},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data sets" / "coco"


def zipped(files: dict[str, bytes], *, links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(zipfile.ZipInfo(name), data)  # without the time: always the same bytes
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def annotations(names: list[str]) -> bytes:
    images = [{"id": i, "file_name": name, "height": 5, "width": 7} for i, name in enumerate(names)]
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 2, 3], "segmentation": [[0.5] * 6], "area": 6}
    categories = [{"id": 1, "name": "person"}]
    content = {"info": {}, "licenses": [{"id": 1}], "images": images, "annotations": [box], "categories": categories}
    return json.dumps(content).encode()


JSONS = {f"annotations/instances_{split}2017.json": annotations(list(files)) for split, files in IMAGES.items()}


def images(split: str) -> dict[str, bytes]:
    """What the archive of a split holds; the first entry is the folder itself."""
    return {f"{split}2017/": b""} | {f"{split}2017/{name}": data for name, data in IMAGES[split].items()}


ARCHIVES = {
    "/annotations/annotations_trainval2017.zip": zipped(JSONS | {"annotations/captions_val2017.json": b"{}"}),
    "/zips/val2017.zip": zipped(images("val")),
    "/zips/train2017.zip": zipped(images("train")),
}


def release(**changed: bytes) -> CocoRelease:
    """COCO, but tiny; ``val=...`` is another archive of the validation images."""

    def remote(known: Remote, body: bytes) -> Remote:
        return Remote(known.url, len(body), md5=hashlib.md5(body).hexdigest())

    splits = tuple(
        replace(
            split,
            images=remote(split.images, changed.get(split.name, ARCHIVES[f"/zips/{split.folder}.zip"])),
            count=len(IMAGES[split.name]),
            annotations_size=len(JSONS[split.annotations]),
        )
        for split in COCO_2017.splits
    )
    body = changed.get("annotations", ARCHIVES["/annotations/annotations_trainval2017.zip"])
    return CocoRelease("tiny COCO", remote(COCO_2017.annotations, body), splits)


def serve(server: Loopback, **changed: bytes) -> CocoRelease:
    """Put a tiny COCO on the server; the release to hand to `download_coco`."""
    for path, body in ARCHIVES.items():
        name = path.rpartition("/")[2].partition("2017")[0].partition("_")[0]
        server.serve(path, Answer(changed.get(name, body)))
    return release(**changed).at(server.url)


def asked(server: Loopback) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.asked]


def contents(root: Path) -> dict[str, bytes]:
    """Bytes of all files."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


EXPECTED = {
    split: {name: data for name, data in images(split).items() if data}
    | {f"annotations/instances_{split}2017.json": JSONS[f"annotations/instances_{split}2017.json"]}
    for split in IMAGES
}
WORK = ".coco-download"


def refusal(root: Path, what: CocoRelease, *splits: str, timeout: float = 5.0) -> str:
    with pytest.raises(DownloadError) as caught:
        download_coco(root, splits or ("val", "train"), release=what, timeout=timeout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_real_thing() -> None:
    val, train = COCO_2017.splits
    assert (val.name, val.count, train.name, train.count) == ("val", 5000, "train", 118287)
    assert COCO_2017.annotations.url == "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
    assert train.images.url == "http://images.cocodataset.org/zips/train2017.zip"
    assert val.annotations == "annotations/instances_val2017.json"
    moved = COCO_2017.at("https://mirror.example/coco/")
    assert moved.splits[1].images.url == "https://mirror.example/coco/zips/train2017.zip"
    assert moved.splits[1].images.md5 == train.images.md5


def test_both_splits_come_whole(server: Loopback, root: Path) -> None:
    assert download_coco(root, release=serve(server))
    assert contents(root) == EXPECTED["val"] | EXPECTED["train"]
    assert asked(server) == ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]
    for split in ("train", "val"):  # where training looks
        assert locate_split(root, split) == (
            root / f"annotations/instances_{split}2017.json",
            root / f"{split}2017",
        )


def test_again_there_is_nothing_to_do(server: Loopback, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = serve(server)
    download_coco(root, release=what)
    before = contents(root)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("more than a quick look"))
    assert not download_coco(root, release=what)
    assert len(server.asked) == 3
    assert contents(root) == before


def test_one_split_then_the_other(server: Loopback, root: Path) -> None:
    what = serve(server)
    download_coco(root, ["val"], release=what)
    assert contents(root) == EXPECTED["val"]
    assert download_coco(root, release=what)
    assert asked(server)[2:] == ["annotations_trainval2017.zip", "train2017.zip"]


def test_what_was_fetched_otherwise_is_recognised(server: Loopback, root: Path) -> None:
    for name, data in EXPECTED["val"].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    assert not download_coco(root, ["val"], release=serve(server))
    assert server.asked == []
    (root / "annotations/instances_val2017.json").unlink()
    assert download_coco(root, ["val"], release=serve(server))
    assert asked(server) == ["annotations_trainval2017.zip"]


def test_an_image_that_goes_missing_later_is_missed(server: Loopback, root: Path) -> None:
    what = serve(server)
    download_coco(root, release=what)
    (root / "val2017/000000000001.jpg").write_bytes(b"")
    message = refusal(root, what)
    assert "2 of 3 images" in message
    assert download_coco(root, ["train"], release=what) is False


def test_archives_that_were_there_are_used_and_kept(server: Loopback, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "val2017.zip").write_bytes(ARCHIVES["/zips/val2017.zip"])
    download_coco(root, release=serve(server))
    assert asked(server) == ["annotations_trainval2017.zip", "train2017.zip"]
    assert [path.name for path in root.glob("*.zip")] == ["val2017.zip"]


def test_a_wrong_archive_that_was_there_is_left_alone(server: Loopback, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "val2017.zip").write_bytes(b"mine")
    assert "move it away" in refusal(root, serve(server))
    assert (root / "val2017.zip").read_bytes() == b"mine"


def test_archives_can_be_kept(server: Loopback, root: Path) -> None:
    what = serve(server)
    download_coco(root, release=what, keep_archives=True)
    assert len(list(root.glob("*.zip"))) == 3
    shutil.rmtree(root / "val2017")
    download_coco(root, release=what)
    assert len(list(root.glob("*.zip"))) == 3  # by now they are the user's
    assert len(server.asked) == 3


def test_other_content_is_not_harmed(server: Loopback, root: Path) -> None:
    mine = {"val2017.txt": b"1", "annotations/mine.json": b"2", "annotations/instances_train2017.json.bak": b"3"}
    for name, data in mine.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "train2017").mkdir()  # empty: may be filled
    download_coco(root, release=serve(server))
    assert contents(root) == EXPECTED["val"] | EXPECTED["train"] | mine


def test_other_content_in_the_way_is_named_before_anything_is_fetched(server: Loopback, root: Path) -> None:
    what = serve(server)
    (root / "annotations").mkdir(parents=True)
    theirs = root / "annotations/instances_val2017.json"
    for content in (annotations(["a.jpg"]), b"[]", b""):
        theirs.write_bytes(content)
        message = refusal(root, what)
        assert f"{len(content):,} bytes" in message
        assert str(theirs) in message
        assert theirs.read_bytes() == content
    theirs.write_bytes(JSONS["annotations/instances_val2017.json"])
    (root / "val2017").mkdir()
    (root / "val2017/mine.jpg").write_bytes(b"mine")
    assert "1 of 3 images" in refusal(root, what)
    shutil.rmtree(root / "val2017")
    (root / "val2017").write_bytes(b"a file")
    assert "0 of 3 images" in refusal(root, what)
    (root / "val2017").unlink()
    (root / "val2017").symlink_to(root / "gone")
    assert "0 of 3 images" in refusal(root, what)
    assert server.asked == []


# --- archives that are not what they should be ------------------------------------------------------------------


@pytest.mark.parametrize("name", [".coco-download", ".coco-download/val2017"])
def test_a_link_in_the_place_of_the_work_folder_is_not_followed(server: Loopback, root: Path, name: str) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir(parents=True)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(elsewhere)
    with pytest.raises(DownloadError, match="is a link"):
        download_coco(root, ["val"], release=release().at(server.url))
    assert list(elsewhere.iterdir()) == []


def test_a_damaged_archive(server: Loopback, root: Path) -> None:
    whole = bytearray(ARCHIVES["/zips/val2017.zip"])
    place = whole.index(IMAGES["val"]["000000000001.jpg"]) + 1000
    whole[place] ^= 1
    message = refusal(root, serve(server, val=bytes(whole)))
    assert "CRC" in message
    assert "000000000001.jpg" in message
    assert not (root / "val2017").exists()
    half = bytes(whole[: len(whole) // 2])
    (root / WORK / "val2017.zip").unlink()
    assert "not a zip file" in refusal(root, serve(server, val=half))


def test_a_damaged_archive_of_annotations(server: Loopback, root: Path) -> None:
    assert "damaged" in refusal(root, serve(server, annotations=ARCHIVES["/zips/val2017.zip"][:3000]))
    (root / WORK / "annotations_trainval2017.zip").unlink()
    assert "lacks 2 of the files" in refusal(root, serve(server, annotations=ARCHIVES["/zips/val2017.zip"]))


@pytest.mark.parametrize("name", ["../../evil.jpg", "/tmp/evil.jpg", "val2017/../../evil.jpg", "val2017\\..\\evil.jpg"])
def test_members_that_lead_out(server: Loopback, root: Path, name: str) -> None:
    message = refusal(root, serve(server, val=zipped(images("val") | {name: b"evil"})))
    assert "leads out" in message
    assert not list(root.parent.parent.rglob("*evil*"))
    assert not (root / "val2017").exists()


def test_links_are_not_unpacked(server: Loopback, root: Path) -> None:
    files = images("val")
    del files["val2017/000000000001.jpg"]
    message = refusal(root, serve(server, val=zipped(files, links=("val2017/000000000001.jpg",))))
    assert "2 images" in message
    assert not (root / "val2017").exists()


@pytest.mark.parametrize("content", [None, b""])
def test_images_that_are_missing_or_empty(server: Loopback, root: Path, content: bytes | None) -> None:
    files = images("val") | {"val2017/000000000002.jpg": content}
    archive = zipped({name: data for name, data in files.items() if data is not None})
    assert "2 images" in refusal(root, serve(server, val=archive))
    assert not (root / "val2017").exists()


# --- going on ---------------------------------------------------------------------------------------------------


def test_unpacking_goes_on_and_mistrusts_what_it_finds(server: Loopback, root: Path) -> None:
    partial = root / WORK / "val2017"
    partial.mkdir(parents=True)
    good, cut, wrong = IMAGES["val"]
    (partial / good).write_bytes(IMAGES["val"][good])
    (partial / cut).write_bytes(IMAGES["val"][cut][:100])
    (partial / wrong).write_bytes(bytes(len(IMAGES["val"][wrong])))
    (partial / f".{wrong}.0123abcd.tmp").write_bytes(b"of a process that was killed")
    before = (partial / good).stat().st_mtime_ns
    time.sleep(0.01)
    download_coco(root, ["val"], release=serve(server))
    assert contents(root / "val2017") == IMAGES["val"]
    assert (root / "val2017" / good).stat().st_mtime_ns == before
    assert not partial.exists()


def test_a_stop_while_unpacking(server: Loopback, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = shutil.copyfileobj, []

    def stop(source, stream, length=0):
        calls.append(1)
        if len(calls) == 4:  # two jsons, an image, and in the middle of the next
            stream.write(b"half")
            raise KeyboardInterrupt
        real(source, stream, length)

    what = serve(server)
    monkeypatch.setattr(shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        download_coco(root, release=what)
    assert not (root / "val2017").exists()
    assert download_coco(root, release=what)
    assert contents(root) == EXPECTED["val"] | EXPECTED["train"]
    assert len(server.asked) == 3


def test_two_at_a_time(server: Loopback, root: Path, until) -> None:
    what = serve(server)
    path = "/annotations/annotations_trainval2017.zip"
    server.serve(path, Answer(ARCHIVES[path], stall_after=10))
    with tool(root, server.url) as first:
        until(lambda: server.asked)
        with tool(root, server.url) as second:
            assert "another process" in second.stderr.readline()
            server.release()
            assert "complete already" in second.communicate(timeout=20)[0]
        assert first.wait(20) == 0
    assert len(server.asked) == 3
    assert not download_coco(root, release=what)


# --- disk and network -------------------------------------------------------------------------------------------


def test_a_small_disk_is_seen_before_it_starts(server: Loopback, root: Path, disk) -> None:
    what = serve(server)
    val, train = what.splits
    sizes = [what.annotations.size, val.images.size, train.images.size]
    jsons = val.annotations_size + train.annotations_size
    peak = max(jsons + sizes[0], jsons + 2 * sizes[1], jsons + sizes[1] + 2 * sizes[2])
    disk(peak - 1000)
    message = refusal(root, what)
    assert f"needs {peak:,} bytes" in message
    assert "lacks 1,000 of them" in message
    assert server.asked == []
    disk(peak)
    with pytest.raises(DownloadError, match="lacks"):
        download_coco(root, release=what, keep_archives=True)
    assert download_coco(root, release=what)


def test_the_real_thing_needs_this_much(tmp_path: Path, disk) -> None:
    """The figures that tools/download_coco.py gives."""
    disk(0)
    assert "needs 39,979,082," in refusal(tmp_path, COCO_2017)
    assert "needs 1,651,158,500 bytes" in refusal(tmp_path, COCO_2017, "val")


def test_a_folder_that_cant_be(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "name another folder" in refusal(tmp_path / "file", serve(server))
    assert "name another folder" in refusal(tmp_path / "file" / "coco", serve(server))
    assert "name another folder" in refusal(Path("/proc/coco"), serve(server))


def test_unknown_splits(root: Path) -> None:
    assert "no split 'test'; it has val, train" in refusal(root, COCO_2017, "test")


def test_nobody_there_and_by_hand(root: Path) -> None:
    message = refusal(root, release().at(f"http://127.0.0.1:{closed_port()}"))
    assert f"save it as {root / WORK / 'annotations_trainval2017.zip'}; then start again" in message


# --- the program ------------------------------------------------------------------------------------------------

WRAPPER = """
import runpy, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_coco_download
from mobiledet.download import coco
coco.COCO_2017 = test_coco_download.release()
sys.argv = ["download_coco.py", *sys.argv[1:]]
runpy.run_path({tool!r}, run_name="__main__")
"""


def tool(root: Path, url: str, *words: str) -> subprocess.Popen:
    here = Path(__file__).resolve()
    code = WRAPPER.format(
        paths=[str(here.parent), str(here.parents[1])], tool=str(here.parents[2] / "tools" / "download_coco.py")
    )
    command = [sys.executable, "-c", code, str(root), "--base-url", url, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(root: Path, url: str, *words: str) -> tuple[int, str, str]:
    with tool(root, url, *words) as process:
        out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_the_program(server: Loopback, root: Path) -> None:
    serve(server)
    status, out, err = run(root, server.url, "--split", "val")
    assert status == 0, err
    assert out == (
        f"{root}: 3 val images, complete; next: mobiledet eval runs/ssd_mobilenet_a1/1/best.pt --data '{root}'\n"
    )
    status, out, err = run(root, server.url)
    assert status == 0, err
    assert out == (
        f"{root}: 3 val and 5 train images, complete; next: mobiledet train ssd_mobilenet_a1 data.root='{root}'\n"
    )
    count = len(server.asked)
    status, out, err = run(root, server.url)
    assert (status, err) == (0, "")
    assert "complete already, nothing to do" in out
    assert len(server.asked) == count


def test_the_program_and_a_wrong_mirror(server: Loopback, root: Path) -> None:
    """A mirror is held to the same checksums."""
    serve(server, val=zipped(images("val") | {"val2017/000000000001.jpg": bytes(3001)}))
    status, out, err = run(root, server.url)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: tiny COCO val images can't be fetched: what the server sends is")


def test_the_program_stopped_and_started_again(server: Loopback, root: Path, until) -> None:
    serve(server)
    path = "/zips/train2017.zip"
    server.serve(path, Answer(ARCHIVES[path], stall_after=9000), Answer(ARCHIVES[path]))
    with tool(root, server.url) as process:
        until(lambda: "train2017.zip" in asked(server))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped"
    assert contents(root / "val2017") == IMAGES["val"]
    assert run(root, server.url)[0] == 0
    assert contents(root / "train2017") == IMAGES["train"]
    assert asked(server).count("val2017.zip") == 1


def test_the_program_is_quick_to_explain_itself(checkout: Path) -> None:
    command = [sys.executable, str(checkout / "tools" / "download_coco.py")]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--base-url" in done.stdout
    done = subprocess.run([*command, "x", "--split", "test"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
