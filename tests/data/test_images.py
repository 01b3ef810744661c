from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

import mobiledet
from mobiledet.data.image_headers import MAX_PIXELS_VARIABLE
from mobiledet.data.images import ImageInfo, find_images, load_image, read_image, verify_image, verify_images
from mobiledet.errors import ConfigError, ImageError, ImageFault

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
        (b"GIF89a" + bytes(30), "x.jpg"),
        (b"\xff\x0a" + bytes(30), "save it as one of these"),
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


def bomb(kind: str) -> bytes:
    """A file of some hundred bytes whose header speaks of 16,000 x 16,300 pixels."""
    width, height = 16_000, 16_300
    if kind == "GIF":
        size = struct.pack("<HH", width, height)
        return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + size + b"\0\x02\x02\x44\x01\0;"
    stream = io.BytesIO()
    Image.new("RGB", (16, 12)).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    data = stream.getvalue()
    if kind == "WEBP":
        place = data.index(b"VP8L") + 9
        return data[:place] + struct.pack("<I", (width - 1) | (height - 1) << 14) + data[place + 4 :]
    old = {"JPEG": ">HH", "PNG": ">II", "BMP": "<ii", "PPM": None, "TIFF": "<HHIIHHII", "JPEG2000": ">II"}[kind]
    if old is None:
        return data.replace(b"16 12", b"16000 16300")
    if kind == "TIFF":
        return data.replace(struct.pack("<HHII", 256, 4, 1, 16), struct.pack("<HHII", 256, 4, 1, width)).replace(
            struct.pack("<HHII", 257, 4, 1, 12), struct.pack("<HHII", 257, 4, 1, height)
        )
    way = -1 if kind.startswith("JPEG") else 1
    return data.replace(struct.pack(old, *(16, 12)[::way]), struct.pack(old, *(width, height)[::way]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("read", [read_image, verify_image, load_image, lambda file: load_image(file.read_bytes())])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    resource = pytest.importorskip("resource")
    file = tmp_path / "x"
    file.write_bytes(bomb(kind))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError) as caught:
        read(file)
    assert caught.value.fault is ImageFault.TOO_LARGE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; decoded it takes 764,000


def test_images_are_decoded_and_resized_in_one_place() -> None:
    package = Path(mobiledet.__file__).parent
    for call, home in ((r"imdecode\(|imread\(|\bImage\.open\(", "data/images.py"), (r"cv2\.resize\(", "preprocess.py")):
        files = [file for file in package.rglob("*.py") if re.search(call, file.read_text("utf-8"))]
        assert [file.relative_to(package).as_posix() for file in files] == [home]


def test_the_limit_is_adjustable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # Pillow's own, which other parts of a program may need
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(HEIGHT * WIDTH))
    assert read_image(file).shape == (HEIGHT, WIDTH, 3)
    assert verify_images([file], tmp_path) == [ImageInfo(HEIGHT, WIDTH, 1)]
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(HEIGHT * WIDTH - 1))
    (found,) = verify_images([file], tmp_path)  # though it was found good the last time
    assert isinstance(found, ImageError)
    with pytest.raises(ImageError, match="2400"):
        load_image(Image.fromarray(noise()))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(ConfigError, match="many"):
        read_image(file)


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "HEIF", "JPEG2000", "PPM", "MPO"])
def test_what_only_pillow_reads_is_read_alike_everywhere(tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    file = tmp_path / "x"
    lossless = {"AVIF": {"quality": 100}, "HEIF": {"quality": -1}, "JPEG2000": {"irreversible": False}}
    file.write_bytes(encoded(kind, **lossless.get(kind, {})))
    with Image.open(file) as opened:
        expected = np.asarray(opened.convert("RGB"))
        images = [read_image(file), load_image(file), load_image(opened)]
    for image in images:
        np.testing.assert_array_equal(image, expected)
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize(
    ("mode", "compression"), [("RGB", "zstd"), ("RGB", "lzma"), ("I;16", "zstd"), ("I", None), ("F", None)]
)
def test_what_passes_the_check_can_be_read(tmp_path: Path, mode: str, compression: str | None) -> None:
    file = tmp_path / "x.tif"
    grey = noise()[..., 0]
    deep = {"I;16": grey.astype(np.uint16) << 8, "I": grey.astype(np.int32), "F": grey.astype(np.float32)}
    Image.fromarray(deep.get(mode, noise())).save(file, compression=compression)
    if mode in ("I", "F"):
        for check in (verify_image, read_image, load_image):
            with pytest.raises(ImageError, match="32 bits"):
                check(file)
        return
    np.testing.assert_array_equal(read_image(file), noise() if mode == "RGB" else np.stack([grey] * 3, axis=2))
    assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_alone_is_mended(tmp_path: Path, progressive: bool, caplog) -> None:
    whole = encoded("JPEG", progressive=progressive, quality=90)
    file = tmp_path / "x.jpg"
    file.write_bytes(whole)
    expected = read_image(file)
    for data in (whole[:-2], whole[:-1], whole[:-2] + bytes(500)):
        file.write_bytes(data)
        np.testing.assert_array_equal(read_image(file), expected)
        assert verify_image(file) == ImageInfo(HEIGHT, WIDTH, 1, mended=True)
        assert verify_images([file], tmp_path) * 2 == verify_images([file, file], tmp_path)
        caplog.clear()
        load_image(file)
        assert "x.jpg" in caplog.text
    for data in (whole[:-4], whole[:-12], whole[: len(whole) // 2] + bytes(3000), whole[:200]):
        file.write_bytes(data)
        with pytest.raises(ImageError) as caught:
            read_image(file)
        assert caught.value.fault is ImageFault.TRUNCATED


def test_find_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.JPG", "a.jpeg", "sub/c.PNG", "sub/d.txt", "._b.JPG", "e.tif", "f.HEIC", "sub/g.dng", "odd"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    found = find_images([tmp_path / "odd", tmp_path])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["odd", "a.jpeg", "b.JPG", "e.tif", "f.HEIC", "sub/c.PNG"]
    assert "g.dng" in caplog.text
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match=r"none holds no image.*\.jpg"):
        find_images([tmp_path / "none"])
    with pytest.raises(ImageError, match="gone doesn't exist"):
        find_images([tmp_path, tmp_path / "gone"])
