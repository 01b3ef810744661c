"""TensorFlow's frozen graphs (.pb): operations, attributes and constants of a GraphDef, read without TensorFlow.

The message types come only with TensorFlow itself, and ``cv2.dnn`` doesn't hand out all that it reads (batch-norm's
epsilon, padding), so the few fields needed are taken from protobuf's wire format
(https://protobuf.dev/programming-guides/encoding; numbers of fields from TensorFlow's graph.proto, node_def.proto,
attr_value.proto, tensor.proto and tensor_shape.proto). Nothing is allocated that the file doesn't hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobiledet.errors import CheckpointError

_FIXED_BYTES = {1: 8, 5: 4}
_FLOAT32 = 1
"""``DT_FLOAT`` of TensorFlow's types."""

Message: TypeAlias = memoryview
"""An undecoded message, string or row of numbers."""


@dataclass(frozen=True)
class GraphNode:
    """An operation.

    Attributes:
        kind: Such as ``"Conv2D"``.
        inputs: Names of the operations whose results it takes.
        attributes: By name, undecoded: each function below reads one type of them.
    """

    kind: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Message]

    def text(self, name: str) -> str:
        """A string, such as ``padding``; empty where there is none."""
        return _text(self._value(name, 2, Message(b"")))

    def number(self, name: str) -> float | None:
        """A float, such as ``epsilon``; None where there is none."""
        stored = self._value(name, 4, None)
        return None if stored is None else float(np.frombuffer(stored, "<f4")[0])

    def integers(self, name: str) -> list[int]:
        """A list of integers, such as ``strides``."""
        return _integers(self._value(name, 1, Message(b"")), 3)

    def shape(self, name: str) -> list[int]:
        """Dimensions, -1 where unknown."""
        return _shape(self._value(name, 7, Message(b"")))

    def constant(self) -> NDArray[np.float32] | None:
        """The values of a ``Const`` of type float32; None of another operation or type.

        Raises:
            CheckpointError: Not as many numbers as its shape has places.
        """
        tensor = self._value("value", 8, None)
        if self.kind != "Const" or tensor is None:
            return None
        fields = dict(_fields(tensor))
        if fields.get(1) != _FLOAT32:
            return None
        shape = _shape(fields.get(2, Message(b"")))
        stored = fields[4].tobytes() if 4 in fields else b"".join(part for key, part in _fields(tensor) if key == 5)
        if min(shape, default=1) < 0 or len(stored) != 4 * math.prod(shape):
            raise CheckpointError(f"{len(stored)} bytes of float32 for a constant of shape {shape}")
        return np.frombuffer(stored, "<f4").reshape(shape).astype(np.float32)

    def _value(self, name: str, field: int, otherwise: Any) -> Any:
        """What one field of an attribute holds."""
        return dict(_fields(self.attributes.get(name, Message(b"")))).get(field, otherwise)


def read_frozen_graph(path: Path) -> dict[str, GraphNode]:
    """The operations of a ``.pb`` file by name, in the file's order.

    Raises:
        CheckpointError: It can't be read, is damaged, or isn't a frozen graph.
    """
    try:
        content = Message(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from None
    try:
        nodes = dict(_node(message) for field, message in _fields(content) if field == 1)
    except Exception as error:  # bytes of any other file can be anything
        why = str(error) if isinstance(error, CheckpointError) else type(error).__name__
        raise CheckpointError(f"{path}: not a frozen TensorFlow graph, or damaged ({why}); copy it again") from None
    if not nodes:
        raise CheckpointError(f"{path}: not a frozen TensorFlow graph: it holds no operations")
    return nodes


def _node(message: Message) -> tuple[str, GraphNode]:
    texts: dict[int, list[str]] = {1: [""], 2: [""], 3: []}
    attributes: dict[str, Message] = {}
    for field, value in _fields(message):
        if field in texts:
            texts[field].append(_text(value))
        elif field == 5:
            entry = dict(_fields(value))
            attributes[_text(entry[1])] = entry.get(2, Message(b""))
    return texts[1][-1], GraphNode(texts[2][-1], tuple(texts[3]), attributes)


def _fields(message: Message) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a message: an int, or the bytes of anything longer."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = _FIXED_BYTES.get(key & 7)
        if key & 7 == 2:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise CheckpointError("it ends early" if size is not None else f"a field of the unknown type {key & 7}")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: Message, at: int) -> tuple[int, int]:
    """The integer at a place, seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value - (1 << 64) if value >> 63 else value, at
    raise CheckpointError("it ends early")


def _text(message: Message) -> str:
    return message.tobytes().decode("utf-8", "replace")


def _integers(message: Message, field: int) -> list[int]:
    """Repeated integers, written one by one or packed."""
    found: list[int] = []
    for key, value in _fields(message):
        if key == field and isinstance(value, int):
            found.append(value)
        elif key == field:
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                found.append(number)
    return found


def _shape(message: Message) -> list[int]:
    return [dict(_fields(dimension)).get(1, 0) for key, dimension in _fields(message) if key == 2]
