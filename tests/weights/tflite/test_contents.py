"""What files say about themselves, as metadata tools write it."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from foreign_tflite import with_packed, write_foreign
from tflite_builder import GraphBuilder

from mobiledet.errors import CheckpointError
from mobiledet.weights.tflite.contents import CARD_FILE, MAX_TEXT, Normalisation, check_graph, read_contents


def plain():
    graph = GraphBuilder("")
    graph.tensor("x", (1,), "FLOAT32")
    return graph.finish([0], [0])


def test_a_file_that_says_nothing():
    assert read_contents(plain()) == (None, Normalisation((127.5,) * 3, (127.5,) * 3), None, {})


def test_normalisation_and_the_settings_of_the_last_operation(tmp_path):
    about = read_contents(write_foreign(tmp_path / "m.tflite", mean_std=(12.0, 34.0)).read_bytes())
    assert about.normalisation == ((12.0,) * 3, (34.0,) * 3)
    assert (about.postprocess["num_classes"], about.postprocess["x_scale"]) == (2, 10.0)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_normalisation_that_cant_be(tmp_path, std):
    with pytest.raises(CheckpointError, match="damaged"):
        read_contents(write_foreign(tmp_path / "m.tflite", mean_std=(0.0, std)).read_bytes())


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"de.txt": ("de", ["Hund"]), "labels.txt": ("", ["dog"]), "en.txt": ("en", ["doggy"])}, ("dog",)),
        ({"de.txt": ("de", ["Hund"]), "en.txt": ("en-US", ["dog"])}, ("dog",)),
        ({"fr.txt": ("fr", ["chien"]), "de.txt": ("de", ["Hund"])}, ("chien",)),
        ({"names": ("", ["0: cat", "1: dog"])}, {1: "cat", 2: "dog"}),
    ],
)
def test_the_file_of_names_among_several(tmp_path, files, names):
    content = write_foreign(tmp_path / "m.tflite", label_files=files).read_bytes()
    assert read_contents(with_packed(content, {"licence.txt": "Apache"})).labels == names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"labelmap.txt": "cat\ndog\n"}, ("cat", "dog")),
        ({"labels.txt": "a\n", "licence.txt": "b\n"}, None),
        ({"labels.txt": "\n"}, None),
        ({"vocabulary.json": "[]"}, None),
    ],
)
def test_without_metadata_the_only_text(files, names):
    assert read_contents(with_packed(plain(), files)).labels == names


def test_our_card(tmp_path):
    assert read_contents(with_packed(plain(), {CARD_FILE: '{"a": 1}'})).card == '{"a": 1}'


def test_texts_that_unpack_to_more_than_names_are_refused(tmp_path):
    packed = with_packed(plain(), {"labels.txt": "x" * (MAX_TEXT + 1)})
    with pytest.raises(CheckpointError, match=f"more than {MAX_TEXT:,} bytes"):
        read_contents(packed)


def test_damage_anywhere_is_one_error(tmp_path):
    """Each byte of the part that is read, once with other bits, and the file cut anywhere."""
    files = {"labels.txt": ("", ["cat", "dog"])}
    content = write_foreign(tmp_path / "m.tflite", label_files=files).read_bytes()
    damaged = [content[:at] for at in range(8, len(content), 37)]
    damaged += [
        content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
        for at in range(0, len(content), 3)
        for bits in (0x80, 0xFF)
    ]
    refused = []
    for data in damaged:
        with contextlib.suppress(CheckpointError):
            read_contents(data)
            continue
        refused.append(data)
    assert len(refused) > 100


SCHEMA = "ai_edge_litert.schema_py_generated"


def edited(path: Path, change) -> bytes:
    """A detector's file after ``change(graph, options)``; the options are those of its last operation."""
    schema = pytest.importorskip(SCHEMA, reason="ai-edge-litert isn't installed")
    import flatbuffers
    from flatbuffers import flexbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_foreign(path).read_bytes(), 0))
    (graph,) = model.subgraphs
    options = flexbuffers.Loads(bytes(graph.operators[-1].customOptions))
    change(graph, options)
    written = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8) if options else None
    graph.operators[-1].customOptions = written
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def set_option(**values):
    return lambda graph, options: options.update(values)


def set_tensor(index, **values):
    return lambda graph, options: vars(graph.tensors[index]).update(values)


def set_steps(index, scale, zero_point, **values):
    def change(graph, options):
        tensor = graph.tensors[index]
        vars(tensor).update(values)
        tensor.quantization = tensor.quantization or pytest.importorskip(SCHEMA).QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = scale, zero_point

    return change


def set_op(index, **values):
    return lambda graph, options: vars(graph.operators[index]).update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda graph, options: options.clear(),
        lambda graph, options: options.pop("max_detections"),
        *(set_option(max_detections=value) for value in (-1, 0, 2**31 - 1, "x", 1e30)),
        *(set_option(num_classes=value) for value in (-1, True)),
        *(set_option(y_scale=value) for value in (float("nan"), "x")),
        set_tensor(0, shape=[1, -1, 3, 3]),
        set_tensor(0, shape=[1, 2**15, 2**15, 3]),
        set_tensor(0, buffer=10**6),
        *(set_steps(0, [scale], [0]) for scale in (0.0, -1.0, float("nan"), float("inf"))),
        set_steps(0, [1.0], [10**9], type=9),
        set_tensor(3, buffer=0),  # the anchors
        set_op(0, inputs=[-1, 1]),
        set_op(0, inputs=[10**6, 1]),
        set_op(-1, inputs=[5, 2, 3]),  # a result of its own
        set_op(0, outputs=[10**6]),
        set_op(0, outputs=[3]),  # a constant
        set_op(-1, outputs=[5, 6, 7, 7]),
        lambda graph, options: vars(graph).update(outputs=[-1]),
        set_op(0, opcodeIndex=10**6),
        lambda graph, options: graph.operators.reverse(),
    ],
)
def test_what_would_end_the_process_is_refused_before_it_is_run(tmp_path, change):
    check_graph(edited(tmp_path / "whole.tflite", lambda *_: None))
    content = edited(tmp_path / "m.tflite", change)
    with pytest.raises(CheckpointError, match="damaged"):
        check_graph(content)


@pytest.mark.parametrize(
    ("kind", "inputs", "sound"),
    [
        *(("CONV_2D", inputs, True) for inputs in ([0, 1, 2], [0, 1, -1], [0, 1])),
        *(("CONV_2D", inputs, False) for inputs in ([0], [0, -1, 2], [-1, 1, 2])),
        *(("DEPTHWISE_CONV_2D", inputs, inputs == [0, 1, 2]) for inputs in ([0, 1, 2], [0, 1], [0, -1, 2])),
    ],
)
def test_convolutions_need_an_image_and_weights(kind, inputs, sound):
    tflite_file = pytest.importorskip("mobiledet.exporters.tflite_file", reason="ai-edge-litert isn't installed")
    builder = tflite_file.FileBuilder()
    for name, shape in (("image", (1, 4, 4, 3)), ("weights", (3, 1, 1, 3)), ("bias", (3,)), ("out", (1, 4, 4, 3))):
        values = np.ones(shape, np.float32) if name in ("weights", "bias") else None
        builder.tensor(name, shape, "FLOAT32", None, values)
    builder.op(kind, inputs, [3], options={"strideH": 1, "strideW": 1})
    content = builder.finish([0], [3], {})
    with contextlib.nullcontext() if sound else pytest.raises(CheckpointError, match="operation 0 lacks an input"):
        check_graph(content)
