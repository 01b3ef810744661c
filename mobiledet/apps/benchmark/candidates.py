"""What a command wants compared, and what is known of it before anything runs: names, sizes, certificates."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.errors import MobiledetError, ModelFileError
from mobiledet.utils.text import did_you_mean, short_names

PEERS = ("torchvision", "ultralytics")
"""Detectors of other projects, which bring their own model; named as the packages that pip installs."""


@dataclass(frozen=True)
class Candidate:
    """One row of the comparison.

    Attributes:
        label: Its name in the report; no two are alike.
        kind: ``"model"``, ``"torchvision"``, ``"ultralytics"`` or ``"matrix"``.
        target: Path or name of a model as it was given; empty for the others.
    """

    label: str
    kind: str
    target: str = ""


@dataclass(frozen=True)
class CertificateSummary:
    """The agreement report (certificate) beside a model in short.

    Attributes:
        state: ``"passed"``, ``"forced"`` (kept although it failed), ``"failed"``, ``"none"``, ``"damaged"``,
            ``"other model"`` (made for another checkpoint), or ``"-"`` where there is nothing to certify.
        figures: How far the two agree.
        checkpoint: SHA-256 of the checkpoint it was compared with, if it says.
    """

    state: str = "-"
    figures: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None


def choose_candidates(models: Sequence[str], peers: Sequence[str]) -> list[Candidate]:
    """Rows for models and peers, in the order given; the same model twice shows how far its figures can be trusted."""
    rows = [Candidate(name, "model", model) for name, model in zip(short_names(models), models, strict=True)]
    return rows + [Candidate(peer, peer) for peer in peers]


def parse_peers(text: str | None) -> tuple[list[str], list[str]]:
    """The peers that ``--peers`` means.

    Args:
        text: Names with commas between, or ``all``; None for none.

    Returns:
        Those that can be run, and a line for each that can't.

    Raises:
        MobiledetError: There is no such peer.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word != "all" and word not in PEERS:
            hint = did_you_mean(word, PEERS, otherwise=f"choose from all, {', '.join(PEERS)}")
            raise MobiledetError(f"--peers: unknown peer {word!r}; {hint}")
    wanted = [peer for peer in PEERS if peer in words or "all" in words]
    missing = [peer for peer in wanted if importlib.util.find_spec(peer) is None]
    lines = [f"{peer} is skipped: it is not installed; pip install {peer}" for peer in missing]
    return [peer for peer in wanted if peer not in missing], lines


def summarise_certificate(candidate: Candidate) -> CertificateSummary:
    """The agreement report beside an exported model in short."""
    from mobiledet.exporters.agreement import AgreementReport
    from mobiledet.runtime.choose import find_runtime

    if candidate.kind != "model" or find_runtime(candidate.target) is None:
        return CertificateSummary()
    try:
        report = AgreementReport.read(model_path(candidate.target))
    except ModelFileError:
        return CertificateSummary("damaged")
    if report is None:
        return CertificateSummary("none")
    figures: dict[str, Any] = {
        "matched_share": round(report.agreement.matched_share, 6),
        "largest_box_difference": report.agreement.largest_box_difference,
        "largest_score_difference": report.agreement.largest_score_difference,
    }
    if report.ap is not None:
        figures["ap"] = {key: report.ap[key] for key in ("checkpoint", "model", "difference")}
    state = "passed" if report.passed else "forced" if report.forced else "failed"
    return CertificateSummary(state, figures, report.checkpoint.get("sha256"))


def model_path(target: str) -> Path:
    """The file or folder that is a model, whichever of its files was named."""
    from mobiledet.runtime.choose import find_runtime

    runtime = find_runtime(target)
    return runtime.model_path(Path(target)) if runtime is not None else Path(target)


def bytes_of(path: Path) -> int | None:
    """Size of a file, or of all files in a folder; None where there is neither."""
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except OSError:
        return None
