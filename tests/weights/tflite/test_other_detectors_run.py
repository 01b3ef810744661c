"""Other people's detectors, run as they are by LiteRT."""

import numpy as np
import pytest
from tflite_writer import write_ssd

from mobiledet import Detector

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="the package ai-edge-litert isn't installed")


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8"])
def test_they_find_what_litert_gives(tmp_path, kind):
    path = tmp_path / "other.tflite"
    write_ssd(path, kind=kind, labels=("cat", "???", "dog"))
    detector = Detector(path)
    assert (detector.names, detector.card.category_ids) == (("cat", "dog"), (1, 3))
    height, width = detector.card.resize.size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    plain = interpreter.Interpreter(str(path))
    plain.allocate_tensors()
    (given,) = plain.get_input_details()
    real = (image[None] - np.float32(127.5)) / np.float32(127.5)
    pixels = {"float32": real, "uint8": image[None], "int8": image[None].astype(np.int16) - 128}[kind]
    plain.set_tensor(given["index"], pixels.astype(given["dtype"]))
    plain.invoke()
    boxes, classes, scores, _ = (plain.get_tensor(output["index"])[0] for output in plain.get_output_details())
    known, found = (classes != 1) & (scores > 0), detector(image)
    assert len(found) > 0
    assert list(found.class_names) == ["cat" if c == 0 else "dog" for c in classes[known]]
    np.testing.assert_allclose(found.scores, scores[known], atol=1e-6)
    corners = (boxes[known][:, [1, 0, 3, 2]] * (width, height, width, height)).clip(0, (width, height) * 2)
    np.testing.assert_allclose(found.boxes, corners, atol=1e-3)
    with pytest.raises(ValueError, match="suppression is part of the file"):
        Detector(path, iou_threshold=0.3)(image)
