"""A detector takes images in every form, several at once, and videos."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_detectors import make_images

from mobiledet import Detections, Detector
from mobiledet.data.images import load_image


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(make_images(1)[0]).save(path)
    return path


def test_a_detector_takes_one_several_and_a_stream_of_them(png, tiny_checkpoint):
    detector = Detector(tiny_checkpoint("sigmoid"), threads=1)
    one = detector(png)
    assert one.category_ids == detector.card.category_ids
    several = detector([png, load_image(png)])
    lazily = detector(path for path in [png, png, png])
    for other in (*several, *lazily):
        assert (other.boxes == one.boxes).all()


def test_every_frame_of_a_video(tiny_checkpoint, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(3):
        writer.write(np.full((48, 64, 3), 80 * number, np.uint8))
    writer.release()
    detector = Detector(tiny_checkpoint("sigmoid"), threads=1)
    pairs = list(detector.stream(path))
    assert [frame.shape for frame, _ in pairs] == [(48, 64, 3)] * 3
    assert all(isinstance(found, Detections) for _, found in pairs)


def test_the_objects_of_a_video_keep_their_ids(tiny_checkpoint, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(12):
        writer.write(np.full((48, 64, 3), 80, np.uint8))
    writer.release()
    detector = Detector(tiny_checkpoint("sigmoid"), threads=1, score_threshold=0.3)
    ids = [found.track_ids for _, found in detector.stream(path, track=True)]
    assert len(ids) == 12
    assert set(ids[0]) == {0}
    assert set(ids[-1]) - {0} == set(ids[4]) - {0} != set()
