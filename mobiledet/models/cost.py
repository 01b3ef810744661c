"""What a network costs: multiply-adds and parameters, layer by layer."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.mobilenet_v1 import MobileNetV1, MobileNetV1Classifier
from mobiledet.structures import Size


@dataclass(frozen=True)
class LayerCost:
    """One layer.

    Attributes:
        name: Dotted path inside the network.
        kind: Such as ``"conv 3x3 dw"`` or ``"linear"``.
        output: Shape of its output, without the batch.
        mult_adds: Multiply-adds of one image, all runs together: convolutions and linear layers, as the paper counts.
        params: Weights and biases, the batch-norm behind a convolution included.
        runs: How often it runs for one image; Faster R-CNN's second stage, once per proposal.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    mult_adds: int
    params: int
    runs: int = 1


@dataclass(frozen=True)
class Cost:
    """A whole network.

    Attributes:
        input_size: ``(height, width)`` it was counted at.
        layers: In the order they run.
    """

    input_size: Size
    layers: list[LayerCost] = field(default_factory=list)

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds of one image."""
        return sum(layer.mult_adds for layer in self.layers) / 1e9

    @property
    def params_m(self) -> float:
        """Millions of parameters."""
        return sum(layer.params for layer in self.layers) / 1e6

    def to_json_dict(self) -> dict[str, Any]:
        """Plain data: input size, ``gmacs``, ``params_m`` and the layers."""
        return {
            "input_size": list(self.input_size),
            "gmacs": round(self.gmacs, 6),
            "params_m": round(self.params_m, 6),
            "layers": [{**asdict(layer), "output": list(layer.output)} for layer in self.layers],
        }


def detector_cost(model: DetectionModel) -> Cost:
    """Cost of a detector at its own input size, on one image."""
    size = model.network_size
    try:
        with torch.device("meta"):  # shapes without values: nothing is computed, whatever the network costs
            shapes = copy.deepcopy(model).to("meta")
            return Cost(size, count_layers(shapes, shapes.candidates, size))
    except RuntimeError:  # a head that looks at values has to be run
        return Cost(size, count_layers(model, model.candidates, size))


def classifier_cost(alpha: float, size: int, num_classes: int = 1000) -> Cost:
    """Cost of the paper's classifier at width ``alpha`` on ``size`` x ``size`` images."""
    with torch.device("meta"):
        model = MobileNetV1Classifier(backbone=MobileNetV1(alpha=alpha), num_classes=num_classes)
    return Cost((size, size), count_layers(model, model, (size, size)))


def count_layers(model: nn.Module, call: Callable[[Tensor], Any], size: Size, *, channels: int = 3) -> list[LayerCost]:
    """Run one image of zeros ``(1, channels, *size)`` through ``call`` and note every layer that multiplies."""
    norms = _norm_params(model)
    layers: list[LayerCost] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        # Each output value costs one multiply-add per weight of its own filter.
        mult_adds = output.numel() * math.prod(weight.shape[1:])
        params = sum(p.numel() for p in module.parameters()) + norms.get(module, 0)
        shape, runs = tuple(output.shape[1:]), output.shape[0]
        layers.append(LayerCost(names[module], _kind(module), shape, mult_adds, params, runs))

    handles = [
        module.register_forward_hook(note) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            call(torch.zeros(1, channels, *size, device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return layers


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        depthwise = " dw" if module.groups > 1 else ""
        return f"conv {module.kernel_size[0]}x{module.kernel_size[1]}{depthwise}"
    return "linear"


def _norm_params(model: nn.Module) -> dict[nn.Module, int]:
    """Parameters of the batch-norm that follows each convolution inside a block."""
    found: dict[nn.Module, int] = {}
    for block in model.modules():
        children = list(block.children())
        for layer, following in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                found[layer] = sum(p.numel() for p in following.parameters())
    return found
