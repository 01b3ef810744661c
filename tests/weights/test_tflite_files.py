"""The variations of generated files are what they say, in TensorFlow Lite's eyes, too."""

import numpy as np
import pytest
from tflite_files import LiteRT, at_least, with_channels, with_kernel, with_stride, write_changed_ssd
from tflite_forward import forward, make_pictures

CHANGES = {
    "16 channels": (at_least(16), "conv0", (16, 3, 3, 3)),
    "5x5 stem": (with_kernel("conv0", 5), "conv0", (8, 5, 5, 3)),
    "stride": (with_stride("conv4_depthwise", 1), "conv4_depthwise", (1, 3, 3, 32)),
    "width": (with_channels("conv5", 100), "conv6_depthwise", (1, 3, 3, 100)),
}


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("name", CHANGES)
def test_tensorflow_lite_computes_what_was_written(tmp_path, name):
    change, layer, shape = CHANGES[name]
    layers = write_changed_ssd(tmp_path / "m.tflite", change, input_size=(49, 80))
    assert layers[layer].weight.shape == shape
    fed = (make_pictures(1, (49, 80), seed=5).astype(np.float32) - 127.5) / 127.5
    litert = LiteRT(tmp_path / "m.tflite")
    litert.run(fed[0])
    found = forward(layers, fed)
    boxes = np.concatenate([found[f"box_predictor{k}"].reshape(1, -1, 4) for k in range(6)], axis=1)
    assert np.abs(boxes - litert.real("Squeeze")).max() < 1e-3
    assert boxes.std() > 0.3


def test_anchors_are_changed_in_the_file(tmp_path):
    paths = [tmp_path / "plain.tflite", tmp_path / "changed.tflite"]
    write_changed_ssd(paths[0], lambda plan: plan)
    write_changed_ssd(paths[1], lambda plan: plan, change_anchors=lambda anchors: anchors * 2)
    plain, changed = (path.read_bytes() for path in paths)
    assert len(plain) == len(changed)
    assert sum(a != b for a, b in zip(plain, changed, strict=True)) > 200
