"""ImageNet MobileNetV1: TensorFlow's classifiers (.tflite, .pb) and timm's safetensors, as backbones with weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobiledet.config import BackboneConfig
from mobiledet.errors import CheckpointError, MissingDependencyError, install_extra
from mobiledet.models.mobilenet_v1 import LAYERS, TABLE_1, MobileNetV1, MobileNetV1Classifier, scale_channels
from mobiledet.weights.frozen_graph import GraphNode, read_frozen_graph
from mobiledet.weights.tflite.graph import TFLiteGraph
from mobiledet.weights.tflite.mobilenet import (
    FoldedConv,
    find_backbone,
    find_classifier,
    folded_state,
    tensorflow_config,
)

KIND = "backbone"
"""Marks a checkpoint of a backbone without a detection head."""

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")

FROZEN_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
"""PyTorch's and TensorFlow's names of what a batch-norm layer holds."""

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

    def fold(self) -> ImageNetBackbone:
        """The same network with batch-norm folded into its convolutions, as in .tflite files."""
        if self.folded:
            return self
        state: dict[str, Tensor] = {}
        for name, weight in self.state.items():
            if name.endswith(".conv.weight"):
                prefix = name.removesuffix(".conv.weight")
                gamma, beta, mean, variance = (self.state[f"{prefix}.norm.{part}"] for part in FROZEN_NORM)
                scale = gamma / torch.sqrt(variance + self.config.norm_epsilon)
                layer = FoldedConv(weight * scale[:, None, None, None], beta - mean * scale, output=-1)
                state |= folded_state(prefix, layer, self.config.norm_epsilon)
        return replace(self, state=state, folded=True)

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


def import_frozen(path: Path) -> ImageNetBackbone:
    """A MobileNetV1 of TensorFlow's reference code, at any width, from a frozen graph with its batch-norm layers.

    Its variables are found by their names, which are those of the reference code (``MobilenetV1/Conv2d_0/weights``),
    and what is computed with them is checked. Images are in -1..1, as in that code.

    Raises:
        CheckpointError: It can't be read, is damaged, or is another network.
    """
    nodes = read_frozen_graph(path)
    try:
        return _frozen_backbone(nodes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # shapes and connections in a damaged file can be anything
        raise CheckpointError(
            f"{path}: a damaged TensorFlow graph, or another network ({type(error).__name__}); copy it again"
        ) from None


def _frozen_backbone(nodes: Mapping[str, GraphNode]) -> ImageNetBackbone:
    first = next((name for name in nodes if name.endswith("Conv2d_0/weights")), None)
    if first is None:
        raise CheckpointError(f"not a MobileNetV1: none of its {len(nodes)} operations is called Conv2d_0/weights")
    root = first.removesuffix("Conv2d_0/weights")
    convolutions = {_source(nodes, node.inputs[1]): name for name, node in nodes.items() if node.kind in _CONVOLUTIONS}
    state: dict[str, Tensor] = {}
    channels, epsilons = [], set()
    for index, (kind, stride, _) in enumerate(TABLE_1):
        for part in ("",) if kind == "conv" else ("depthwise", "pointwise"):
            ours = f"layers.conv{index}" + (part and f".{part}")
            theirs = f"{root}Conv2d_{index}" + (part and f"_{part}")
            depthwise = part == "depthwise"
            variable = f"{theirs}/{'depthwise_weights' if depthwise else 'weights'}"
            # (height, width, in, out), of depthwise ones (height, width, channels, 1).
            weight = _variable(nodes, variable).permute(*((2, 3) if depthwise else (3, 2)), 0, 1).contiguous()
            state[f"{ours}.conv.weight"] = weight
            state |= {f"{ours}.norm.{n}": _variable(nodes, f"{theirs}/BatchNorm/{t}") for n, t in FROZEN_NORM.items()}
            state[f"{ours}.norm.num_batches_tracked"] = torch.tensor(0)
            convolution = convolutions.get(variable, "")
            epsilons.add(_frozen_epsilon(nodes, convolution, 1 if part == "pointwise" else stride))
        channels.append(len(weight))
    if len(epsilons) > 1:
        raise CheckpointError(f"not a MobileNetV1: its batch-norm layers have the epsilons {sorted(epsilons)}")
    config = tensorflow_config(channels, f"{len(nodes)} operations")
    classifier = None
    logits = f"{root}Logits/Conv2d_1c_1x1/"
    if f"{logits}weights" in nodes:
        weight = _variable(nodes, f"{logits}weights")[0, 0].T.contiguous()
        classifier = {"weight": weight, "bias": _variable(nodes, f"{logits}biases")}
    shapes = [node.shape("shape") for node in nodes.values() if node.kind == "Placeholder"]
    side = next((shape[1:3] for shape in shapes if len(shape) == 4 and shape[3] == 3 and min(shape[1:3]) > 0), None)
    return _checked(
        ImageNetBackbone(
            config=config.model_copy(update={"norm_epsilon": epsilons.pop()}),
            input_size=(side[0], side[1]) if side else (224, 224),
            mean=(127.5,) * 3,
            std=(127.5,) * 3,
            state=state,
            classifier=classifier,
            folded=False,
        ),
        "MobileNetV1",
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
        return _checked(found, "timm's MobileNetV1")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _checked(found: ImageNetBackbone, network: str) -> ImageNetBackbone:
    """The same, whose weights fit its network and are numbers."""
    odd = next((name for name, tensor in found.state.items() if not tensor.isfinite().all()), None)
    if odd is not None:
        raise CheckpointError(f"not {network}, or damaged: {odd} holds infinite or undefined numbers; copy it again")
    try:
        found.build() if found.classifier is None else found.build_classifier()
    except RuntimeError as error:
        raise CheckpointError(f"not {network}: {str(error).splitlines()[-1].strip()}") from None
    return found


def _source(nodes: Mapping[str, GraphNode], name: str) -> str:
    """The operation that an input comes from, behind the ``Identity`` by which a frozen variable is read."""
    node = nodes.get(name)
    return node.inputs[0] if node is not None and node.kind == "Identity" and node.inputs else name


def _variable(nodes: Mapping[str, GraphNode], name: str) -> Tensor:
    values = nodes[name].constant() if name in nodes else None
    if values is None:
        kind = nodes[name].kind if name in nodes else "nothing"
        raise CheckpointError(f"not a frozen MobileNetV1 with its batch-norm layers: {name} is {kind}, not a constant")
    return torch.from_numpy(values)


def _frozen_epsilon(nodes: Mapping[str, GraphNode], convolution: str, stride: int) -> float:
    """The epsilon of the batch-norm behind a convolution, which must be MobileNetV1's."""
    node, scope = nodes.get(convolution), convolution.rpartition("/")[0]
    if node is None or node.text("padding") != "SAME" or node.integers("strides") != [1, stride, stride, 1]:
        raise CheckpointError(
            f"not a MobileNetV1: {convolution or 'a layer'} isn't a SAME convolution of stride {stride}"
        )
    if f"{scope}/Relu6" not in nodes:
        raise CheckpointError(f"not a MobileNetV1: there is no {scope}/Relu6")
    fused = [node for name, node in nodes.items() if name.startswith(f"{scope}/BatchNorm/FusedBatchNorm")]
    epsilon = fused[0].number("epsilon") if fused else float(_variable(nodes, f"{scope}/BatchNorm/batchnorm/add/y"))
    if epsilon is None or not 0 < epsilon < 1:
        raise CheckpointError(f"the epsilon of {scope}/BatchNorm is {epsilon}")
    return float(f"{epsilon:.6g}")  # 0.001 is stored as 0.0010000000474974513


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
