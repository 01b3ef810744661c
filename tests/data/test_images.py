from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobiledet.data.images import ImageInfo, find_images, read_image, verify_image
from mobiledet.errors import ImageError

HEIGHT, WIDTH = 40, 60


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise()).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def with_exif(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("name", ["plain", "wrong.jpg", "grüße 图片.png"])
def test_reads_rgb_whatever_the_file_is_called(tmp_path: Path, kind: str, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(encoded(kind))
    np.testing.assert_array_equal(read_image(file), noise())
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_reads_other_modes_as_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(encoded("PNG", mode))
    image = read_image(file)
    expected = np.array(Image.open(file).convert("RGB"))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


def test_reads_16_bit_png_by_its_high_byte(tmp_path: Path) -> None:
    deep = noise().astype(np.uint16) * 256 + 17
    file = tmp_path / "deep.png"
    cv2.imwrite(str(file), deep[..., ::-1])
    assert np.abs(read_image(file).astype(int) - noise()).max() <= 1
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_turns_pictures_upright_as_pillow_does(tmp_path: Path, kind: str, orientation: int) -> None:
    file = tmp_path / "x"
    file.write_bytes(with_exif(kind, orientation))
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose, from the EXIF standard's images
    upright = Image.fromarray(noise())
    if orientation in ways:
        upright = upright.transpose(Image.Transpose(ways[orientation]))
    np.testing.assert_array_equal(read_image(file), np.array(upright))
    np.testing.assert_array_equal(read_image(file, apply_orientation=False), noise())
    info = verify_image(file)
    assert info == ImageInfo(HEIGHT, WIDTH, orientation if 1 <= orientation <= 8 else 1)
    assert info.upright_size == read_image(file).shape[:2]


@pytest.mark.parametrize("length", [3, 4])
def test_finds_exif_behind_webp_chunks_of_odd_and_even_length(tmp_path: Path, length: int) -> None:
    before, after = with_exif("WEBP", 6).split(b"EXIF")
    odd = b"JUNK" + struct.pack("<I", length) + b"abc\0"  # padded to even
    data = before + odd + b"EXIF" + after
    file = tmp_path / "x.webp"
    file.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_orientation_of_jpeg_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    tag = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    block = b"Exif\0\0" + head + tag + b"\0\0\0\0"
    jpeg = encoded("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    file = tmp_path / "x.jpg"
    file.write_bytes(jpeg[:2] + segment + jpeg[2:])
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 6)
    assert read_image(file).shape == (WIDTH, HEIGHT, 3)
    # The same block cut anywhere is no reason to refuse the image.
    for length in range(6, len(block) - 8):
        short = b"\xff\xe1" + struct.pack(">H", length + 2) + block[:length]
        file.write_bytes(jpeg[:2] + short + jpeg[2:])
        assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("check", [read_image, verify_image])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95, 0.999])
def test_refuses_jpeg_cut_short(tmp_path: Path, check, progressive: bool, share: float) -> None:
    jpeg = encoded("JPEG", progressive=progressive, quality=95)
    file = tmp_path / "x.jpg"
    file.write_bytes(jpeg[: int(len(jpeg) * share)])
    with pytest.raises(ImageError, match=r"x\.jpg is truncated.*again"):
        check(file)


@pytest.mark.parametrize("check", [read_image, verify_image])
def test_a_thumbnails_end_is_not_the_pictures_end(tmp_path: Path, check) -> None:
    jpeg = encoded("JPEG", quality=95)
    thumbnail = b"Exif\0\0" + b"MM\0*\0\0\0\x08\0\0\0\0\0\0" + b"\xff\xd8\xff\xda\0\x02abc\xff\xd9"
    whole = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    file = tmp_path / "x.jpg"
    file.write_bytes(whole)
    check(file)
    file.write_bytes(whole[:-300])
    with pytest.raises(ImageError, match="truncated"):
        check(file)


def test_what_a_camera_appends_to_a_jpeg_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(encoded("JPEG") + b"SEFT" * 100)
    assert read_image(file).shape == (HEIGHT, WIDTH, 3)
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("check", [read_image, verify_image])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_refuses_other_formats_cut_short(tmp_path: Path, check, kind: str, share: float) -> None:
    data = encoded(kind)
    file = tmp_path / "x"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=str(file)):
        check(file)


@pytest.mark.parametrize("check", [read_image, verify_image])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "starts with b'<!DOCTYPE html><html>'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\xff\xd8\xff\xe0 and then nothing of the sort \xff\xd9", "x.jpg"),
        (b"GIF89a" + bytes(30), "not a JPEG, PNG"),
        (None, "doesn't exist"),
        ("folder", "is a folder"),
    ],
)
def test_refuses_what_is_no_image(tmp_path: Path, check, content: bytes | str | None, words: str) -> None:
    file = tmp_path / "x.jpg"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "folder":
        file.mkdir()
    with pytest.raises(ImageError) as caught:
        check(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_missing_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"may not be read.*chmod"):
        read_image(tmp_path / "x.jpg")


def test_a_name_no_file_can_have_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="can't be read"):
        read_image("a\0b.jpg")


def test_bombs_are_refused_and_large_pictures_pass_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)  # Pillow warns here, and refuses at twice
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    with pytest.raises(ImageError, match=r"more pixels.*scale it down"):
        verify_image(file)


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg", "sub/c.PNG", "sub/d.txt", "._b.JPG", "e.tif", "odd"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    found = find_images([tmp_path / "odd", tmp_path])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["odd", "a.jpeg", "b.JPG", "e.tif", "sub/c.PNG"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match=r"none holds no image.*\.jpg"):
        find_images([tmp_path / "none"])
    with pytest.raises(ImageError, match="gone doesn't exist"):
        find_images([tmp_path, tmp_path / "gone"])
