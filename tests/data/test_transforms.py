"""Boxes follow the pixels: a rectangle is painted, the image changed, and the rectangle looked for again."""

import hashlib
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mobiledet.config import AugmentConfig
from mobiledet.data.transforms import MIN_BOX_SIDE, TrainTransform
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.preprocess import fit_image, resize_image
from mobiledet.structures import ResizeRule, Target

SIZE = (120, 176)
FILL = (128, 128, 128)

# Bright red and green never come close to the grey ground, not even with their colours changed.
RED, GREEN, GROUND = (230, 20, 20), (20, 230, 20), (90, 90, 90)


def only(**chances):
    return AugmentConfig(**{"crop": 0, "expand": 0, "flip": 0, "color": 0, **chances})


def target(*boxes, labels=None, crowd=None):
    count = len(boxes)
    return Target(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels if labels is not None else range(1, count + 1), np.int64),
        np.array(crowd if crowd is not None else [False] * count, np.bool_),
    )


def painted(height, width, **rectangles):
    """A grey image with a rectangle of whole pixels for each colour."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = GROUND
    for name, (x1, y1, x2, y2) in rectangles.items():
        image[y1:y2, x1:x2] = {"red": RED, "green": GREEN}[name]
    return image


def found_box(image, channel):
    """Where a painted rectangle is now, to a fraction of a pixel: half-covered pixels count half."""
    others = np.delete(image.astype(np.float64), channel, axis=2).max(axis=2)
    share = np.clip((image[..., channel] - others) / max(1.0, (image[..., channel] - others).max()), 0, 1)
    if (image[..., channel].astype(int) - others).max() < 60:
        return None
    columns, rows = share.max(axis=0), share.max(axis=1)
    x, y = np.flatnonzero(columns > 0.5), np.flatnonzero(rows > 0.5)
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float64)


CASES = {
    "plain": only(),
    "crop": only(crop=1, min_visible=0.0),
    "expand": only(expand=1, expand_max=3.0),
    "flip": only(flip=1),
    "color": only(color=1),
    "all": AugmentConfig(min_visible=0.0),
}


@pytest.mark.parametrize("shape", [(90, 210), (200, 97), (61, 83), (480, 700)])
@pytest.mark.parametrize("case", CASES)
def test_boxes_stay_on_their_pixels(case, shape):
    height, width = shape
    red = (width // 5, height // 4, width // 2, height // 4 + height // 3)
    green = (width * 3 // 5, height // 2, width - 7, height - 4)
    image = painted(height, width, red=red, green=green)
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=CASES[case], fill=FILL)
    checked = 0
    for seed in range(40):
        changed, left = transform(image, target(red, green), seed)
        assert changed.shape == (*SIZE, 3)
        assert changed.dtype == np.uint8
        assert left.boxes.dtype == np.float32
        assert (left.boxes >= 0).all()
        assert (left.boxes <= [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]).all()
        for box, label in zip(left.boxes, left.labels, strict=True):
            if (box[2:] - box[:2] < 3).any():
                continue  # too little is left to be measured
            seen = found_box(changed, int(label) - 1)
            assert seen is not None, f"seed {seed}: no pixels of label {label} under {box}"
            np.testing.assert_allclose(seen, box, atol=1.5, err_msg=f"seed {seed}, label {label}")
            checked += 1
        if case in ("plain", "expand", "flip", "color"):
            assert left.labels.tolist() == [1, 2]  # nothing is cut away, so nothing may go missing
    assert checked >= 40


def test_without_changes_it_is_just_fitting():
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    changed, left = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig.none())(
        image, target((9, 5, 45, 25)), 3
    )
    fitted, geometry = fit_image(image, ResizeRule(SIZE))
    np.testing.assert_array_equal(changed, fitted)
    np.testing.assert_allclose(left.boxes, geometry.to_network(np.array([[9, 5, 45, 25]], np.float32)), atol=1e-3)
    np.testing.assert_allclose(left.boxes, [[9 * 176 / 90, 12, 45 * 176 / 90, 60]], atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 100), (37, 151), (480, 360)])
def test_fitting_is_undone_by_its_geometry(shape):
    image = painted(*shape, red=(8, 6, 30, 21))
    fitted, geometry = fit_image(image, ResizeRule(SIZE))
    boxes = geometry.to_network(np.array([[8, 6, 30, 21]], np.float32))
    assert fitted.shape == (*SIZE, 3)
    np.testing.assert_allclose(found_box(fitted, 0), boxes[0], atol=1.5)
    np.testing.assert_allclose(geometry.to_original(boxes), [[8, 6, 30, 21]], atol=1e-3)


def test_flip_mirrors_pixels_and_boxes():
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    changed, left = TrainTransform(resize=ResizeRule(SIZE), augment=only(flip=1))(image, target((10, 20, 50, 40)), 0)
    np.testing.assert_array_equal(changed, image[:, ::-1])
    np.testing.assert_allclose(left.boxes, [[176 - 50, 20, 176 - 10, 40]], atol=1e-3)


def test_flip_happens_as_often_as_asked():
    image = painted(*SIZE, red=(10, 20, 50, 40))
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(flip=0.25))
    flipped = sum(transform(image, target((10, 20, 50, 40)), seed)[1].boxes[0, 0] > 60 for seed in range(400))
    assert 70 <= flipped <= 130  # 100 expected, standard deviation 8.7


def test_colour_changes_pixels_and_no_box():
    image = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(color=1))
    means = []
    for seed in range(10):
        changed, left = transform(image, target((10, 20, 50, 40)), seed)
        assert (changed != image).any()
        np.testing.assert_allclose(left.boxes, [[10, 20, 50, 40]], atol=1e-3)
        means.append(changed.mean())
    assert np.std(means) > 3


def test_expanding_shrinks_onto_the_fill_colour():
    image = painted(90, 150, red=(0, 0, 150, 90))
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(expand=1, expand_max=3.0), fill=(1, 2, 3))
    shares = []
    for seed in range(30):
        changed, left = transform(image, target((0, 0, 150, 90)), seed)
        x1, y1, x2, y2 = left.boxes[0]
        outside = np.ones(SIZE, bool)
        outside[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = False
        assert (changed[outside] == (1, 2, 3)).all()
        shares.append((x2 - x1) / SIZE[1])
    assert min(shares) < 0.45
    assert max(shares) > 0.8
    assert min(shares) >= 1 / 3 - 0.01


def test_crops_enlarge_and_keep_an_object():
    image = painted(150, 240, red=(100, 60, 160, 110))
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(crop=1, min_visible=0.3))
    factors, kept = [], 0
    for seed in range(60):
        _, left = transform(image, target((100, 60, 160, 110)), seed)
        kept += len(left)
        if len(left):
            factors.append((left.boxes[0, 2] - left.boxes[0, 0]) / (60 * SIZE[1] / 240))
    assert kept >= 45  # only a crop without an overlap to keep may lose it
    assert max(factors) > 1.5


@pytest.mark.parametrize("min_visible", [0.3, 0.6])
def test_a_box_is_dropped_when_too_little_of_it_is_left(min_visible):
    boxes = [(x, y, x + 30, y + 24) for x in range(0, 210, 30) for y in range(0, 120, 24)]
    image = painted(120, 210)
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(crop=1, min_visible=min_visible))
    smallest = 1.0
    for seed in range(40):
        _, left = transform(image, target(*boxes), seed)
        if not 1 < len(left) < len(boxes):
            continue
        # All boxes are alike and tile the image, so a whole one is as wide and as high as the largest left.
        sides = left.boxes[:, 2:] - left.boxes[:, :2]
        share = (sides / sides.max(axis=0)).prod(axis=1)
        smallest = min(smallest, share.min())
    assert min_visible - 0.02 <= smallest < min_visible + 0.15


def test_labels_and_crowds_follow_their_boxes():
    boxes = [(x, y, x + 20, y + 20) for x in range(0, 200, 40) for y in range(0, 120, 40)]
    labels = list(range(1, len(boxes) + 1))
    crowd = [label % 3 == 0 for label in labels]
    # Each rectangle has its own red, so the label can be read from the image.
    image = np.zeros((120, 200, 3), np.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        image[y1:y2, x1:x2, 0] = 60 + 12 * label
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(crop=0.7, expand=0.5, flip=0.5, min_visible=0.5))
    counts = set()
    for seed in range(40):
        changed, left = transform(image, target(*boxes, labels=labels, crowd=crowd), seed)
        counts.add(len(left))
        assert left.labels.dtype == np.int64
        assert left.iscrowd.dtype == np.bool_
        for (x1, y1, x2, y2), label, is_crowd in zip(left.boxes, left.labels, left.iscrowd, strict=True):
            shown = changed[int((y1 + y2) / 2), int((x1 + x2) / 2), 0]
            assert round((int(shown) - 60) / 12) == label
            assert is_crowd == (label % 3 == 0)
    assert len(counts) > 3


@pytest.mark.parametrize("case", CASES)
def test_pictures_without_objects(case):
    image = painted(70, 110)
    for seed in range(10):
        changed, left = TrainTransform(resize=ResizeRule(SIZE), augment=CASES[case])(image, Target.empty(), seed)
        assert changed.shape == (*SIZE, 3)
        assert left.boxes.shape == (0, 4)
        assert (left.boxes.dtype, left.labels.dtype, left.iscrowd.dtype) == (np.float32, np.int64, np.bool_)


@pytest.mark.parametrize(
    ("box", "stays"),
    [((10, 10, 10.2, 60), False), ((10, 10, 60, 10.2), False), ((0, 0, 210, 90), True), ((208, 88, 210, 90), True)],
)
def test_boxes_too_thin_to_be_learned_are_dropped(box, stays):
    _, left = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig.none())(painted(90, 210), target(box), 0)
    assert len(left) == stays
    assert ((left.boxes[:, 2:] - left.boxes[:, :2]) >= MIN_BOX_SIDE).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_images(shape):
    box = (0, 0, shape[1], shape[0])
    for seed in range(20):
        changed, left = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig())(
            painted(*shape), target(box), seed
        )
        assert changed.shape == (*SIZE, 3)
        assert len(left) <= 1


def digest(image, left):
    parts = (image, left.boxes, left.labels, left.iscrowd)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def test_the_same_seed_gives_the_same_bytes():
    image = np.random.default_rng(5).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    objects = target((10, 10, 60, 60), (50, 20, 120, 80))
    one = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig())
    forward = [digest(*one(image, objects, seed)) for seed in range(20)]
    np.random.seed(99)  # nor does it depend on anybody else's generator, on the order, or on the object used
    other = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig())
    backward = [digest(*other(image, objects, seed)) for seed in reversed(range(20))]
    assert forward == backward[::-1]
    assert len(set(forward)) >= 19


def test_an_augmentation_of_ones_own_keeps_crowds_apart():
    given = []

    def own(image, boxes, labels, rng):
        given.append(labels.tolist())
        return image, boxes[::-1], labels[::-1]

    crowd = Target(np.array([[10, 10, 60, 60], [5, 5, 90, 50]], np.float32), np.array([2, 3]), np.array([True, False]))
    _, left = TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig(), own=own)(painted(90, 130), crowd, 0)
    assert given == [[0, 3]]
    assert (left.labels.tolist(), left.iscrowd.tolist()) == ([3, 0], [False, True])


def test_the_input_is_left_as_it_was():
    image = np.random.default_rng(5).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    objects = target((10, 10, 60, 60))
    before = digest(image, objects)
    for seed in range(10):
        TrainTransform(resize=ResizeRule(SIZE), augment=AugmentConfig())(image, objects, seed)
    assert digest(image, objects) == before


def test_strong_reduction_averages_pixels():
    image = np.random.default_rng(0).integers(0, 256, (720, 1056, 3), dtype=np.uint8)
    fitted, _ = fit_image(image, ResizeRule(SIZE))
    assert fitted.std() < 15  # 74 / 6, six pixels of each side averaged
    assert cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_LINEAR).std() > 30  # what skipping pixels would give


@pytest.mark.parametrize(
    ("size", "checksum"), [((300, 447), 1848190667), ((301, 447), 2183114852), ((450, 200), 1408284320)]
)
def test_resizing_gives_the_same_bytes_on_every_processor(size, checksum):
    image = np.random.default_rng(0).integers(0, 256, (301, 448, 3), dtype=np.uint8)
    resized = resize_image(image, size)
    assert zlib.crc32(resized) == checksum
    exact = cv2.resize(image.astype(np.float64), size[::-1], interpolation=cv2.INTER_LINEAR)
    assert abs((resized - exact).mean()) < 0.02  # without a bias; INTER_LINEAR is darker by 0.13


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_a_mosaic(seed):
    """Four images of other shapes; the place of one red rectangle in each corner is found again in the pixels."""
    sizes, box = [(90, 130), (200, 60), (64, 64), (150, 310)], (20, 25, 44, 55)
    for place in range(4):
        pictures = [painted(*size, **({"red": box} if index == place else {})) for index, size in enumerate(sizes)]
        targets = [target(box, labels=[index + 1]) if index == place else target() for index in range(4)]
        transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(mosaic=1, min_visible=0.0), fill=FILL)
        canvas, left = transform.mosaic.join(pictures, targets, seed)
        assert canvas.shape == (2 * SIZE[0], 2 * SIZE[1], 3)
        found = found_box(canvas, 0)
        if found is None:
            assert len(left) == 0 or (left.boxes[:, 2:] - left.boxes[:, :2]).min() < 3
        else:
            assert left.labels.tolist() == [place + 1]
            assert np.abs(left.boxes[0] - found).max() <= 2


def test_what_a_mosaic_leaves_too_little_of_is_dropped():
    """Of boxes as large as their images some are cut off at the edges of the canvas."""
    whole = [(0, 0, 176, 120)]
    counts = set()
    for seed in range(40):
        some, every = (
            TrainTransform(resize=ResizeRule(SIZE), augment=only(mosaic=1, min_visible=share), fill=FILL).mosaic.join(
                [painted(*SIZE)] * 4, [target(*whole, crowd=[True])] * 4, seed
            )[1]
            for share in (0.9, 0.0)
        )
        assert every.iscrowd.tolist() == [True] * 4
        area = (every.boxes[:, 2:] - every.boxes[:, :2]).prod(axis=1)
        assert len(some) == (area >= 0.9 * SIZE[0] * SIZE[1]).sum()
        counts.add(len(some))
    assert len(counts) > 1


def test_copies_of_small_objects_show_them_and_hide_nothing():
    """The small object is copied with label and scores, wherever neither the large one nor the crowd is."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    before, small = image.copy(), (30, 50, 50, 72)
    objects = target(small, (80, 20, 140, 90), (10, 5, 40, 25), labels=[2, 1, 3], crowd=[False, False, True])
    objects = replace(objects, scores=np.arange(9, dtype=np.float32).reshape(3, 3) / 10)
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(copy_small=0.5), fill=FILL)
    counts = []
    for seed in range(60):
        changed, after = transform(image, objects, seed)
        counts.append(len(after) - 3)
        np.testing.assert_array_equal(after.boxes[:3], objects.boxes)
        for x1, y1, x2, y2 in objects.boxes.astype(int):
            np.testing.assert_array_equal(changed[y1:y2, x1:x2], before[y1:y2, x1:x2])
        assert after.labels[3:].tolist() == [2] * counts[-1]
        np.testing.assert_array_equal(after.scores[3:], objects.scores[[0] * counts[-1]])
        assert np.triu(pairwise_iou(after.boxes, after.boxes)[:, 3:], 1 - 3).sum() == 0
        for x1, y1, x2, y2 in after.boxes[3:].round().astype(int):
            np.testing.assert_array_equal(changed[y1:y2, x1:x2], before[50:72, 30:50])
    np.testing.assert_array_equal(image, before)
    assert 20 < np.count_nonzero(counts) < 40
    assert max(counts) == 4


@pytest.mark.parametrize(
    ("boxes", "crowd"),
    [([(20, 20, 60, 50)], [False]), ([(20, 20, 40, 40)], [True]), ([(20, 20, 40, 40), (30, 10, 90, 90)], [False] * 2)],
    ids=["large", "crowd", "half hidden"],
)
def test_what_is_large_a_crowd_or_partly_hidden_is_not_copied(boxes, crowd):
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(copy_small=1), fill=FILL)
    image = painted(*SIZE, red=boxes[0])
    changed, after = transform(image, target(*boxes, crowd=crowd), 1)
    np.testing.assert_array_equal(changed, image)
    assert len(after) == len(boxes)


def test_small_is_what_is_small_in_the_network():
    """An object of 60x60 pixels is, once the image is half as large."""
    transform = TrainTransform(resize=ResizeRule(SIZE), augment=only(copy_small=1), fill=FILL)
    image = painted(2 * SIZE[0], 2 * SIZE[1], red=(20, 20, 80, 80))
    assert max(len(transform(image, target((20, 20, 80, 80)), seed)[1]) for seed in range(9)) > 1
