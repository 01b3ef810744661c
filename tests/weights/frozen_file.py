"""A small file as TensorFlow freezes its reference MobileNetV1, written field by field."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mobiledet.config import BackboneConfig
from mobiledet.models.mobilenet_v1 import TABLE_1, MobileNetV1Classifier

FROZEN_NAMES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        out.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape(sides: Iterable[int]) -> bytes:
    return b"".join(field(2, field(1, side)) for side in sides)


def node(name: str, kind: str, inputs: Iterable[str] = (), **attributes: bytes) -> bytes:
    parts = [field(1, name), field(2, kind), *(field(3, one) for one in inputs)]
    parts += [field(5, field(1, key) + field(2, value)) for key, value in attributes.items()]
    return field(1, b"".join(parts))


def const(name: str, values: np.ndarray | float) -> bytes:
    """As TensorFlow writes it: an array as bytes, a single number as a number."""
    values = np.asarray(values, "<f4")
    tensor = field(1, 1) + field(2, shape(values.shape))
    tensor += field(4, values.tobytes()) if values.ndim else field(5, values.tobytes())
    return node(name, "Const", dtype=field(6, 1), value=field(8, tensor))


def variable(name: str, values: np.ndarray) -> bytes:
    return const(name, values) + node(f"{name}/read", "Identity", [name])


def make_classifier(alpha: float = 0.25, classes: int = 5) -> MobileNetV1Classifier:
    """A network whose batch-norm layers hold something."""
    torch.manual_seed(0)
    backbone = BackboneConfig(alpha=alpha, padding="tensorflow").build_part()
    model = MobileNetV1Classifier(backbone=backbone, num_classes=classes).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def frozen_graph(
    model: MobileNetV1Classifier,
    *,
    fused: bool = False,
    features: bool = False,
    size: tuple[int, int] = (64, 96),
    epsilon: float = 1e-3,
    strides: tuple[int, ...] = tuple(stride for _, stride, _ in TABLE_1),
) -> bytes:
    """The file's content: norms in one operation or, as in older files, in several; with logits or without."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    parts = [node("input", "Placeholder", shape=field(7, shape((-1, *size, 3))))]
    before = "input"
    for index, (kind, _, _) in enumerate(TABLE_1):
        for part in ("",) if kind == "conv" else ("depthwise", "pointwise"):
            theirs = f"Conv2d_{index}" + (part and f"_{part}")
            ours = f"backbone.layers.conv{index}" + (part and f".{part}")
            weight = state[f"{ours}.conv.weight"].transpose(2, 3, *((0, 1) if part == "depthwise" else (1, 0)))
            name = f"MobilenetV1/{theirs}/{'depthwise_weights' if part == 'depthwise' else 'weights'}"
            scope = f"MobilenetV1/MobilenetV1/{theirs}"
            step = 1 if part == "pointwise" else strides[index]
            packed = field(1, field(3, b"".join(map(varint, (1, step, step, 1)))))
            parts.append(variable(name, weight))
            parts.append(
                node(
                    f"{scope}/convolution",
                    "DepthwiseConv2dNative" if part == "depthwise" else "Conv2D",
                    [before, f"{name}/read"],
                    strides=packed,
                    padding=field(2, "SAME"),
                )
            )
            for our_name, their_name in FROZEN_NAMES.items():
                parts.append(variable(f"MobilenetV1/{theirs}/BatchNorm/{their_name}", state[f"{ours}.norm.{our_name}"]))
            if fused:
                number = varint(4 << 3 | 5) + np.float32(epsilon).tobytes()
                parts.append(node(f"{scope}/BatchNorm/FusedBatchNorm", "FusedBatchNorm", epsilon=number))
            else:
                parts.append(const(f"{scope}/BatchNorm/batchnorm/add/y", epsilon))
            before = f"{scope}/Relu6"
            parts.append(node(before, "Relu6", [f"{scope}/BatchNorm/batchnorm/add_1"]))
    if not features:
        logits = "MobilenetV1/Logits/Conv2d_1c_1x1"
        parts.append(variable(f"{logits}/weights", state["classifier.weight"].T[None, None]))
        parts.append(variable(f"{logits}/biases", state["classifier.bias"]))
    return b"".join(parts)


def write_frozen(path: Path, **options: object) -> MobileNetV1Classifier:
    """Write such a file; what it must compute is returned."""
    model = make_classifier()
    path.write_bytes(frozen_graph(model, **options))
    return model
