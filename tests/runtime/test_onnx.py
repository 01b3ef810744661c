import itertools
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tiny_detectors import HEADS, SIZE, assert_same, expected, make_images, tiny_detector

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.int8 import quantise
from mobiledet.exporters.onnx import trace_onnx, write_onnx
from mobiledet.runtime.card import KEY, ModelCard, seal
from mobiledet.runtime.choose import open_backend
from mobiledet.runtime.detector import Detector
from mobiledet.runtime.onnx import OnnxBackend, _network_share
from mobiledet.structures import ResizeRule


@pytest.fixture(scope="module")
def sigmoid(tmp_path_factory):
    """Model, card and file of an SSD."""
    model, card = tiny_detector("sigmoid")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(trace_onnx(model, size=SIZE), card, path)
    return model, card, path


@pytest.mark.parametrize("spin", [False, True])
def test_whether_waiting_threads_keep_cores_busy(sigmoid, spin):
    model, _, path = sigmoid
    network = Detector(path, threads=2, spin=spin).backend
    options, key = network._session.get_session_options(), "session.intra_op.allow_spinning"
    if spin:
        with pytest.raises(RuntimeError):  # left as ONNX Runtime has it
            options.get_session_config_entry(key)
    else:
        assert options.get_session_config_entry(key) == "0"
    assert_same(network.run(make_images(1), 0.01, 0.6), expected(model, make_images(1)))


EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")

RUN = """
import json, sys, numpy
from mobiledet.runtime import onnx
if sys.argv[1] == "as it comes":
    onnx.sums_saturate = lambda: False
backend = onnx.OnnxBackend(onnx.Path(sys.argv[2]), threads=1)
print(json.dumps([onnx.sums_saturate(), backend.run(numpy.load(sys.argv[3]), 0.01, 0.6).scores.tolist()]))
"""


def test_int8_finds_the_same_on_a_processor_without_vnni(tmp_path):
    if EMULATOR is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user-static), which plays the older processor")
    images = np.full((1, *SIZE, 3), 255, np.uint8)
    images[:, ::2, 10:50] = 200
    model, card = tiny_detector("sigmoid")
    write_onnx(quantise(trace_onnx(model, size=SIZE), [images, *make_images(4)[:, None]]), card, tmp_path / "m.onnx")
    np.save(tmp_path / "images.npy", images)
    exact = OnnxBackend(tmp_path / "m.onnx", threads=1).run(images, 0.01, 0.6).scores

    def emulated(how):
        command = [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", RUN, how, tmp_path / "m.onnx"]
        done = subprocess.run([*command, tmp_path / "images.npy"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    saturates, scores = emulated("as it is opened")
    assert saturates
    np.testing.assert_array_equal(np.array(scores, np.float32), exact)
    assert np.abs(np.array(emulated("as it comes")[1]) - exact).max() > 0.01, "nothing saturates in this model"


@pytest.mark.parametrize("saturate", [False, True])
def test_exact_sums_are_asked_for_where_they_are_lost(sigmoid, monkeypatch, saturate):
    monkeypatch.setattr("mobiledet.runtime.onnx.sums_saturate", lambda: saturate)
    options = OnnxBackend(sigmoid[-1], threads=1)._session.get_session_options()
    if saturate:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("head", [*HEADS, "tensorflow"])
def test_finds_what_pytorch_finds(head, tmp_path):
    padding = "tensorflow" if head == "tensorflow" else "symmetric"
    model, card = tiny_detector("sigmoid" if head == "tensorflow" else head, padding=padding)
    write_onnx(trace_onnx(model, size=SIZE), card, tmp_path / "m.onnx")
    network = open_backend(tmp_path / "m.onnx", threads=1)
    for image in make_images(3):
        assert_same(network.run(image[None], 0.01, 0.6), expected(model, image[None]))


@pytest.mark.parametrize("head", ["sigmoid", "faster_rcnn"])
@pytest.mark.parametrize("num_classes", [1, 90])
def test_few_and_many_classes(head, num_classes, tmp_path):
    model, card = tiny_detector(head, num_classes=num_classes)
    write_onnx(trace_onnx(model, size=SIZE), card, tmp_path / "m.onnx")
    image = make_images(1)
    assert_same(OnnxBackend(tmp_path / "m.onnx", threads=1).run(image, 0.001, 0.6), expected(model, image, 0.001))


@pytest.mark.parametrize("head", ["sigmoid", "faster_rcnn"])
def test_a_batch_gives_what_single_images_give(head, tmp_path):
    model, card = tiny_detector(head)
    write_onnx(trace_onnx(model, size=SIZE), card, tmp_path / "one.onnx")
    write_onnx(trace_onnx(model, size=SIZE, batch=4), replace(card, batch=4), tmp_path / "four.onnx")
    one, four = (Detector(tmp_path / name, threads=1) for name in ("one.onnx", "four.onnx"))
    images = list(make_images(6))  # a whole batch, and one with two empty places
    singles, together = [one(image) for image in images], four(images)
    assert [len(found) for found in together] == [len(found) for found in singles]
    assert len({found.boxes.tobytes() for found in together}) == len(images), "every image has its own detections"
    for single, found in zip(singles, together, strict=True):
        np.testing.assert_allclose(found.boxes, single.boxes, atol=1e-2)
        np.testing.assert_array_equal(found.labels, single.labels)


def test_plain_onnx_runtime_may_leave_the_thresholds_out(sigmoid):
    import onnxruntime

    _, card, path = sigmoid
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("images", "tensor(uint8)", [1, *SIZE, 3])]
    boxes, scores, labels = session.run(None, {"images": make_images(1)})
    found = OnnxBackend(path, threads=1).run(make_images(1), card.score_threshold, card.iou_threshold)
    for ours, theirs in zip(found, (boxes, scores, labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_card_travels_inside(sigmoid):
    _, card, path = sigmoid
    assert OnnxBackend(path).card == ModelCard.from_json(card.to_json(), "here")
    assert OnnxBackend(path).card.names == card.names
    text = path.read_bytes()
    assert b"/work" not in text
    assert b".py" not in text, "no traces of the exporter's own files"


def test_norms_are_folded(sigmoid):
    kinds = [node.op_type for node in onnx.load(sigmoid[2]).graph.node]
    assert "BatchNormalization" not in kinds
    following = [after for before, after in itertools.pairwise(kinds) if before == "Conv"]
    assert not {"Mul", "Add", "Sub"} & set(following)


def test_detections_are_in_the_images_own_pixels(sigmoid):
    model, _, path = sigmoid
    detector = Detector(path, threads=1)
    small = make_images(1)[0]
    large = small.repeat(3, axis=0).repeat(2, axis=1)  # (192, 192): another shape than the network's
    found = detector(large)
    assert len(found) > 5
    assert found.names == detector.names
    with pytest.raises(TypeError, match="class_names"):
        detector.names[1]
    fitted, geometry = detector.fit(large)
    assert fitted.shape == (*SIZE, 3)
    boxes, scores, _ = expected(model, fitted[None])
    np.testing.assert_allclose(found.boxes, geometry.to_original(boxes[0][scores[0] > 0]), atol=0.02)
    assert found.boxes.max() > 96


def test_letterboxed_images_keep_their_shape(sigmoid, tmp_path):
    model, card, _ = sigmoid
    letterboxed = replace(card, resize=ResizeRule(SIZE, letterbox=True), fill=(9, 8, 7))
    write_onnx(trace_onnx(model, size=SIZE), letterboxed, tmp_path / "m.onnx")
    detector = Detector(tmp_path / "m.onnx", threads=1)
    fitted, geometry = detector.fit(np.full((128, 64, 3), 200, np.uint8))
    assert geometry.network_size == (64, 32)
    assert (fitted[:, :32] == 200).all()
    assert (fitted[:, 32:] == (9, 8, 7)).all()
    found = detector(make_images(1)[0].repeat(2, axis=0)[:, :50])
    assert found.boxes[:, [0, 2]].max() <= 50
    assert found.boxes[:, [1, 3]].max() <= 128


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_own_thresholds(sigmoid, threshold):
    path = sigmoid[2]
    found = Detector(path, threads=1, score_threshold=threshold)(make_images(1)[0])
    everything = Detector(path, threads=1)(make_images(1)[0])
    assert len(found) == int((everything.scores >= threshold).sum()) < len(everything)


def test_the_network_ends_with_its_last_layer():
    def event(name, duration):
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": {"op_name": name}}

    run = [event("Cast", 1), event("Conv", 5), event("Relu", 1), event("MatMul", 2), event("TopK", 3)]
    start = {"cat": "Session", "name": "model_run", "dur": 99}
    assert _network_share([*run, start, *run, start]) == pytest.approx(9 / 12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], "not an ONNX file, or damaged"),
        (lambda content: b"", "not an ONNX file, or damaged"),
        (lambda content: b"<html>not found</html>", "not an ONNX file, or damaged"),
        (lambda content: content.replace(b'"format": "mobiledet model"', b'"format": "something else"'), "damaged"),
        (lambda content: content.replace(b'"version": 2', b'"version": 9'), "damaged"),
    ],
)
def test_damaged_files_are_refused_in_one_line(sigmoid, tmp_path, spoil, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(spoil(sigmoid[2].read_bytes()))
    with pytest.raises(ModelFileError, match=message) as error:
        Detector(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_wrong_bit_in_the_weights_is_found(sigmoid, tmp_path):
    content = bytearray(sigmoid[2].read_bytes())
    weights = onnx.load(sigmoid[2]).graph.initializer
    largest = max((t.raw_data for t in weights), key=len)
    at = bytes(content).index(largest) + len(largest) // 2
    content[at] ^= 4
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged, its checksum doesn't match"):
        Detector(path)


def test_foreign_files_are_refused(sigmoid, tmp_path):
    graph = onnx.load(sigmoid[2])
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(ModelFileError, match=r"not one that mobiledet export wrote"):
        Detector(tmp_path / "foreign.onnx")


def test_newer_formats_are_refused(sigmoid):
    newer = json.dumps(json.loads(sigmoid[1].to_json()) | {"version": 3})
    with pytest.raises(ModelFileError, match="newer mobiledet"):
        ModelCard.from_json(newer, "m.onnx")
    assert KEY == "mobiledet"


def test_names_in_a_card_are_text_that_no_terminal_obeys(sigmoid):
    named = {"names": [f"{number}\udcff\x1b[2J" for number in range(len(sigmoid[1].names))]}
    card = ModelCard.from_json(json.dumps(json.loads(sigmoid[1].to_json()) | named), "m.onnx")
    assert card.names[1] == "1[2J"
    assert card.to_json().isascii()
    assert ModelCard.from_json(card.to_json(), "m.onnx") == card


@pytest.mark.parametrize(
    "change",
    [
        *({"batch": batch} for batch in (0, -1, "x", 1.5, True, 10**9)),
        *({"resize": {"size": size, "longest_side": None, "letterbox": False}} for size in ([0, 96], [64], [1e999, 3])),
        {"resize": {"size": [64, 96], "longest_side": -1, "letterbox": False}},
        {"resize": None},
        {"names": []},
        {"names": [1, 2, 3]},
        {"category_ids": [1]},
        {"fill": [0, 0, 256]},
        {"iou_threshold": float("nan")},
        {"shown_threshold": "0.5"},
        {"max_detections": 0},
        {"params": "many"},
        {"config": []},
        {"version": "x"},
        {"more": 1},
    ],
)
def test_cards_that_can_not_be_right_are_refused(sigmoid, change):
    plain = json.loads(sigmoid[1].to_json())
    with pytest.raises(ModelFileError, match=r"m\.onnx: its model card is damaged"):
        ModelCard.from_json(json.dumps(plain | change), "m.onnx")


def test_a_card_must_fit_the_network_and_the_checksum_comes_first(sigmoid, tmp_path):
    graph, path = onnx.load(sigmoid[2]), tmp_path / "m.onnx"
    card = next(prop for prop in graph.metadata_props if prop.key == KEY)
    card.value = json.dumps(json.loads(card.value) | {"batch": 2})
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelFileError, match="checksum"):
        Detector(path)
    path.write_bytes(seal(graph.SerializeToString()))
    with pytest.raises(ModelFileError, match=r"card says \(2, 64, 96, 3\)"):
        Detector(path)
    path.write_bytes(seal(sigmoid[2].read_bytes().replace(b'"precision"', b'"precis\xff\xfe"')))
    with pytest.raises(ModelFileError, match="damaged"):
        Detector(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 96), np.uint8), r"not \(64, 96\) uint8"),
        (np.zeros((64, 96, 3), np.float32), "float32"),
        (np.zeros((64, 96, 4), np.uint8), r"\(64, 96, 4\)"),
        (np.zeros((0, 96, 3), np.uint8), r"\(0, 96, 3\)"),
        ([np.zeros((64, 96, 3), np.uint8), None], "not NoneType"),
    ],
)
def test_wrong_images_are_refused(sigmoid, image, message):
    with pytest.raises(ValueError, match=message):
        Detector(sigmoid[2], threads=1)(image)


def test_no_images_no_detections(sigmoid):
    assert Detector(sigmoid[2], threads=1)([]) == []


def test_wrong_settings_are_refused(sigmoid, tmp_path):
    with pytest.raises(ModelFileError, match=r"no model .*mobiledet export"):
        Detector(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match=r"no provider 'TPU'.*CPUExecutionProvider"):
        Detector(sigmoid[2], provider="TPU")
    with pytest.raises(ValueError, match="threads is -1"):
        Detector(sigmoid[2], threads=-1)
    with pytest.raises(ValueError, match=r"score_threshold is 1\.5"):
        Detector(sigmoid[2], score_threshold=1.5)
    with pytest.raises(ValueError, match="takes uint8 images"):
        OnnxBackend(sigmoid[2]).run(np.zeros((1, 10, 10, 3), np.uint8), 0.1, 0.5)


def test_missing_packages_are_named(sigmoid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        Detector(sigmoid[2])
    monkeypatch.setitem(sys.modules, "mobiledet.runtime.pytorch", None)
    for name in ("torch", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "mobiledet.runtime.pytorch")
    (tmp_path / "best.pt").touch()
    with pytest.raises(MissingDependencyError, match="export it where it was trained"):
        Detector(tmp_path / "best.pt")
    with pytest.raises(MissingDependencyError, match="needs torch"):
        Detector("mobilenetv1_100")
    with pytest.raises(ModelFileError, match="did you mean 'ssd_mobilenet_v1_075_coco'"):
        Detector("ssd_mobilenet_v1_075_coc")
    with pytest.raises(ModelFileError, match=r"no model .*in .* there are best.pt"):
        Detector(tmp_path / "m.onnx.typo")
