"""What a network costs: multiply-adds and parameters, layer by layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mobiledet.models.detector import Detector
from mobiledet.models.mobilenet_v1 import MobileNetV1, MobileNetV1Classifier
from mobiledet.structures import Size


@dataclass(frozen=True)
class LayerCost:
    """One layer.

    Attributes:
        name: Dotted path inside the network.
        kind: Such as ``"conv 3x3 dw"`` or ``"linear"``.
        output: Shape of its output, without the batch.
        mult_adds: Multiply-adds of one picture: convolutions and linear layers, as the paper counts.
        params: Weights and biases, the batch-norm behind a convolution included.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    mult_adds: int
    params: int


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
        """Billions of multiply-adds of one picture."""
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


@dataclass(frozen=True)
class PaperRow:
    """What the paper prints: millions of multiply-adds and of parameters."""

    mult_adds_m: float
    params_m: float


PAPER_CLASSIFIERS: dict[tuple[float, int], PaperRow] = {
    (1.0, 224): PaperRow(569, 4.2),
    (0.75, 224): PaperRow(325, 2.6),
    (0.5, 224): PaperRow(149, 1.3),
    (0.25, 224): PaperRow(41, 0.5),
    (1.0, 192): PaperRow(418, 4.2),
    (1.0, 160): PaperRow(290, 4.2),
    (1.0, 128): PaperRow(186, 4.2),
}
"""Width and resolution rows of the ImageNet tables (6 and 7), which share the row 1.0-224."""


def classifier_costs() -> dict[str, tuple[Cost, PaperRow]]:
    """Our cost of each classifier in the paper's tables, beside the paper's own."""
    return {
        f"MobileNet {alpha:g}-{size}": (classifier_cost(alpha, size), row)
        for (alpha, size), row in PAPER_CLASSIFIERS.items()
    }


def detector_cost(model: Detector) -> Cost:
    """Cost of a detector at its own input size, on one picture."""
    height, width = model.network_size
    return Cost(model.network_size, _count(model, lambda x: model.candidates(x), (height, width)))


def classifier_cost(alpha: float, size: int, num_classes: int = 1000) -> Cost:
    """Cost of the paper's classifier at width ``alpha`` on ``size`` x ``size`` pictures."""
    with torch.device("meta"):
        model = MobileNetV1Classifier(backbone=MobileNetV1(alpha=alpha, outputs=("conv13",)), num_classes=num_classes)
    return Cost((size, size), _count(model, model, (size, size)))


def _count(model: nn.Module, call: Callable[[Tensor], Any], size: Size) -> list[LayerCost]:
    """Run one picture of zeros through ``call`` and note every layer that multiplies."""
    norms = _norm_params(model)
    layers: list[LayerCost] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        # Each output value costs one multiply-add per weight of its own filter.
        mult_adds = (output.numel() // output.shape[0]) * math.prod(weight.shape[1:])
        params = sum(p.numel() for p in module.parameters()) + norms.get(module, 0)
        layers.append(LayerCost(names[module], _kind(module), tuple(output.shape[1:]), mult_adds, params))

    handles = [
        module.register_forward_hook(note) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            call(torch.zeros(1, 3, *size, device=device))
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


def cost_table(costs: Mapping[str, Cost], paper: Mapping[str, PaperRow] | None = None) -> str:
    """A line per network; with ``paper``, its figures and our share of them."""
    width = max(len(name) for name in costs)
    lines = [f"{'':{width}}  {'input':>9}  {'GMACs':>7}  {'params M':>8}" + ("    paper (ratio)" if paper else "")]
    for name, cost in costs.items():
        height, wide = cost.input_size
        line = f"{name:{width}}  {f'{height}x{wide}':>9}  {cost.gmacs:7.3f}  {cost.params_m:8.2f}"
        if paper:
            row = paper[name]
            line += f"    {row.mult_adds_m / 1e3:.3f} ({cost.gmacs * 1e3 / row.mult_adds_m:.3f})  {row.params_m:g}"
            line += f" ({cost.params_m / row.params_m:.3f})"
        lines.append(line)
    return "\n".join(lines)


def layer_table(cost: Cost) -> str:
    """A line per layer, in the order they run."""
    width = max(len(layer.name) for layer in cost.layers)
    lines = [f"{'layer':{width}}  {'kind':<11}  {'output':>14}  {'M mult-adds':>11}  {'parameters':>10}"]
    for layer in cost.layers:
        output = "x".join(str(side) for side in layer.output)
        lines.append(
            f"{layer.name:{width}}  {layer.kind:<11}  {output:>14}  {layer.mult_adds / 1e6:11.3f}  {layer.params:10,}"
        )
    return "\n".join(lines)
