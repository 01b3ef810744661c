"""Generated files with something odd about them."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from tflite_builder import tflite
from tflite_emitter import POSTPROCESS, UNKNOWN
from tflite_forward import make_pictures
from tflite_readback import KINDS, QUANTIZED, File, agree, run
from tflite_writer import write_classifier, write_ssd

FAULTS = {
    "softmax": ({"softmax": True}, lambda file: "SOFTMAX" in file.kinds and "LOGISTIC" not in file.kinds),
    "relu": ({"relu": True}, lambda file: {file.options(op)[0] for op in file.ops[:35]} == {1}),
    "box scales": (
        {"box_scales": (10, 10, 5, 4)},
        lambda file: file.custom_options(file.ops[-1])["w_scale"] == 4.0,
    ),
    "no postprocess": ({"postprocess": False}, lambda file: POSTPROCESS not in file.kinds),
    "inverted residuals": ({"inverted_residuals": True}, lambda file: Counter(file.kinds)["ADD"] == 8),
    "anchor scales": (
        {"anchor_scales": (0.15, 0.9)},
        lambda file: file.real(int(file.ops[-1].Inputs(2)))[-2, 2] == pytest.approx(0.9 * 3**0.5, abs=0.01),
    ),
    "anchor shift": (
        {"anchor_shift": 0.05},
        lambda file: file.real(int(file.ops[-1].Inputs(2)))[0, 0] == pytest.approx(0.5 / 6 + 0.05, abs=0.01),
    ),
}


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    return File(write_ssd(tmp_path_factory.mktemp("plain") / "m.tflite").path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_well_formed(tmp_path, plain_file, kind, fault):
    changes, holds = FAULTS[fault]
    assert not holds(plain_file)
    written = write_ssd(tmp_path / "m.tflite", kind=kind, **changes)
    if kind != "float16":
        assert holds(File(written.path))
    picture = make_pictures(1, written.input_size, seed=5)
    outputs = run(written, picture)
    assert all(np.isfinite(values).all() for values in outputs)
    if fault in ("relu", "inverted residuals"):
        # Without the 6, other activations result; LiteRT's must still be ours.
        raw = write_ssd(tmp_path / "raw.tflite", kind=kind, postprocess=False, **changes)
        agree(run(raw, picture)[0], raw.raw_outputs(picture)[0], kind)


@pytest.mark.parametrize("write", [write_ssd, write_classifier])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_range_that_ends_elsewhere_clips_there(tmp_path, kind, write):
    written = write(tmp_path / "m.tflite", kind=kind, range_end=4.2)
    file = File(written.path)
    convs = [op for op in file.ops if "CONV_2D" in file.kind(op)]
    scale, zero, _ = file.scale(int(convs[10].Outputs(0)))
    assert file.options(convs[10])[0] == tflite.ActivationFunctionType.NONE
    low, high = (0, 255) if kind == "uint8" else (-128, 127)
    assert ((low - zero[0]) * scale[0], (high - zero[0]) * scale[0]) == pytest.approx((0, 4.2))
    picture = make_pictures(1, written.input_size, seed=5)
    assert written.activations(picture)["conv5_pointwise"].max() == pytest.approx(4.2)
    assert written.activations(picture)["conv5_depthwise"].max() > 5.5
    run(written, picture)


@pytest.mark.parametrize("write", [write_ssd, write_classifier])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_foreign_files_are_refused_by_litert(tmp_path, kind, write):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT isn't installed")
    whole = write(tmp_path / "whole.tflite", kind=kind).path.read_bytes()
    cut = write(tmp_path / "cut.tflite", kind=kind, damage="truncated").path
    assert whole.startswith(cut.read_bytes())
    assert cut.read_bytes()[4:8] == b"TFL3"
    text = write(tmp_path / "text.tflite", kind=kind, damage="text").path
    for path in (cut, text):
        with pytest.raises(ValueError, match="Flatbuffer"):
            litert.Interpreter(str(path))
    places = ("input", "side") if write is write_classifier else ("input", "side", "boxes")
    for place in places:
        odd = write(tmp_path / f"{place}.tflite", kind=kind, unknown_op=place)
        assert Counter(File(odd.path).kinds)[UNKNOWN] == 1
        with pytest.raises((ValueError, RuntimeError), match=UNKNOWN):
            litert.Interpreter(str(odd.path)).allocate_tensors()


@pytest.mark.parametrize("write", [write_ssd, write_classifier])
def test_labels_are_packed_behind_the_graph(tmp_path, write):
    plain = write(tmp_path / "plain.tflite")
    assert not zipfile.is_zipfile(plain.path)
    written = write(tmp_path / "m.tflite", labels=("cat", "großer hund", "???"))
    with zipfile.ZipFile(written.path) as archive:
        assert archive.read("labelmap.txt").decode() == "cat\ngroßer hund\n???\n"
    model = File(written.path).model
    assert model.Metadata(0).Name() == b"TFLITE_METADATA"
    packed = model.Buffers(model.Metadata(0).Buffer()).DataAsNumpy().tobytes()
    assert packed[4:8] == b"M001"
    assert b"labelmap.txt" in packed
    picture = make_pictures(1, written.input_size, seed=5)
    assert np.array_equal(run(written, picture)[0], run(plain, picture)[0])


@pytest.mark.parametrize(
    ("write", "changes", "error"),
    [
        (write_ssd, {"sofmax": True}, TypeError),
        (write_classifier, {"postprocess": False}, TypeError),
        (write_ssd, {"range_end": 4.0}, ValueError),
        (write_classifier, {"input_type": "uint8"}, ValueError),
    ],
)
def test_faults_that_make_no_sense_are_refused(tmp_path, write, changes, error):
    with pytest.raises(error):
        write(tmp_path / "m.tflite", **changes)
    assert not (tmp_path / "m.tflite").exists()
