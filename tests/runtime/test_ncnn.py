import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from tiny_detectors import assert_same, expected, make_images, tiny_detector

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.graph import CandidateGraph
from mobiledet.exporters.ncnn import write_ncnn
from mobiledet.runtime.choose import open_backend
from mobiledet.runtime.folder import write_folder_card
from mobiledet.runtime.ncnn import NcnnBackend

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")


@pytest.fixture(scope="module")
def sigmoid(tmp_path_factory):
    """Model, card and folder of an SSD."""
    model, card = tiny_detector("sigmoid")
    folder = tmp_path_factory.mktemp("sigmoid") / "model"
    write_ncnn(model, card, folder)
    return model, card, folder


@pytest.fixture
def folder(sigmoid, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(sigmoid[-1], tmp_path / "copy")


@pytest.mark.parametrize("head", ["softmax", "fine", "fpn"])
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_heads_and_both_paddings(padding, head, tmp_path):
    # 64x96 shrinks to maps with odd sides, where TensorFlow pads the two directions differently.
    model, card = tiny_detector(head, padding=padding)
    write_ncnn(model, card, tmp_path / "model")
    image = make_images(1)
    assert_same(open_backend(tmp_path / "model", threads=1).run(image, 0.01, 0.6), expected(model, image))


def test_weights_stay_float32(sigmoid):
    model, _, folder = sigmoid
    weights = sum(value.numel() for value in CandidateGraph(model).parameters())
    # Of kernels that only ever meet a map of one pixel, only the middle is kept.
    assert 3 * weights < (folder / "model.ncnn.bin").stat().st_size < 4.2 * weights


def test_settings_of_the_postprocess_travel(sigmoid, folder):
    model, card, _ = sigmoid
    config = json.loads(json.dumps(card.config))
    config["model"]["postprocess"]["candidates"] = 12
    write_folder_card(folder, replace(card, max_detections=30, config=config), ("model.ncnn.param", "model.ncnn.bin"))
    image = make_images(1)
    fewer = replace(model.postprocess, candidates=12, max_detections=30)
    with torch.no_grad():
        candidates = model.candidates(torch.from_numpy(image).permute(0, 3, 1, 2))
        wanted = [part.numpy() for part in fewer.fixed(candidates, 0.01, 0.6)]
    assert_same(open_backend(folder, threads=1).run(image, 0.01, 0.6), wanted)


def test_float16_only_where_asked(sigmoid):
    exact, rounded = NcnnBackend(sigmoid[-1]), NcnnBackend(sigmoid[-1], threads=1, provider="cpu:F16")
    names = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
    assert [getattr(exact._net.opt, name) for name in names] == [False] * 3
    assert [getattr(rounded._net.opt, name) for name in names] == [True] * 3
    assert exact._net.opt.num_threads >= 1
    assert rounded._net.opt.num_threads == 1
    with pytest.raises(ModelFileError, match="no provider 'GPU' here; it has cpu, cpu:f16"):
        NcnnBackend(sigmoid[-1], provider="GPU")


def test_what_ncnn_cant_have(tmp_path, sigmoid):
    model, card = tiny_detector("faster_rcnn")
    with pytest.raises(ModelFileError, match=r"can't run faster_rcnn: .*; export to onnx or openvino"):
        write_ncnn(model, card, tmp_path / "model")
    with pytest.raises(ModelFileError, match="one image at once, not 3"):
        write_ncnn(sigmoid[0], replace(sigmoid[1], batch=3), tmp_path / "model")


def test_a_wrong_conversion_isnt_kept(sigmoid, tmp_path, monkeypatch):
    def swap(self, image):
        boxes, scores = right(self, image)
        return boxes[:, [1, 0, 3, 2]], scores

    right = NcnnBackend.candidates
    monkeypatch.setattr(NcnnBackend, "candidates", swap)
    with pytest.raises(ModelFileError, match="converted this network wrongly: boxes differ by"):
        write_ncnn(sigmoid[0], sigmoid[1], tmp_path / "model")


def test_pnnx_fails(sigmoid, tmp_path, monkeypatch):
    import pnnx

    monkeypatch.setattr(pnnx, "EXEC_PATH", shutil.which("false"))
    with pytest.raises(ModelFileError, match="pnnx failed with status 1: nothing; export to onnx or openvino"):
        write_ncnn(sigmoid[0], sigmoid[1], tmp_path / "one")
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(tmp_path / "gone"))
    with pytest.raises(ModelFileError, match="gone doesn't start: No such file or directory; install pnnx again"):
        write_ncnn(sigmoid[0], sigmoid[1], tmp_path / "two")


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"7767517\n2 2\nInput in0 0 1 in0\nNoSuchLayer a 1 1 in0 out0\n"]
)
def test_what_ncnn_cant_load_is_one_line(folder, sigmoid, content, capfd):
    (folder / "model.ncnn.param").write_bytes(content)
    write_folder_card(folder, sigmoid[1], ("model.ncnn.param", "model.ncnn.bin"))  # the checksum is right
    with pytest.raises(ModelFileError, match=r"ncnn 1\.0.* can't load it; export it again with this version"):
        NcnnBackend(folder)


def test_a_card_that_ncnn_cant_use(folder, sigmoid):
    write_folder_card(folder, replace(sigmoid[1], config={}), ("model.ncnn.param", "model.ncnn.bin"))
    with pytest.raises(ModelFileError, match=r"its card lacks config\.model\.postprocess\.candidates"):
        NcnnBackend(folder)
    write_folder_card(folder, replace(sigmoid[1], batch=2), ("model.ncnn.param", "model.ncnn.bin"))
    with pytest.raises(ModelFileError, match="made for 2 images at once, ncnn takes one"):
        NcnnBackend(folder)


def test_pnnx_isnt_installed(sigmoid, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(MissingDependencyError, match="needs the package pnnx"):
        write_ncnn(sigmoid[0], sigmoid[1], tmp_path / "model")
