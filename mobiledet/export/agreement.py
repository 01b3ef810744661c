"""The proof that an exported file finds what the checkpoint finds: both are run on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.structures import Detections, FloatArray

FORMAT = "mobiledet certificate"
VERSION = 1

MATCH_IOU = 0.8
"""A detection is found again when one of its class overlaps it this much."""

LEAST_COMPARED = 10
"""At least this many of the best detections of a picture are compared, however low they score."""


@dataclass(frozen=True)
class Limits:
    """What is let pass.

    Attributes:
        ap_loss: Largest loss of AP, in points of 100; looked at when there is a data set.
        missing: Largest share of the checkpoint's detections that aren't found again; looked at otherwise.
    """

    ap_loss: float
    missing: float


FLOAT_LIMITS = Limits(ap_loss=0.5, missing=0.02)
INT8_LIMITS = Limits(ap_loss=1.5, missing=0.25)


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on some pictures.

    Attributes:
        pictures: How many.
        boxes: The checkpoint's detections that were looked for.
        matched: Those that were found again.
        largest_box_difference: Of a matched box's edges, in pixels of the picture.
        largest_score_difference: Of a matched box.
        mean_score_difference: Over matched boxes.
    """

    pictures: int
    boxes: int
    matched: int
    largest_box_difference: float
    largest_score_difference: float
    mean_score_difference: float

    @property
    def matched_share(self) -> float:
        """Share of the boxes that were found again; 1 where there were none."""
        return self.matched / self.boxes if self.boxes else 1.0


@dataclass(frozen=True)
class Certificate:
    """What was compared and what came out.

    Attributes:
        file: The exported file or folder.
        checkpoint: Its origin: ``file`` and ``sha256``.
        runtime: What ran the exported file.
        agreement: On pictures.
        ap: ``checkpoint``, ``model`` and ``difference`` (in points of 100) and the data set; None without one.
        limits: What was let pass.
        forced: Kept although a limit was passed.
        problems: Which limits were passed.
        layers: Where quantisation does the most damage, worst first; measured only when a limit was passed.
        versions: Of the packages involved.
    """

    file: str
    checkpoint: dict[str, str]
    runtime: str
    agreement: Agreement
    ap: dict[str, Any] | None
    limits: Limits
    forced: bool = False
    problems: list[str] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.problems

    def to_json_dict(self) -> dict[str, Any]:
        """As plain types."""
        plain = asdict(self)
        agreement = plain.pop("agreement")
        return {
            "format": FORMAT,
            "version": VERSION,
            "passed": self.passed,
            **{key: plain.pop(key) for key in ("forced", "problems", "file", "checkpoint", "runtime")},
            **agreement,
            "matched_share": round(self.agreement.matched_share, 6),
            **plain,
        }

    def lines(self) -> list[str]:
        """For the screen."""
        found = self.agreement
        lines = [
            f"{found.matched} of {found.boxes} boxes ({found.matched_share:.2%}) found again on {found.pictures} "
            f"pictures (same class, IoU {MATCH_IOU:g}); largest difference {found.largest_box_difference:.2g} px, "
            f"score {found.largest_score_difference:.2g} (mean {found.mean_score_difference:.2g})"
        ]
        if self.ap is not None:
            lines.append(
                f"AP {self.ap['checkpoint']:.2f} -> {self.ap['model']:.2f} ({self.ap['difference']:+.2f} points) on "
                f"{self.ap['pictures']} pictures of {self.ap['data']}"
            )
        if self.layers:
            worst = ", ".join(f"{layer['name']} ({layer['error']:.1%})" for layer in self.layers[:5])
            lines.append(f"layers that lose most when only they are rounded: {worst}; keep some with --keep-float")
        return lines


def certificate_path(model: Path) -> Path:
    """Where a model's certificate lies: beside it."""
    return model.with_name(f"{model.name}.certificate.json")


def read_certificate(model: Path) -> dict[str, Any] | None:
    """The certificate beside a model; None where there is none, or it can't be read."""
    try:
        content = json.loads(certificate_path(model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def compare(wanted: Sequence[Detections], found: Sequence[Detections], *, threshold: float) -> Agreement:
    """Look for one model's detections among another's.

    Args:
        wanted: The checkpoint's, picture by picture.
        found: The exported model's, of the same pictures.
        threshold: Detections that score this much are looked for, and each picture's best ten anyway.
    """
    boxes = matched = 0
    edges: list[float] = [0.0]
    scores: list[float] = []
    for ours, theirs in zip(wanted, found, strict=True):
        count = max(int(np.count_nonzero(ours.scores >= threshold)), min(LEAST_COMPARED, len(ours)))
        pairs = _pairs(ours, theirs, count)
        boxes, matched = boxes + count, matched + len(pairs)
        for index, partner in pairs:
            edges.append(float(np.abs(ours.boxes[index] - theirs.boxes[partner]).max()))
            scores.append(abs(float(ours.scores[index] - theirs.scores[partner])))
    return Agreement(
        pictures=len(wanted),
        boxes=boxes,
        matched=matched,
        largest_box_difference=max(edges),
        largest_score_difference=max(scores, default=0.0),
        mean_score_difference=float(np.mean(scores)) if scores else 0.0,
    )


def problems(agreement: Agreement, ap: dict[str, Any] | None, limits: Limits) -> list[str]:
    """Which limits were passed, as sentences; the pictures' agreement counts only without a data set."""
    if ap is not None:
        if ap["difference"] < -limits.ap_loss:
            return [f"AP falls by {-ap['difference']:.2f} points, more than {limits.ap_loss:g}"]
        return []
    missing = 1 - agreement.matched_share
    if missing > limits.missing:
        return [f"{missing:.1%} of the checkpoint's boxes aren't found again, more than {limits.missing:.0%}"]
    return []


def _pairs(wanted: Detections, found: Detections, count: int) -> list[tuple[int, int]]:
    """Best first, each of the first ``count`` wanted detections with the free one of its class that fits best."""
    free = np.ones(len(found), np.bool_)
    pairs = []
    for index in range(count):
        same = free & (found.labels == wanted.labels[index])
        if not same.any():
            continue
        overlaps = np.where(same, _iou(wanted.boxes[index], found.boxes), -1.0)
        best = int(overlaps.argmax())
        if overlaps[best] >= MATCH_IOU:
            free[best] = False
            pairs.append((index, best))
    return pairs


def _iou(box: FloatArray, others: FloatArray) -> FloatArray:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    iou: FloatArray = (shared / np.maximum(areas, 1e-9)).astype(np.float32)
    return iou
