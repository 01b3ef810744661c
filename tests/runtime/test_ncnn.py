import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_detectors import SIZE, assert_same, expected, pictures, spoil, tiny_detector

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.export.graph import CandidateGraph
from mobiledet.export.ncnn import write_ncnn
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


def test_it_finds_what_the_checkpoint_finds(sigmoid):
    model, card, folder = sigmoid
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.ncnn.bin", "model.ncnn.param"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    images = pictures(2)
    network = open_backend(folder, threads=1)
    assert isinstance(network, NcnnBackend)
    assert network.card == card
    assert network.runtime.startswith("ncnn 1.0.")
    for index in range(2):
        image = images[index : index + 1]
        assert_same(network.run(image, 0.01, 0.6), expected(model, image))
    assert_same(open_backend(folder / "model.ncnn.param").run(images[:1], 0.01, 0.6), expected(model, images[:1]))


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_softmax_and_both_paddings(padding, tmp_path):
    # 64x96 shrinks to maps with odd sides, where TensorFlow pads the two directions differently.
    model, card = tiny_detector("softmax", padding=padding)
    write_ncnn(model, card, tmp_path / "model")
    image = pictures(1)
    assert_same(open_backend(tmp_path / "model", threads=1).run(image, 0.01, 0.6), expected(model, image))


def test_weights_stay_float32(sigmoid):
    model, _, folder = sigmoid
    weights = sum(value.numel() for value in CandidateGraph(model).parameters())
    # Of kernels that only ever meet a map of one pixel, only the middle is kept.
    assert 3 * weights < (folder / "model.ncnn.bin").stat().st_size < 4.2 * weights


@pytest.mark.parametrize(("score", "iou"), [(0.0, 0.6), (0.3, 0.6), (0.01, 0.2), (0.01, 0.95)])
def test_thresholds_are_given_when_running(sigmoid, score, iou):
    model, _, folder = sigmoid
    image = pictures(1)
    assert_same(open_backend(folder, threads=1).run(image, score, iou), expected(model, image, score, iou))


def test_settings_of_the_postprocess_travel(sigmoid, folder):
    model, card, _ = sigmoid
    config = json.loads(json.dumps(card.config))
    config["model"]["postprocess"]["candidates"] = 12
    write_folder_card(folder, replace(card, max_detections=30, config=config), ("model.ncnn.param", "model.ncnn.bin"))
    image = pictures(1)
    fewer = replace(model.postprocess, candidates=12, max_detections=30)
    with torch.no_grad():
        candidates = model.candidates(torch.from_numpy(image).permute(0, 3, 1, 2))
        wanted = [part.numpy() for part in fewer.fixed(candidates, 0.01, 0.6)]
    assert_same(open_backend(folder, threads=1).run(image, 0.01, 0.6), wanted)


def test_threads_of_the_caller_dont_mix_up_their_pictures(sigmoid):
    network, images = open_backend(sigmoid[-1], threads=1), pictures(4)
    alone = [network.run(images[index : index + 1], 0.01, 0.6) for index in range(4)]
    assert len({one.boxes.tobytes() for one in alone}) == 4
    with ThreadPoolExecutor(4) as pool:
        jobs = [(index, pool.submit(network.run, images[index : index + 1], 0.01, 0.6)) for index in [0, 1, 2, 3] * 15]
    for index, job in jobs:
        for one, other in zip(job.result(), alone[index], strict=True):
            np.testing.assert_array_equal(one, other)


def test_pictures_may_be_strided(sigmoid):
    network, images = open_backend(sigmoid[-1], threads=1), pictures(1)
    wide = np.zeros((1, SIZE[0], 2 * SIZE[1], 3), np.uint8)
    wide[:, :, ::2] = images
    found, wanted = network.run(wide[:, :, ::2], 0.01, 0.6), network.run(images, 0.01, 0.6)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    with pytest.raises(ValueError, match=r"takes uint8 images \(1, 64, 96, 3\), not \(1, 96, 64, 3\)"):
        network.run(images.transpose(0, 2, 1, 3), 0.01, 0.6)


def test_stages_add_up(sigmoid):
    stages = open_backend(sigmoid[-1], threads=1).stages(pictures(1), 5)
    assert list(stages) == ["network", "decode+nms"]
    assert min(stages.values()) > 0


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


@pytest.mark.parametrize("name", ["model.ncnn.param", "model.ncnn.bin"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_damage_is_found(folder, name, how):
    message = spoil(folder / name, how)
    with pytest.raises(ModelFileError, match=message) as error:
        NcnnBackend(folder)
    assert name in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"7767517\n2 2\nInput in0 0 1 in0\nNoSuchLayer a 1 1 in0 out0\n"]
)
def test_what_ncnn_cant_load_is_one_line(folder, sigmoid, content, capfd):
    (folder / "model.ncnn.param").write_bytes(content)
    write_folder_card(folder, sigmoid[1], ("model.ncnn.param", "model.ncnn.bin"))  # the checksum is right
    with pytest.raises(ModelFileError, match=r"ncnn 1\.0.* can't load it; export it again with this version"):
        NcnnBackend(folder)


def test_a_foreign_folder_or_card(folder, sigmoid):
    write_folder_card(folder, replace(sigmoid[1], config={}), ("model.ncnn.param", "model.ncnn.bin"))
    with pytest.raises(ModelFileError, match=r"its card lacks config\.model\.postprocess\.candidates"):
        NcnnBackend(folder)
    write_folder_card(folder, replace(sigmoid[1], batch=2), ("model.ncnn.param", "model.ncnn.bin"))
    with pytest.raises(ModelFileError, match="made for 2 images at once, ncnn takes one"):
        NcnnBackend(folder)
    (folder / "card.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no card\.json"):
        open_backend(folder)


def test_packages_that_arent_installed(sigmoid, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(MissingDependencyError, match="needs the package pnnx"):
        write_ncnn(sigmoid[0], sigmoid[1], tmp_path / "model")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(MissingDependencyError, match=r'needs the package ncnn.*pip install -e "\.\[ncnn\]"'):
        NcnnBackend(sigmoid[-1])


def test_running_needs_no_torch(sigmoid):
    code = (
        "import sys\n"
        "from mobiledet.runtime.choose import open_backend\n"
        f"open_backend({str(sigmoid[-1])!r})\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'onnx', 'pnnx'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
