"""A generated detection data set: shapes on cluttered backgrounds, in COCO's layout on disk.

It needs no download and is made in seconds, so training can be tried and compared by mAP before a real image is
at hand. Some classes are alike on purpose (circle, hexagon, ring; star, cross): a weak model mixes them up.

An image is a textured background with lines and letters that aren't objects, then 1 to ``MAX_OBJECTS`` shapes,
each over the earlier ones, then blur, noise and JPEG. A shape that would leave itself or an earlier one with less than
``MIN_VISIBLE`` of its own area in sight is not drawn, so every shape in an image is labelled. A box is tight to
the whole shape, seen or covered, and clipped to the image. Another OpenCV or NumPy may differ in single pixels.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mobiledet.errors import DataError
from mobiledet.preprocess import resize_image
from mobiledet.structures import FloatArray, ImageArray, Size

logger = logging.getLogger(__name__)

NAMES = ("circle", "square", "triangle", "star", "hexagon", "cross", "ring", "crescent")
CATEGORIES = dict(zip(NAMES, (1, 2, 4, 7, 8, 11, 13, 17), strict=True))
"""Class name -> COCO category id; the gaps are there so that code which forgets them fails here first."""

# How hard the images are. Change VERSION with any of these: a data set made by other rules is recognised by it.
VERSION = 7
SIZE_JITTER = 0.2  # each side of an image is within exp(+-this) of what was asked for
PORTRAIT_SHARE = 0.25  # images with height and width swapped
EMPTY_SHARE = 0.03  # images without any object
MAX_OBJECTS = 4
MIN_EXTENT, MAX_EXTENT = 0.15, 0.75  # square root of a box's area, as a share of the image's shorter side
EXTENT_SKEW = 0.5  # 1: small and large alike on a log scale; below 1: more large ones
MAX_STRETCH = 1.25  # length to width, before the shape is turned
MIN_VISIBLE = 0.8  # of a shape's own area, neither covered nor beyond the image's edge
EDGE_SHARE = 0.1  # shapes that may cross the edge
MIN_CONTRAST, USUAL_CONTRAST = 0.2, 0.45  # colour distance to what lies behind; 1: one channel from 0 to 255
LOW_CONTRAST_SHARE = 0.03  # shapes that come as close to the background as MIN_CONTRAST
OUTLINED_SHARE = 0.15
MAX_CLUTTER = 5  # lines and letters in an image
BACKGROUND_NOISE = 12.0  # standard deviation in grey levels, at its strongest
BLUR_SHARE, MAX_BLUR = 0.4, 0.9  # standard deviation in pixels
MAX_NOISE = 8.0  # standard deviation in grey levels
JPEG_QUALITY = (85, 95)

MIN_SIDE = 48
PLACING_TRIES, OVERSAMPLING = 12, 4
LETTERS = "AEFHJKLMNPRTVWZ2457"  # none that could pass for a ring, a crescent or a cross
SPLITS, ANNOTATIONS = ("train", "val"), "annotations/instances_{}.json"
RECORD, MARKER = "shapes.json", ".shapes-unfinished"
Placed = tuple[str, tuple[int, int, int, int]]
"""A drawn shape: class name and box ``(x, y, width, height)`` in whole pixels, as COCO stores it."""


def generate_shapes(
    root: Path, *, train: int = 2000, val: int = 200, size: tuple[int, int] = (160, 200), seed: int = 0
) -> Path:
    """Write the data set to ``root``, or find it there already; return ``root``.

    The result is ``root/{train,val}/000001.jpg ...`` and ``root/annotations/instances_{train,val}.json``. The same
    arguments give the same bytes; image ``i`` of a split doesn't depend on how many others there are. What an
    interrupted call left behind is made anew; nothing else is ever overwritten.

    Args:
        root: Folder to fill; new, empty, or made by an earlier call.
        train: Number of training images, at least 1.
        val: Number of validation images, at least 1.
        size: ``(height, width)`` around which the images' sizes vary, each at least ``MIN_SIDE``.
        seed: Not negative; another seed gives other images.

    Raises:
        DataError: An argument is out of range, ``root`` holds something else, or it can't be written.
    """
    if min(train, val) < 1 or min(size) < MIN_SIDE or seed < 0:
        raise DataError(
            f"shapes: train={train}, val={val}, size={size}, seed={seed}: ask for 1 image or more in each, "
            f"sides of {MIN_SIDE} pixels or more and a seed of 0 or more"
        )
    counts = dict(zip(SPLITS, (train, val), strict=True))
    record = json.dumps({"version": VERSION, **counts, "size": list(size), "seed": seed})
    try:
        if _is_complete(root, counts, record):
            logger.info("%s: complete already, using it as it is", root)
            return root
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        for split, count in counts.items():
            _write_split(root, split, count, size, seed)
        (root / f"{RECORD}.tmp").write_text(record, encoding="utf-8")
        (root / f"{RECORD}.tmp").replace(root / RECORD)
        (root / MARKER).unlink()
    except OSError as error:
        raise DataError(f"{root}: can't make the data set here ({error}); choose another folder") from error
    logger.info("%s: made %d training and %d validation images", root, train, val)
    return root


def _is_complete(root: Path, counts: dict[str, int], record: str) -> bool:
    """Whether ``root`` is the data set asked for; if not, mark the folder as being filled, or refuse it."""
    if (root / RECORD).exists():
        found = (root / RECORD).read_text(encoding="utf-8", errors="replace")
        if found != record:
            raise DataError(f"{root}: made with {found[:200]}, not {record}; choose another folder or delete it")
        for split, count in counts.items():
            there = len(list((root / split).glob("*.jpg")))
            if there != count or not (root / ANNOTATIONS.format(split)).exists():
                what = f"{root}: {there} of {count} images in {split}, or their annotations are gone"
                raise DataError(f"{what}; delete the folder and make it again")
        (root / MARKER).unlink(missing_ok=True)
        return True
    if (root / MARKER).exists():
        logger.warning("%s: an earlier run was interrupted; making the data set again", root)
        for image in root.glob("*/[0-9]*.jpg"):
            image.unlink()
    elif root.exists() and any(root.iterdir()):
        raise DataError(f"{root}: is not empty and not a finished shapes data set; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).touch()
    return False


def _write_split(root: Path, split: str, count: int, size: Size, seed: int) -> None:
    (root / split).mkdir(exist_ok=True)
    content: dict[str, Any] = {
        # No date: the same arguments give the same bytes.
        "info": {"description": f"mobiledet shapes, {split}, seed {seed}", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name, "supercategory": "shape"} for name, i in CATEGORIES.items()],
    }
    for image_id in range(1, count + 1):
        rng = np.random.default_rng([seed, SPLITS.index(split), image_id])
        image, placed = draw_image(rng, size)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))]
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], quality)
        name = f"{image_id:06d}.jpg"
        (root / split / name).write_bytes(encoded.tobytes())
        height, width = image.shape[:2]
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width, "license": 1})
        for kind, box in placed:
            # COCO's area is that of the segmentation; here, with none, that of the box.
            rest = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []}
            ids = {"id": len(content["annotations"]) + 1, "image_id": image_id, "category_id": CATEGORIES[kind]}
            content["annotations"].append(ids | rest)
    (root / ANNOTATIONS.format(split)).write_text(json.dumps(content), encoding="utf-8")


def draw_image(rng: np.random.Generator, size: Size) -> tuple[ImageArray, list[Placed]]:
    """Draw one image of about ``size``; its shapes come in the order they were drawn, later ones on top."""
    sides = np.round(size * np.exp(rng.uniform(-SIZE_JITTER, SIZE_JITTER, 2)))
    height, width = (int(side) for side in (sides[::-1] if rng.random() < PORTRAIT_SHARE else sides))
    image = _background(height, width, rng)
    owner = np.full((height, width), -1)  # which shape each pixel shows
    areas = seen = np.zeros(0, int)  # pixels of each shape: all of them, and those in sight
    placed: list[Placed] = []
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MAX_OBJECTS + 1))
    for kind in rng.choice(NAMES, count):
        alpha = _shape_alpha(str(kind), min(height, width), rng)
        whole = alpha >= 0.5
        for _ in range(PLACING_TRIES):
            # Over the edge, only the patch's centre is sure to be inside the image.
            over = 0.5 * (rng.random() < EDGE_SHARE) * np.array(whole.shape)
            low, high = -over, np.maximum([height, width] - np.array(whole.shape) + over, 1)
            top, left = (int(corner) for corner in rng.uniform(low, high))
            here = np.s_[max(top, 0) : top + whole.shape[0], max(left, 0) : left + whole.shape[1]]
            rows, columns = owner[here].shape
            part = np.s_[max(-top, 0) : max(-top, 0) + rows, max(-left, 0) : max(-left, 0) + columns]
            inside = whole[part]
            hidden = np.bincount(owner[here][inside] + 1, minlength=len(placed) + 1)[1:]
            seen_now, areas_now = np.append(seen - hidden, inside.sum()), np.append(areas, whole.sum())
            if np.all(seen_now >= MIN_VISIBLE * areas_now):
                _paint(image[here], alpha[part], rng)
                owner[here][inside] = len(placed)
                seen, areas = seen_now, areas_now
                x, y, box_width, box_height = cv2.boundingRect(inside.astype(np.uint8))
                placed.append((str(kind), (max(left, 0) + x, max(top, 0) + y, box_width, box_height)))
                break
    if rng.random() < BLUR_SHARE:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, MAX_BLUR))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0, MAX_NOISE))
    return cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U), placed


def _arc(start: float, stop: float, steps: int, radius: float = 1.0, shift: float = 0.0) -> FloatArray:
    """``(steps, 2)`` points on a circle around ``(shift, 0)``; without the last, where the next piece begins."""
    angles = np.linspace(start, stop, steps, endpoint=False)
    return np.stack([shift + radius * np.cos(angles), radius * np.sin(angles)], 1).astype(np.float32)


def _outlines(kind: str, rng: np.random.Generator) -> list[FloatArray]:
    """A shape's outlines ``(P, 2)`` around the origin, within a radius of about 1; a second one is a hole."""
    turn = 2 * math.pi
    if corners := {"circle": 72, "square": 4, "triangle": 3, "hexagon": 6}.get(kind):
        return [_arc(0, turn, corners)]
    if kind == "star":
        points = _arc(0, turn, 10)
        points[1::2] *= rng.uniform(0.38, 0.48)
        return [points]
    if kind == "cross":
        arm = rng.uniform(0.26, 0.38)
        bar = np.array([(arm, 1), (arm, arm), (1, arm)])
        return [np.concatenate([bar, bar[::-1] * (1, -1), -bar, bar[::-1] * (-1, 1)]).astype(np.float32)]
    if kind == "ring":
        return [_arc(0, turn, 72), _arc(0, turn, 72, radius=rng.uniform(0.45, 0.65))]
    # The crescent: a disc without the part that a second disc, shifted to the right, covers.
    shift, radius = rng.uniform(0.45, 0.6), 0.85
    x = (1 + shift**2 - radius**2) / (2 * shift)  # where the two circles cross
    tip, inner = math.acos(x), math.atan2(math.sqrt(1 - x**2), x - shift)
    return [np.concatenate([_arc(tip, turn - tip, 48), _arc(turn - inner, inner, 48, radius, shift)])]


def _shape_alpha(kind: str, shorter_side: int, rng: np.random.Generator) -> FloatArray:
    """Draw a shape, stretched and turned, alone in a patch: ``(h, w)`` opacity, smooth at the edges."""
    share = MIN_EXTENT * (MAX_EXTENT / MIN_EXTENT) ** (rng.random() ** EXTENT_SKEW)
    stretch = math.sqrt(MAX_STRETCH) ** rng.uniform(-1, 1)
    angle = rng.uniform(0, 2 * math.pi)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outlines = [outline * (stretch, 1 / stretch) @ matrix for outline in _outlines(kind, rng)]
    low, high = outlines[0].min(0), outlines[0].max(0)
    scale = max(share * shorter_side, 8) / math.sqrt(float(np.prod(high - low)))
    width, height = (int(side) + 2 for side in (high - low) * scale)
    polygons = [np.round(((outline - low) * scale + 0.5) * OVERSAMPLING).astype(np.int32) for outline in outlines]
    canvas = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, polygons, 255)
    return np.asarray(resize_image(canvas, (height, width), averaged=1) / 255, np.float32)


def _colour(rng: np.random.Generator, behind: FloatArray) -> FloatArray:
    """A random colour at least ``USUAL_CONTRAST`` from the colour behind, or the most distant of many."""
    colours = rng.uniform(0, 255, (24, 3)).astype(np.float32)
    distances = np.linalg.norm(colours - behind, axis=1) / 255
    return np.asarray(colours[np.minimum(distances, USUAL_CONTRAST).argmax()])


def _texture(shape: Size, first: FloatArray, second: FloatArray, rng: np.random.Generator) -> ImageArray:
    """A patch of ``shape`` in one or two colours: plain, gradient, stripes or grain."""
    height, width = shape
    style = rng.choice(["plain", "gradient", "stripes", "grain"])
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 14)
    along = np.add.outer(np.arange(height) * math.sin(angle), np.arange(width) * math.cos(angle)).astype(np.float32)
    mix = np.zeros((height, width), np.float32)
    if style == "gradient":
        mix = (along - along.min()) / max(np.ptp(along), np.float32(1))
    elif style == "stripes":
        mix = np.clip(0.5 + 1.5 * np.sin(along * np.float32(2 * math.pi / period)), 0, 1)
    elif style == "grain":
        mix = _resize_noise(rng.random((max(height // 4, 2), max(width // 4, 2)), np.float32), shape)
    palette = np.clip(first + np.linspace(0, 1, 256)[:, None] * (second - first), 0, 255).astype(np.uint8)
    texture: ImageArray = cv2.applyColorMap((255 * mix).astype(np.uint8), palette[:, None])
    return texture


def _resize_noise(values: FloatArray, size: Size) -> FloatArray:
    """Noise at another size, by way of 16-bit values, because only whole numbers are resized alike everywhere."""
    low, span = values.min(), max(float(np.ptp(values)), 1e-6)
    resized = resize_image(((values - low) * (65535 / span)).astype(np.uint16), size)
    return np.asarray(resized * (span / 65535) + low, np.float32)


def _paint(region: ImageArray, alpha: FloatArray, rng: np.random.Generator) -> None:
    """Paint one shape over ``region``, in place, in colours that stand out from what it covers."""
    behind = region[alpha >= 0.5].mean(0, dtype=np.float32)
    first = _colour(rng, behind)
    if rng.random() < LOW_CONTRAST_SHARE:
        share = rng.uniform(MIN_CONTRAST, USUAL_CONTRAST) * 255 / np.linalg.norm(first - behind)
        first = behind + np.float32(min(share, 1)) * (first - behind)
    second = first + np.float32(rng.uniform(0.2, 0.6)) * (_colour(rng, behind) - first)
    fill = _texture((alpha.shape[0], alpha.shape[1]), first, second, rng)
    if rng.random() < OUTLINED_SHARE:
        reach = 1 + 2 * max(1, round(0.03 * min(alpha.shape)))
        core = cv2.erode(alpha, np.ones((reach, reach), np.uint8))
        edge = np.full_like(fill, _colour(rng, behind).astype(np.uint8))
        fill = cv2.blendLinear(fill, edge, core, 1 - core)
    region[:] = cv2.blendLinear(fill, np.ascontiguousarray(region), alpha, 1 - alpha)


def _background(height: int, width: int, rng: np.random.Generator) -> ImageArray:
    first, second = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    first += np.float32(rng.uniform(0, 0.7)) * (first.mean() - first)  # greyer, as most real backgrounds are
    canvas = _texture((height, width), first, first + np.float32(rng.uniform(0, 0.45)) * (second - first), rng)
    cloud = np.zeros((48, 48, 3), np.float32)
    for cells in (4, 12, 48):
        grain = rng.standard_normal((cells, cells, 3), np.float32)
        cloud += np.float32(BACKGROUND_NOISE * rng.random() ** 2) * _resize_noise(grain, (48, 48))
    image: ImageArray = cv2.add(canvas, _resize_noise(cloud, (height, width)), dtype=cv2.CV_8U)
    for _ in range(rng.integers(MAX_CLUTTER + 1)):
        colour = rng.uniform(0, 255, 3).tolist()
        spot = rng.uniform(0, 1, 2) * (width, height)
        reach = rng.uniform(0.05, 0.3) * min(height, width)
        thickness = int(rng.integers(1, 3))
        if rng.random() < 0.4:
            corner, letter = spot.astype(int).tolist(), rng.choice(list(LETTERS))
            font = (cv2.FONT_HERSHEY_SIMPLEX, reach / 30)
            cv2.putText(image, letter, corner, *font, colour, thickness, cv2.LINE_AA)
        else:
            points = spot + rng.uniform(-reach, reach, (int(rng.integers(2, 5)), 2))
            cv2.polylines(image, [points.astype(np.int32)], False, colour, thickness, cv2.LINE_AA)
    return image
