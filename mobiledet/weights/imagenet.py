"""ImageNet MobileNetV1: TensorFlow Lite classifiers and timm's safetensors, as backbones with weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mobiledet.config import BackboneConfig
from mobiledet.errors import CheckpointError, MissingDependencyError, install_extra
from mobiledet.models.mobilenet_v1 import LAYERS, TABLE_1, MobileNetV1, MobileNetV1Classifier, scale_channels
from mobiledet.weights.tflite.graph import TFLiteGraph
from mobiledet.weights.tflite.mobilenet import find_backbone, find_classifier, folded_state

KIND = "backbone"
"""Marks a checkpoint of a backbone without a detection head."""

TIMM_NORM_EPSILON = 1e-5
TIMM_BLOCKS = (1, 2, 2, 6, 2)
"""timm counts MobileNetV1's separable layers by stage: ``blocks.<stage>.<place>``."""


@dataclass(frozen=True)
class ImageNetBackbone:
    """A backbone's weights and how its images are prepared.

    Attributes:
        config: Width, padding, batch-norm settings.
        input_size: ``(height, width)`` it was trained at.
        mean: Of RGB pixels 0..255, and
        std: their divisor.
        state: Weights, named as in :class:`MobileNetV1`.
        classifier: ``weight`` ``(classes, channels)`` and ``bias`` ``(classes,)``, if there are any.
        folded: Whether batch-norm was folded into the weights.
    """

    config: BackboneConfig
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    state: Mapping[str, Tensor]
    classifier: Mapping[str, Tensor] | None
    folded: bool

    def payload(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as plain data."""
        return {
            "kind": KIND,
            "backbone": self.config.model_dump(mode="json"),
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "model": dict(self.state),
            "classifier": dict(self.classifier) if self.classifier is not None else None,
            "folded": self.folded,
        }

    @classmethod
    def from_payload(cls, content: Mapping[str, Any]) -> ImageNetBackbone:
        """Undo :meth:`payload`."""
        return cls(
            config=BackboneConfig.model_validate(content["backbone"]),
            input_size=tuple(content["input_size"]),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            state=content["model"],
            classifier=content["classifier"],
            folded=content["folded"],
        )

    def build_classifier(self) -> MobileNetV1Classifier:
        """The whole network of Table 1 in evaluation mode; takes ``(pixels - mean) / std``.

        Raises:
            CheckpointError: The file had the features only.
        """
        if self.classifier is None:
            raise CheckpointError("these weights have no classifier, only features")
        network = MobileNetV1Classifier(backbone=self.build(), num_classes=len(self.classifier["bias"]))
        network.classifier.load_state_dict(dict(self.classifier))
        return network.eval()

    def build(self) -> MobileNetV1:
        """The backbone alone, in evaluation mode."""
        backbone = self.config.build_part()
        backbone.load_state_dict(dict(self.state))
        return backbone.eval()


def import_classifier(graph: TFLiteGraph) -> ImageNetBackbone:
    """A MobileNetV1 classifier, or its features, from a .tflite file.

    Raises:
        CheckpointError: It is another network.
    """
    found = find_backbone(graph)
    state: dict[str, Tensor] = {}
    for name, layer in found.layers.items():
        state |= folded_state(name, layer, found.config.norm_epsilon)
    return ImageNetBackbone(
        config=found.config,
        input_size=found.input_size,
        mean=found.normalisation.mean,
        std=found.normalisation.std,
        state=state,
        classifier=find_classifier(graph, found.output(LAYERS[-1])),
        folded=True,
    )


def import_timm(path: Path) -> ImageNetBackbone:
    """The weights of timm's ``mobilenetv1_*`` from a safetensors file: symmetric padding, images in -1..1.

    Raises:
        CheckpointError: It isn't such a file.
        MissingDependencyError: The ``safetensors`` package isn't installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MissingDependencyError(
            f"reading timm's weights needs the package safetensors: {install_extra('train')}"
        ) from None
    try:
        tensors = load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error}); copy it again") from None
    odd = next((name for name in tensors if _timm_name(name) is None), "no stem or no last layer")
    state = {ours: tensor.clone() for name, tensor in tensors.items() if (ours := _timm_name(name)) is not None}
    stem = state.get("layers.conv0.conv.weight")
    last = state.get(f"layers.{LAYERS[-1]}.pointwise.conv.weight")
    if stem is None or last is None or len(state) < len(tensors):
        raise CheckpointError(f"{path}: not timm's MobileNetV1: {odd}")
    classifier = {part: state.pop(f"classifier.{part}") for part in ("weight", "bias") if f"classifier.{part}" in state}
    alpha = round(len(last) / TABLE_1[-1][2], 4)
    config = BackboneConfig(alpha=alpha, padding="symmetric", norm_epsilon=TIMM_NORM_EPSILON)
    if len(stem) != scale_channels(TABLE_1[0][2], alpha):
        raise CheckpointError(f"{path}: not a MobileNetV1 of Table 1: {len(stem)} and {len(last)} channels")
    found = ImageNetBackbone(
        config=config,
        input_size=(224, 224),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        state=state,
        classifier=classifier or None,
        folded=False,
    )
    try:
        found.build()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not timm's MobileNetV1: {str(error).splitlines()[-1].strip()}") from None
    return found


def _timm_name(name: str) -> str | None:
    """Our name of one of timm's tensors; None for one that MobileNetV1 doesn't have."""
    if name.startswith("classifier."):
        return name
    stem = re.fullmatch(r"(conv_stem|bn1)\.(\w+)", name)
    if stem:
        return f"layers.conv0.{'conv' if stem[1] == 'conv_stem' else 'norm'}.{stem[2]}"
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(conv_dw|bn1|conv_pw|bn2)\.(\w+)", name)
    if not block or int(block[1]) >= len(TIMM_BLOCKS) or int(block[2]) >= TIMM_BLOCKS[int(block[1])]:
        return None
    index = 1 + sum(TIMM_BLOCKS[: int(block[1])]) + int(block[2])
    part = {"conv_dw": "depthwise.conv", "bn1": "depthwise.norm", "conv_pw": "pointwise.conv", "bn2": "pointwise.norm"}
    return f"layers.conv{index}.{part[block[3]]}.{block[4]}"
