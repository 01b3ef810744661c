"""What a TensorFlow Lite file says about itself: class names, how pixels are normalised, how its detector ends.

Read without the ``tflite`` package, so that running a detector needs nothing but a runtime.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from mobiledet.errors import CheckpointError
from mobiledet.utils.encodings import text_of
from mobiledet.weights.class_lists import ClassList, parse_class_list

POSTPROCESS = "TFLite_Detection_PostProcess"
"""The operation that ends a detector: decoding and suppression."""

BOX_SCALES = {"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0}
"""The Object Detection API's box coder, and ours."""

CARD_FILE = "mobiledet.json"
"""Our own model card, in the archive behind the flatbuffer where TensorFlow Lite's metadata has its files."""

MAX_TEXT = 1 << 20
"""Bytes of a packed list of class names, or of a card."""

_LABEL_FILES = (2, 3)
"""Kinds of associated files that name classes: TENSOR_AXIS_LABELS and TENSOR_VALUE_LABELS."""

_NORMALISATION_OPTIONS = 1
"""The kind of process unit that normalises."""

MAX_VALUES, MAX_DETECTIONS = 1 << 28, 100_000
"""Of one tensor, and of one image; more would be reserved before anything is run."""

_STORED = {3: (0, 255), 9: (-128, 127)}
"""What UINT8 and INT8 hold."""

_LEAST_INPUTS = {3: 2, 4: 3}
"""Of CONV_2D and DEPTHWISE_CONV_2D."""


class Normalisation(NamedTuple):
    """``(pixel - mean) / std`` of pixels 0..255, with a value for each colour."""

    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)


class FileContents(NamedTuple):
    """What a file says about itself.

    Attributes:
        labels: Names of the classes, from a packed file.
        normalisation: What a float network wants done to pixels; the Object Detection API's where nothing is said.
        card: Our model card, as JSON; None in other people's files.
        postprocess: Settings of ``TFLite_Detection_PostProcess``, such as ``num_classes``; empty without it.
    """

    labels: ClassList | None
    normalisation: Normalisation
    card: str | None
    postprocess: dict[str, Any]


class _Table:
    """A flatbuffer table, its fields named by their place in the schema; one that is left out is 0, empty or None."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self._data = data
        self._at = self._number("I", 0) if at is None else at
        self._fields = self._at - self._number("i", self._at)

    def _number(self, kind: str, at: int) -> int:
        if at < 0:
            raise struct.error("an offset before the beginning")
        return int(struct.unpack_from(f"<{kind}", self._data, at)[0])

    def _place(self, field: int) -> int:
        """Where a field lies; 0 for one that is left out."""
        entry = 4 + 2 * field
        offset = self._number("H", self._fields + entry) if entry < self._number("H", self._fields) else 0
        return self._at + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return self._number(kind, place) if place else 0

    def values(self, field: int, kind: str) -> tuple[Any, ...]:
        """The numbers of a vector."""
        if not (place := self._place(field)):
            return ()
        place += self._number("I", place)
        return struct.unpack_from(f"<{self._number('I', place)}{kind}", self._data, place + 4)

    def content(self, field: int) -> bytes:
        """A string, or a vector of bytes."""
        (found,) = self.values(field, "s") or (b"",)
        return bytes(found)

    def text(self, field: int) -> str:
        return self.content(field).decode("utf-8", "replace")

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._data, place + self._number("I", place)) if place else None

    def tables(self, field: int) -> list[_Table]:
        steps = self.values(field, "I")
        start = self._place(field)
        start += self._number("I", start) + 4 if steps else 0
        return [_Table(self._data, start + 4 * index + step) for index, step in enumerate(steps)]


def read_contents(data: bytes) -> FileContents:
    """What a file with these bytes says about itself.

    Raises:
        CheckpointError: It is damaged.
    """
    with _one_error(data):
        model = _Table(data)
        normalisation, label_files = _read_metadata(model)
        labels, card = _read_packed(data, label_files)
        return FileContents(labels, normalisation, card, _read_postprocess(model))


def check_graph(data: bytes) -> None:
    """Refuse a file that LiteRT doesn't look at closely before it uses it, which ends the process.

    Fields are numbered as in TensorFlow Lite's schema.fbs, version 3.

    Raises:
        CheckpointError: It is damaged.
    """
    with _one_error(data):
        _check_graph(_Table(data))


@contextlib.contextmanager
def _one_error(data: bytes) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # offsets in a damaged file lead anywhere: struct.error, IndexError, OverflowError, ...
        raise CheckpointError(
            f"a damaged TensorFlow Lite file ({len(data):,} bytes; {type(error).__name__}); copy it again"
        ) from None


def _check_graph(model: _Table) -> None:
    codes, buffers = model.tables(1), model.tables(4)
    graph = model.tables(2)[0]
    tensors = graph.tables(0)
    known = set(graph.values(1, "i"))
    for index, tensor in enumerate(tensors):
        shape = tensor.values(0, "i")
        if min(shape, default=1) < 0 or math.prod(shape) > MAX_VALUES:
            raise _damaged(f"tensor {index} has the shape {shape}")
        quantised = tensor.table(4)
        scales, zeros = (quantised.values(2, "f"), quantised.values(3, "q")) if quantised else ((), ())
        low, high = _STORED.get(tensor.number(1, "b"), (-math.inf, math.inf))
        # A channel of zeros has no scale of its own; a whole tensor needs one.
        if (len(scales) == 1 and not 0 < scales[0] < math.inf) or not all(low <= zero <= high for zero in zeros):
            raise _damaged(f"tensor {index} is stored in steps of {scales[:1]} from {zeros[:1]}")
        buffer = buffers[tensor.number(2, "I")]
        if buffer.content(0) or buffer.number(2, "Q") or tensor.number(5, "B"):  # a constant, or a variable
            known.add(index)
    count = len(known)
    for index, op in enumerate(graph.tables(3)):
        code = codes[op.number(0, "I")]
        kind, inputs, outputs = max(code.number(0, "b"), code.number(3, "i")), op.values(1, "i"), op.values(2, "i")
        wanted = (*inputs[:2], *(tensor for tensor in inputs[2:] if tensor != -1))  # what follows may be left out
        if not known.issuperset(wanted) or len(inputs) < _LEAST_INPUTS.get(kind, 0):
            raise _damaged(f"operation {index} lacks an input")
        if not known.isdisjoint(outputs) or not all(0 <= tensor < len(tensors) for tensor in outputs):
            raise _damaged(f"operation {index} gives a tensor that something else gives, or that doesn't exist")
        if code.text(1) == POSTPROCESS:
            _check_options(_options(op))
        known.update(outputs)
        count += len(outputs)
    if len(known) < count or not known.issuperset(graph.values(2, "i")):
        raise _damaged("a tensor is given twice, or an output never")


def _check_options(options: dict[str, Any]) -> None:
    for key in ("max_detections", "max_classes_per_detection", "num_classes"):
        if type(options.get(key)) is not int or not 0 < options[key] <= MAX_DETECTIONS:
            raise _damaged(f"{key} is {options.get(key)!r:.40}")
    for key in (*BOX_SCALES, "nms_score_threshold", "nms_iou_threshold"):
        if type(options.get(key)) not in (int, float) or not math.isfinite(options[key]):
            raise _damaged(f"{key} is {options.get(key)!r:.40}")


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"a damaged TensorFlow Lite file: {what}; copy it again")


def _read_metadata(model: _Table) -> tuple[Normalisation, list[str]]:
    """How pixels are normalised, and the names of files with class names, the one to use first.

    Fields are numbered as in TensorFlow Lite Support's metadata_schema.fbs, 1.4.
    """
    normalisation, named = Normalisation(), []
    entries = [entry for entry in model.tables(6) if entry.text(0) == "TFLITE_METADATA"]
    graphs = _Table(model.tables(4)[entries[0].number(1, "I")].content(0)).tables(3) if entries else []
    for graph in graphs[:1]:
        for unit in [unit for image in graph.tables(2)[:1] for unit in image.tables(4)]:
            options = unit.table(1)
            if unit.number(0, "B") == _NORMALISATION_OPTIONS and options is not None:
                normalisation = _normalisation(options.values(0, "f"), options.values(1, "f"))
        for file in [file for output in graph.tables(3) for file in output.tables(6)]:
            if file.number(2, "b") in _LABEL_FILES:
                named.append((file.text(3), file.text(0)))
    # A file for each language: the one without a language is that of the class names, others are translations.
    named.sort(key=lambda pair: (pair[0] != "", not pair[0].startswith("en")))
    return normalisation, [name for _, name in named]


def _normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalisation:
    mean, std = (3 * part if len(part) == 1 else part for part in (mean, std))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError(f"normalisation by {mean} and {std}")
    return Normalisation(mean, std)


def _read_postprocess(model: _Table) -> dict[str, Any]:
    codes = [code.text(1) for code in model.tables(1)]
    ends = (op for op in model.tables(2)[0].tables(3) if codes[op.number(0, "I")] == POSTPROCESS)
    return next(map(_options, ends), {})


def _options(op: _Table) -> dict[str, Any]:
    """The options of a custom operation."""
    from flatbuffers import flexbuffers

    options = flexbuffers.Loads(op.content(5))
    if not isinstance(options, dict):
        raise _damaged(f"options of {POSTPROCESS} that aren't a map")
    return options


def _read_packed(data: bytes, label_files: list[str]) -> tuple[ClassList | None, str | None]:
    """The class names and the card in the archive that metadata tools append to the flatbuffer."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return None, None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        texts = [name for name in names if name.endswith(".txt")]
        label_files = [name for name in label_files if name in names] or (texts if len(texts) == 1 else [])
        labels = parse_class_list(_unpack(archive, label_files[0])) if label_files else None
        return labels or None, _unpack(archive, CARD_FILE) if CARD_FILE in names else None


def _unpack(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise CheckpointError(f"{name} inside unpacks to more than {MAX_TEXT:,} bytes")
    return text_of(content)
