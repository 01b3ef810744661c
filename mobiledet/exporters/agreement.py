"""The proof that an exported file finds what the checkpoint finds: both are run on the same images."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.detections import Detections
from mobiledet.errors import ModelFileError
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.runtime.choose import find_runtime
from mobiledet.utils.files import write_json
from mobiledet.utils.machine import instruction_set

logger = logging.getLogger(__name__)

FORMAT = "mobiledet certificate"
VERSION = 1

MATCH_IOU = 0.8
"""A detection is matched by one of its class that overlaps it this much."""

MIN_COMPARED = 10
"""At least this many of the best detections of an image are compared, however low they score."""


@dataclass(frozen=True)
class Limits:
    """The largest differences that are accepted.

    Attributes:
        ap_loss: Loss of AP, in points of 100; applied when there is a data set.
        missing: Fraction of the checkpoint's detections that are unmatched; applied otherwise.
    """

    ap_loss: float
    missing: float


FLOAT_LIMITS = Limits(ap_loss=0.5, missing=0.02)
INT8_LIMITS = Limits(ap_loss=1.5, missing=0.25)


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on some images.

    Attributes:
        images: How many.
        boxes: The checkpoint's detections that were compared.
        matched: Those of them that the exported model has, too.
        largest_box_difference: Of a matched box's edges, in pixels of the image.
        largest_score_difference: Of a matched box.
        mean_score_difference: Over matched boxes.
    """

    images: int
    boxes: int
    matched: int
    largest_box_difference: float
    largest_score_difference: float
    mean_score_difference: float

    @property
    def matched_share(self) -> float:
        """Fraction of the boxes that were matched; 1 where there were none."""
        return self.matched / self.boxes if self.boxes else 1.0


@dataclass(frozen=True)
class AgreementReport:
    """What was compared, and the result; written beside an exported model as its certificate.

    Attributes:
        file: The exported file or folder.
        checkpoint: Its origin: ``file`` and ``sha256``.
        runtime: What ran the exported file.
        agreement: On images.
        ap: ``checkpoint``, ``model`` and ``difference`` (in points of 100), ``pictures`` (how many) and ``data`` (the
            data set); None without one.
        limits: The differences accepted.
        forced: Kept although a limit was exceeded.
        problems: Which limits were exceeded.
        layers: Where quantisation does the most damage, worst first; measured only when a limit was exceeded.
        versions: Of the packages involved.
        instruction_set: Of the processor, as `instruction_set` names it; empty in reports of older versions.
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
    instruction_set: str = ""

    @property
    def passed(self) -> bool:
        """Whether no limit was exceeded."""
        return not self.problems

    def write(self, model: Path) -> None:
        """Write the report beside a model.

        Raises:
            MobiledetError: It can't be written.
        """
        agreement = asdict(self.agreement)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "passed": self.passed,
            "forced": self.forced,
            "problems": self.problems,
            "file": self.file,
            "checkpoint": self.checkpoint,
            "runtime": self.runtime,
            "pictures": agreement.pop("images"),
            **agreement,
            "matched_share": round(self.agreement.matched_share, 6),
            "ap": self.ap,
            "limits": asdict(self.limits),
            "layers": self.layers,
            "versions": self.versions,
            "instruction_set": self.instruction_set,
        }
        write_json(report_path(model), content)

    @classmethod
    def read(cls, model: Path) -> AgreementReport | None:
        """The report beside a model; None where there is none.

        Raises:
            ModelFileError: It is damaged, or can't be read.
        """
        path = report_path(model)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ap = content["ap"]
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            return cls(
                file=str(content["file"]),
                checkpoint={key: str(value) for key, value in content["checkpoint"].items()},
                runtime=str(content["runtime"]),
                agreement=Agreement(
                    images=int(content["pictures"]),
                    boxes=int(content["boxes"]),
                    matched=int(content["matched"]),
                    largest_box_difference=_finite(content["largest_box_difference"]),
                    largest_score_difference=_finite(content["largest_score_difference"]),
                    mean_score_difference=_finite(content["mean_score_difference"]),
                ),
                ap=ap and {**ap, **{key: _finite(ap[key]) for key in ("checkpoint", "model", "difference")}},
                limits=Limits(**content["limits"]),
                forced=content["forced"] is True,
                problems=[str(problem) for problem in content["problems"]],
                layers=list(content["layers"]),
                versions=dict(content["versions"]),
                instruction_set=str(content.get("instruction_set", "")),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{path}: damaged or unreadable ({error!r:.80}); export the model again") from None

    def lines(self) -> list[str]:
        """The report for the screen."""
        found = self.agreement
        lines = [
            f"{found.matched} of {found.boxes} boxes ({found.matched_share:.2%}) matched in {found.images} images "
            f"(same class, IoU {MATCH_IOU:g}); largest difference {found.largest_box_difference:.2g} px, "
            f"score {found.largest_score_difference:.2g} (mean {found.mean_score_difference:.2g})"
        ]
        if self.ap is not None:
            lines.append(
                f"AP {self.ap['checkpoint']:.2f} -> {self.ap['model']:.2f} ({self.ap['difference']:+.2f} points) on "
                f"{self.ap['pictures']} images of {self.ap['data']}"
            )
        if self.layers:
            worst = ", ".join(f"{layer['name']} ({layer['error']:.1%})" for layer in self.layers[:5])
            lines.append(f"layers that lose most when only they are rounded: {worst}; keep some with --keep-float")
        return lines


def report_path(model: Path) -> Path:
    """Where a model's agreement report lies: beside it."""
    return model.with_name(f"{model.name}.certificate.json")


def warn_of_other_processor(model: str | Path) -> None:
    """Say so if the report beside an exported model was made on another instruction set than this processor's."""
    runtime, made_on, here = find_runtime(model), "", instruction_set()
    if runtime is not None:
        with suppress(ModelFileError):  # a damaged report proves nothing, and is in nobody's way
            report = AgreementReport.read(runtime.model_path(Path(model)))
            made_on = "" if report is None else report.instruction_set
    if made_on not in ("", here):
        logger.warning(
            "%s: compared with its checkpoint on another processor (%s); on this one (%s) INT8 may give other scores",
            model,
            made_on,
            here,
        )


def compare(wanted: Sequence[Detections], found: Sequence[Detections], *, threshold: float) -> Agreement:
    """Match one model's detections with another's.

    Compared are detections, image by image, that score at least ``threshold``, and each image's best ten anyway.
    """
    boxes = matched = 0
    edges: list[float] = [0.0]
    scores: list[float] = []
    for ours, theirs in zip(wanted, found, strict=True):
        count = max(int(np.count_nonzero(ours.scores >= threshold)), min(MIN_COMPARED, len(ours)))
        pairs = _pairs(ours, theirs, count)
        boxes, matched = boxes + count, matched + len(pairs)
        for index, partner in pairs:
            edges.append(float(np.abs(ours.boxes[index] - theirs.boxes[partner]).max()))
            scores.append(abs(float(ours.scores[index] - theirs.scores[partner])))
    return Agreement(
        images=len(wanted),
        boxes=boxes,
        matched=matched,
        largest_box_difference=max(edges),
        largest_score_difference=max(scores, default=0.0),
        mean_score_difference=float(np.mean(scores)) if scores else 0.0,
    )


def problems(agreement: Agreement, ap: dict[str, Any] | None, limits: Limits) -> list[str]:
    """Which limits are exceeded, as sentences; the agreement on images counts only without a data set."""
    if ap is not None:
        if ap["difference"] < -limits.ap_loss:
            return [f"AP falls by {-ap['difference']:.2f} points, more than {limits.ap_loss:g}"]
        return []
    missing = 1 - agreement.matched_share
    if missing > limits.missing:
        return [f"{missing:.1%} of the checkpoint's boxes are unmatched, more than {limits.missing:.0%}"]
    return []


def _pairs(wanted: Detections, found: Detections, count: int) -> list[tuple[int, int]]:
    """Best first, each of the first ``count`` wanted detections with the free one of its class that fits best."""
    free = np.ones(len(found), np.bool_)
    overlaps = pairwise_iou(wanted.boxes[:count], found.boxes)
    pairs = []
    for index in range(count):
        own = np.where(free & (found.labels == wanted.labels[index]), overlaps[index], -1.0)
        best = int(own.argmax()) if len(own) else -1
        if best >= 0 and own[best] >= MATCH_IOU:
            free[best] = False
            pairs.append((index, best))
    return pairs


def _finite(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)
