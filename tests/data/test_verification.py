from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledet.data import images
from mobiledet.data.images import ImageInfo, verify_image, verify_images
from mobiledet.errors import ImageError

HEIGHT, WIDTH = 40, 60


def jpeg(orientation: int = 1) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were really decoded."""
    calls: list[str] = []

    def verify(path: str) -> ImageInfo:
        calls.append(Path(path).name)
        return verify_image(path)

    monkeypatch.setattr(images, "verify_image", verify)
    return calls


def write_images(folder: Path, count: int) -> list[Path]:
    files = [folder / f"{i}.jpg" for i in range(count)]
    for file in files:
        file.write_bytes(jpeg(orientation=6))
    return files


def test_only_changed_pictures_are_verified_again(tmp_path: Path, counted: list[str]) -> None:
    files = write_images(tmp_path, 40)
    first = verify_images(files, tmp_path)
    assert first == [ImageInfo(HEIGHT, WIDTH, 6)] * 40
    assert sorted(counted) == sorted(file.name for file in files)
    counted.clear()
    assert verify_images(files, tmp_path) == first
    assert counted == []
    files[3].write_bytes(jpeg())
    os.utime(files[5], ns=(1, 1))
    files[7].write_bytes(b"text")
    again = verify_images(files, tmp_path)
    assert sorted(counted) == ["3.jpg", "5.jpg", "7.jpg"]
    assert again[3] == ImageInfo(HEIGHT, WIDTH, 1)
    assert isinstance(again[7], ImageError)
    counted.clear()
    verify_images(files, tmp_path)
    assert counted == ["7.jpg"]  # failures are looked at every time


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: json.dumps({"version": 2, "pictures": ["x"]}),
        lambda text: text.replace('"version": 2', '"version": 1'),
        lambda text: text.replace(f"{HEIGHT}, {WIDTH}, 6", f"{HEIGHT}, {WIDTH}, 9"),
        lambda text: text.replace(f"{HEIGHT}, {WIDTH}, 6", f'"{HEIGHT}", {WIDTH}, 6'),
    ],
)
def test_a_spoilt_cache_is_ignored(tmp_path: Path, counted: list[str], spoil) -> None:
    files = write_images(tmp_path, 2)
    verify_images(files, tmp_path)
    (cache,) = Path(os.environ["MOBILEDET_CACHE"]).iterdir()
    before = cache.read_text()
    cache.write_text(spoil(before))
    assert cache.read_text() != before
    counted.clear()
    assert verify_images(files, tmp_path) == [ImageInfo(HEIGHT, WIDTH, 6)] * 2
    assert len(counted) == 2
    assert cache.read_text() == before


def test_a_cache_that_can_not_be_written_is_no_error(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path / "file" / "below"))
    files = write_images(tmp_path, 2)
    for _ in range(2):
        assert verify_images(files, tmp_path) == [ImageInfo(HEIGHT, WIDTH, 6)] * 2
    assert len(counted) == 4


def test_an_interrupt_stops_at_once_and_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("signals reach the main thread only")
    monkeypatch.setattr(images, "CHUNK", 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    files = write_images(tmp_path, 1000)
    calls: list[str] = []

    def slow(path: str) -> ImageInfo:
        calls.append(path)
        time.sleep(0.003)
        if len(calls) == 250:  # two chunks are done, two are at their first quarter
            signal.pthread_kill(main.ident, signal.SIGINT)
        return ImageInfo(HEIGHT, WIDTH, 6)

    monkeypatch.setattr(images, "verify_image", slow)
    with pytest.raises(KeyboardInterrupt):
        verify_images(files, tmp_path)
    assert len(calls) < 350
    (cache,) = Path(os.environ["MOBILEDET_CACHE"]).iterdir()
    assert 0 < len(json.loads(cache.read_text())["pictures"]) <= len(calls)
