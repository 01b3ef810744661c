"""Numbers and notes on frames: where they are, that they fit, and that nothing else is touched."""

import numpy as np
import pytest

from mobiledet.apps.live.frames import Frame, Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.show.overlay import (
    HELP,
    draw_banner,
    draw_enlarged,
    draw_help,
    draw_note,
    draw_panel,
    enlargement,
)
from mobiledet.apps.live.sources.base import SourceState
from mobiledet.apps.live.view import ViewSettings
from mobiledet.detections import Detections

SIZES = [(360, 480), (480, 640), (720, 1280), (1080, 1920), (640, 480), (2160, 3840), (60, 1600), (900, 40), (8, 480)]
FULL = LiveNumbers(
    fps=24.13,
    age_ms=43.2,
    age_p95_ms=61.7,
    stages_ms={"grab": 3.1, "resize": 0.9, "network": 18.2, "draw": 1.1},
    processed=12345,
    cpu_percent=93.2,
    memory_mib=312.2,
    temperature_c=81.3,
    source=SourceState(connected=True, dropped=1024, skipped=3, reconnects=2),
)


def gray(height, width, value=120):
    return np.full((height, width, 3), value, np.uint8)


def touched(before, after):
    """First and last row and column that differ."""
    rows, columns = np.nonzero((before != after).any(axis=-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


def panel(size=(480, 640), numbers=FULL, settings=None, detail=True):
    return draw_panel(gray(*size), numbers, settings or ViewSettings(), detail=detail)


@pytest.mark.parametrize("size", SIZES)
def test_everything_fits_at_any_size(size):
    for draw in (
        lambda image: draw_panel(image, FULL, ViewSettings(classes={1}), detail=True),
        lambda image: draw_panel(image, FULL, ViewSettings(), detail=False),
        lambda image: draw_note(image, "kept /a/very/long/path/with/no/end/snapshot_20250101-010203.jpg " * 3),
        lambda image: draw_note(image, "paused", corner=True),
        lambda image: draw_banner(image, "caméra 苹果: no frame for 1.2 s; trying again (2)"),
        lambda image: draw_banner(image, ""),
        draw_help,
    ):
        image = gray(*size)
        drawn = draw(image)
        assert drawn is image
        assert drawn.shape == (*size, 3)


@pytest.mark.parametrize("size", [(360, 480), (480, 640), (640, 480), (1080, 1920), (2160, 3840)])
def test_the_panel_keeps_to_its_corner_and_follows_the_frame(size):
    top, bottom, left, right = touched(gray(*size), panel(size))
    assert top < 0.05 * size[0]
    assert left < 0.05 * size[1]
    assert bottom < 0.55 * size[0]
    assert right < 0.6 * size[1]
    assert bottom - top > 0.2 * size[0]
    # The lower line of it is whole: the ground below the letters is dark all the way.
    assert (panel(size)[bottom, left : right + 1] < 60).all()


def test_more_is_written_with_detail():
    short, full = (touched(gray(480, 640), panel(detail=detail)) for detail in (False, True))
    assert full[1] > 2 * short[1]


@pytest.mark.parametrize(
    "numbers",
    [LiveNumbers(), LiveNumbers(fps=float("nan"), age_ms=float("inf")), LiveNumbers(age_ms=3.0)],
)
def test_numbers_that_are_not_known(numbers):
    for detail in (False, True):
        assert (panel(numbers=numbers, detail=detail) != 120).any()


def test_a_slowed_board_is_shown_in_colour_even_without_detail():
    slowed = LiveNumbers(fps=3.0, throttled=("under-voltage",))
    for detail in (False, True):
        assert np.ptp(panel(numbers=slowed, detail=detail).astype(int), axis=-1).max() > 150
        assert np.ptp(panel(numbers=LiveNumbers(fps=3.0), detail=detail).astype(int), axis=-1).max() < 50


def test_threshold_and_classes_are_shown():
    plain = panel()
    assert (panel(settings=ViewSettings(threshold=0.7)) != plain).any()
    filtered = panel(settings=ViewSettings(names=("a", "b"), classes={2}))
    assert touched(gray(480, 640), filtered)[1] > touched(gray(480, 640), plain)[1]


def test_the_panel_does_not_jump_with_its_digits():
    widths = {
        touched(gray(480, 640), panel(numbers=LiveNumbers(fps=30.0, age_ms=age, age_p95_ms=61), detail=False))[3]
        for age in (9.0, 41.0, 38.0)
    }
    assert len(widths) == 1


def test_the_banner_dims_the_frame_and_darkens_a_strip():
    image = draw_banner(gray(480, 640), "camera 0: no frame for 1.2 s")
    assert (image[:150] == image[0, 0]).all()
    assert 20 < image[0, 0, 0] < 90
    strip = np.nonzero((image[:, 3] < image[0, 0]).all(-1))[0]
    assert strip.min() < 240 < strip.max()
    assert image[strip].max() > 200


def test_a_long_banner_takes_several_lines():
    short, long = (
        (draw_banner(gray(480, 640), text)[:, 2, 0] < 30).sum()
        for text in ("no frame", "no frame for a reason that takes quite some time to explain, and then some more")
    )
    assert long > 1.5 * short


def test_notes_are_at_the_lower_edge_or_in_the_upper_right_corner():
    top, bottom, left, right = touched(gray(480, 640), draw_note(gray(480, 640), "threshold 0.35"))
    assert top > 420
    assert bottom < 480
    assert abs((left + right) / 2 - 320) < 4
    top, bottom, left, right = touched(gray(480, 640), draw_note(gray(480, 640), "paused", corner=True))
    assert bottom < 60
    assert left > 500
    assert right > 620


def test_every_key_finds_room_in_the_help():
    image = draw_help(gray(360, 480))
    top, bottom, left, right = touched(gray(360, 480), image)
    assert min(top, left) > 0
    assert bottom < 359
    assert right < 479
    bright = (image[:, left : left + (right - left) // 4] > 180).all(-1).any(axis=1)
    lines = np.count_nonzero(np.diff(bright[top:bottom].astype(int)) == 1)
    assert lines == len(HELP)


@pytest.mark.parametrize(
    ("size", "factor"),
    [((120, 160), 3), ((240, 320), 2), ((480, 640), 1), ((1, 1), 480), ((40, 1600), 1), ((64, 48), 8)],
)
def test_small_frames_are_shown_larger(size, factor):
    assert enlargement(size) == factor


def test_enlarged_boxes_are_where_they_were():
    found = Detections(np.array([[10, 20, 70, 50]], np.float32), np.array([0.9], np.float32), np.array([1]), ("x",))
    faint = Detections(found.boxes, np.array([0.1], np.float32), found.labels, found.names)
    image = gray(80, 120)
    shown = draw_enlarged(Result(Frame(image, 0, 0.0, 0.0), found, 0.0), ViewSettings(labels=False), 4)
    assert shown.shape == (320, 480, 3)
    top, bottom, left, right = touched(gray(320, 480), shown)
    assert abs(top - 80) <= 2
    assert abs(bottom - 200) <= 2
    assert abs(left - 40) <= 2
    assert abs(right - 280) <= 2
    assert (image == 120).all()
    hidden = draw_enlarged(Result(Frame(image, 0, 0.0, 0.0), faint, 0.0), ViewSettings(), 4)
    assert (hidden == 120).all()
