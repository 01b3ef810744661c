"""The paper's cost tables (Howard et al. 2017, arXiv 1704.04861) beside what our networks and torchvision's cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from mobiledet.apps.cost.tables import separable_ratios, shares_by_kind
from mobiledet.config import FasterRCNNConfig, ModelConfig, SSDConfig
from mobiledet.models.build import build_detector
from mobiledet.models.cost import Cost, classifier_cost, count_layers, detector_cost
from mobiledet.models.layers import ConvNormAct, DepthwiseSeparable
from mobiledet.models.mobilenet_v1 import TABLE_1
from mobiledet.structures import Size
from mobiledet.utils.text import table

COCO_CLASSES = 90  # the paper's detectors have 91 outputs: one for each COCO id, gaps included, and background
PROPOSALS = 300  # of an image, in the paper's Faster R-CNN
_NO_NETWORK = "torchvision has no Inception V2"
_NO_CLASSES = "the paper doesn't say how many outputs it has"


@dataclass(frozen=True)
class PaperRow:
    """One row of a table: the paper's name and millions of multiply-adds and of parameters.

    ``network`` counts the same one here; None where it can't be derived. ``note`` says why not, or why it differs.
    """

    name: str
    mult_adds_m: float
    params_m: float
    network: Callable[[], Cost] | None = None
    note: str = ""


_cost_of = cache(classifier_cost)  # several tables show the same network


def _mobilenet(
    name: str, mult_adds_m: float, params_m: float, alpha: float, size: int = 224, classes: int = 1000
) -> PaperRow:
    return PaperRow(name, mult_adds_m, params_m, partial(_cost_of, alpha, size, classes))


def _torchvision(name: str, size: int, **options: Any) -> Callable[[], Cost]:
    def count() -> Cost:
        from torchvision import models

        with torch.device("meta"):
            model = models.get_model(name, weights=None, **options)
        return Cost((size, size), count_layers(model, model, (size, size)))

    return count


def _layers(model: Callable[[], nn.Module], size: Size, channels: int) -> Callable[[], Cost]:
    def count() -> Cost:
        with torch.device("meta"):
            built = model()
        return Cost(size, count_layers(built, built, size, channels=channels))

    return count


def _stack(rows: tuple[tuple[str, int, int], ...]) -> nn.Module:
    """A MobileNet of other rows than Table 1, with the paper's classifier."""
    channels, layers = 3, list[nn.Module]()
    for kind, stride, width in rows:
        if kind == "conv":
            layers.append(ConvNormAct(channels, width, kernel_size=3, stride=stride))
        else:
            layers.append(DepthwiseSeparable(channels, width, stride=stride))
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


_FULL_CONVOLUTIONS = tuple(("conv", stride, channels) for _, stride, channels in TABLE_1)
_SHALLOW = TABLE_1[:7] + TABLE_1[12:]  # without the five layers of 14x14x512 (section 4.1)


def _detector(size: int, head: SSDConfig | FasterRCNNConfig) -> Callable[[], Cost]:
    config = ModelConfig(num_classes=COCO_CLASSES, input_size=(size, size), head=head)
    return lambda: detector_cost(build_detector(config))


def _ssd_vgg() -> Cost:
    from torchvision.models.detection import ssd300_vgg16

    with torch.device("meta"):
        model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=COCO_CLASSES + 1)
    layers = count_layers(model, lambda x: model.head(list(model.backbone(x).values())), (300, 300))
    return Cost((300, 300), layers)


class _FasterRCNNVGG(nn.Module):
    """Faster R-CNN as Ren et al. built it: proposals from VGG's last convolution, its two linear layers on each."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg16

        vgg = vgg16(weights=None)
        self.features = vgg.features[:-1]
        anchors = 12
        self.rpn = nn.ModuleList([nn.Conv2d(512, 512, 3, padding=1), nn.Conv2d(512, 5 * anchors, 1)])
        self.second_stage = vgg.classifier[:-1]
        self.predictors = nn.ModuleList([nn.Linear(4096, COCO_CLASSES + 1), nn.Linear(4096, 4 * COCO_CLASSES)])

    def forward(self, images: Tensor) -> None:
        """Run every layer as often as it would run for one image."""
        features = self.features(images)
        self.rpn[1](self.rpn[0](features))
        judged = self.second_stage(features.new_zeros(PROPOSALS, 512 * 7 * 7))
        for predictor in self.predictors:
            predictor(judged)


_VGG_300, _VGG_600 = (_layers(_FasterRCNNVGG, (size, size), 3) for size in (300, 600))
_FULL_224 = _mobilenet("1.0 MobileNet-224", 569, 4.2, 1.0)
_GOOGLENET = _torchvision("googlenet", 224, aux_logits=False, init_weights=False)
_INCEPTION = _torchvision("inception_v3", 299, aux_logits=False, init_weights=False, num_classes=120)
_ADDITIONS = "the paper's is twice the network's: perhaps additions and multiplications were both counted"

PAPER_TABLES: dict[str, tuple[PaperRow, ...]] = {
    "Table 3: one layer of 512 channels on 14x14": (
        PaperRow("convolution", 462, 2.36, _layers(lambda: nn.Conv2d(512, 512, 3, padding=1), (14, 14), 512)),
        PaperRow("depthwise separable", 52.3, 0.27, _layers(lambda: DepthwiseSeparable(512, 512), (14, 14), 512)),
        PaperRow("alpha 0.75", 29.6, 0.15, _layers(lambda: DepthwiseSeparable(384, 384), (14, 14), 384)),
        PaperRow("rho 0.714", 15.1, 0.15, _layers(lambda: DepthwiseSeparable(384, 384), (10, 10), 384)),
    ),
    "Table 4: separable or full convolutions": (
        PaperRow("Conv MobileNet", 4866, 29.3, _layers(lambda: _stack(_FULL_CONVOLUTIONS), (224, 224), 3)),
        _FULL_224,
    ),
    "Table 5: narrow or shallow": (
        _mobilenet("0.75 MobileNet", 325, 2.6, 0.75),
        PaperRow("Shallow MobileNet", 307, 2.9, _layers(lambda: _stack(_SHALLOW), (224, 224), 3)),
    ),
    "Table 6: width multiplier": (
        _FULL_224,
        _mobilenet("0.75 MobileNet-224", 325, 2.6, 0.75),
        _mobilenet("0.5 MobileNet-224", 149, 1.3, 0.5),
        _mobilenet("0.25 MobileNet-224", 41, 0.5, 0.25),
    ),
    "Table 7: resolution multiplier": (
        _FULL_224,
        _mobilenet("1.0 MobileNet-192", 418, 4.2, 1.0, 192),
        _mobilenet("1.0 MobileNet-160", 290, 4.2, 1.0, 160),
        _mobilenet("1.0 MobileNet-128", 186, 4.2, 1.0, 128),
    ),
    "Table 8: popular networks": (
        _FULL_224,
        PaperRow("GoogleNet", 1550, 6.8, _GOOGLENET, "torchvision's 5x5 branches are 3x3"),
        PaperRow("VGG 16", 15300, 138, _torchvision("vgg16", 224)),
    ),
    "Table 9: small networks": (
        _mobilenet("0.50 MobileNet-160", 76, 1.32, 0.5, 160),
        PaperRow("Squeezenet", 1700, 1.25, _torchvision("squeezenet1_0", 224), _ADDITIONS),
        PaperRow("AlexNet", 720, 60, _torchvision("alexnet", 224), "torchvision's is the variant of 2014"),
    ),
    "Table 10: Stanford Dogs, 120 classes": (
        PaperRow("Inception V3", 5000, 23.2, _INCEPTION, "torchvision's, at 299x299"),
        _mobilenet("1.0 MobileNet-224", 569, 3.3, 1.0, 224, 120),
        _mobilenet("0.75 MobileNet-224", 325, 1.9, 0.75, 224, 120),
        _mobilenet("1.0 MobileNet-192", 418, 3.3, 1.0, 192, 120),
        _mobilenet("0.75 MobileNet-192", 239, 1.9, 0.75, 192, 120),
    ),
    "Section 4.4: PlaNet": (
        PaperRow("PlaNet (Inception V3)", 5740, 52, note=_NO_CLASSES),
        PaperRow("PlaNet MobileNet", 580, 13, note=_NO_CLASSES + "; printed as 0.58 million, which must mean billion"),
    ),
    "Table 13: COCO detection, 91 outputs": (
        PaperRow("SSD 300 deeplab-VGG", 34900, 33.1, _ssd_vgg, "torchvision's ssd300_vgg16"),
        PaperRow("SSD 300 Inception V2", 3800, 13.7, note=_NO_NETWORK),
        PaperRow("SSD 300 MobileNet", 1200, 6.8, _detector(300, SSDConfig(scores="softmax"))),
        PaperRow("Faster-RCNN 300 VGG", 64300, 138.5, _VGG_300, "torchvision's VGG 16, 7x7 crops"),
        PaperRow("Faster-RCNN 300 Inception V2", 118200, 13.3, note=_NO_NETWORK),
        PaperRow("Faster-RCNN 300 MobileNet", 25200, 6.1, _detector(300, FasterRCNNConfig())),
        PaperRow("Faster-RCNN 600 VGG", 149600, 138.5, _VGG_600, "the same"),
        PaperRow("Faster-RCNN 600 Inception V2", 129600, 13.3, note=_NO_NETWORK),
        PaperRow("Faster-RCNN 600 Mobilenet", 30500, 6.1, _detector(600, FasterRCNNConfig())),
    ),
}
"""Rows of each table, by its title."""

PAPER_SHARES: dict[str, tuple[float, float]] = {
    "conv 1x1": (0.9486, 0.7459),
    "conv 3x3 dw": (0.0306, 0.0106),
    "conv 3x3": (0.0119, 0.0002),
    "linear": (0.0018, 0.2433),
}
"""Table 2: share of the mult-adds and of the parameters by kind of layer."""

NOT_LISTED = (
    "Tables 12 (face attributes) and 14 (face embeddings): the number of outputs and the teachers aren't given. "
    "Tables 1 and 11 have no costs."
)


def paper_costs() -> list[dict[str, Any]]:
    """Every row of every table as plain data: the paper's figures, ours, and our share of the paper's.

    Returns:
        Dicts with ``table``, ``name``, ``note``, and for ``mult_adds_m`` and ``params_m`` a dict of ``paper``, ``ours``
        and ``ratio``; the last two None where a row can't be derived.
    """
    costs: list[dict[str, Any]] = []
    for title, rows in PAPER_TABLES.items():
        for row in rows:
            cost = row.network() if row.network is not None else None
            mult_adds = _cell(row.mult_adds_m, cost.gmacs * 1e3 if cost else None)
            params = _cell(row.params_m, cost.params_m if cost else None)
            figures = {"mult_adds_m": mult_adds, "params_m": params}
            costs.append({"table": title, "name": row.name, **figures, "note": row.note})
    return costs


def _cell(paper: float, ours: float | None) -> dict[str, float | None]:
    if ours is None:
        return {"paper": paper, "ours": None, "ratio": None}
    return {"paper": paper, "ours": round(ours, 4), "ratio": round(ours / paper, 4)}


def paper_text() -> str:
    """All tables as text, cell by cell."""
    costs = paper_costs()
    rows = [("", "M mult-adds: paper", "ours", "ratio", "M params: paper", "ours", "ratio", "")]
    for row in costs:
        derived = row["mult_adds_m"]["ours"] is not None
        cells = [_cells(row[key]) for key in ("mult_adds_m", "params_m")]
        rows.append((row["name"], *cells[0], *cells[1], row["note"] if derived else f"not derived: {row['note']}"))
    head, *lines = table(rows, left=(0, 7))
    text: list[str] = []
    for title, group in groupby(zip(costs, lines, strict=True), key=lambda pair: str(pair[0]["table"])):
        text += [title, head, *(line for _, line in group), ""]
    return "\n".join([*text, *_shares_text(), "", *_ratios_text(), "", NOT_LISTED])


def _cells(figures: Mapping[str, float | None]) -> tuple[str, str, str]:
    paper, ours, ratio = f"{figures['paper']:g}", figures["ours"], figures["ratio"]
    return (paper, "", "") if ours is None else (paper, _digits(ours), f"{ratio:.3f}")


def _digits(value: float) -> str:
    return f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}" if value < 1000 else f"{value:.0f}"


def _shares_text() -> list[str]:
    ours = shares_by_kind(classifier_cost(1.0, 224))
    rows = [("", "mult-adds: paper", "ours", "parameters: paper", "ours")]
    rows += [
        (kind, f"{mult_adds:.2%}", f"{ours[kind][0]:.2%}", f"{params:.2%}", f"{ours[kind][1]:.2%}")
        for kind, (mult_adds, params) in PAPER_SHARES.items()
    ]
    rows.append(("sum", f"{sum(share for share, _ in PAPER_SHARES.values()):.2%}", "", "", ""))
    title = "Table 2: share of each kind of layer, 1.0 MobileNet-224 (1.19% must be a typo for 1.91%)"
    return [title, *table(rows)]


def _ratios_text() -> list[str]:
    cost = classifier_cost(1.0, 224)
    channels = {layer.name: layer.output[0] for layer in cost.layers}
    rows = [("", "N", "1/N + 1/9", "counted")]
    for name, ratio in separable_ratios(cost).items():
        expected = 1 / channels[name] + 1 / 9
        rows.append((name.split(".")[2], str(channels[name]), f"{expected:.4f}", f"{ratio:.4f}"))
    title = "Section 3.1: a separable layer as a share of a full convolution's mult-adds, 1.0 MobileNet-224"
    return [title, *table(rows)]
