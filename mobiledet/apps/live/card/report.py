"""The report of a live run: what ran, on what, and every figure, as one JSON."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mobiledet import __version__
from mobiledet.apps.live.card.fps_card import KIND, VERSION
from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.sources.base import Source
from mobiledet.runtime.detector import Detector
from mobiledet.utils.machine import describe_machine

logger = logging.getLogger(__name__)

_PROFILED = 10
"""Calls from which the share of suppression in the network's time is taken."""

UNSEEN = (
    "Age counts from the moment a picture reached this program. Exposure, readout, USB or network, and the queues of "
    "sensor and driver come before that and are not in it."
)
UNSEEN_SCREEN = "The screen's own delay, and a browser's, are not in it either."
NMS_SHARE = (
    f"nms (decoding and suppression) is part of network: its share in a profile of {_PROFILED} calls after the run."
)
FILE_AGE = "A file was read picture by picture, some ahead: age is the time from taking one of those to its boxes."
STREAM_AGE = "FFmpeg decodes a stream's pictures before this program gets them: that is neither in the age nor in grab."


def make_report(
    figures: Mapping[str, Any],
    *,
    detector: Detector,
    source: Source,
    model_name: str,
    settings: Mapping[str, Any],
    last: Result | None,
    label: str,
    command: Sequence[str],
    address: str,
    load: float | None,
) -> dict[str, Any]:
    """Put a report together.

    Args:
        figures: Of the meter.
        detector: What looked at the pictures; profiled once more for the share of suppression.
        source: Where they came from.
        model_name: What the user called the model.
        settings: How it was run, as plain types.
        last: The last result, whose picture is profiled; None leaves the share unknown.
        label: What the user calls the board.
        command: The command line.
        address: How the source was named in it; a stream's, with its password, is replaced by its name.
        load: Of the machine before the run.
    """
    card, state = detector.card, source.state()
    stages = dict(figures["stages_ms"])
    share = suppression_share(detector, last) if last is not None else None
    if share is not None and "network" in stages:
        stages["nms"] = {key: round(value * share, 3) for key, value in stages["network"].items()}
    unseen = [UNSEEN, UNSEEN_SCREEN]
    if "nms" in stages:
        unseen.append(NMS_SHARE)
    if "://" in source.name:
        unseen.append(STREAM_AGE)
    if not source.live:
        unseen.append(FILE_AGE)
    return {
        "kind": KIND,
        "version": VERSION,
        "mobiledet": __version__,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(word.replace(address, source.name) if "://" in address else word for word in command),
        "label": label,
        "machine": {**describe_machine(), "load_average": load},
        "model": {
            "name": model_name,
            "runtime": detector.backend.runtime,
            "precision": card.precision,
            "input_size": list(card.resize.size),
            "classes": len(card.names),
            "gmacs": card.gmacs,
            "params": card.params,
            "head": card.head,
        },
        "source": {
            "name": source.name,
            "live": source.live,
            "size": list(state.size) if state.size else None,
            "fps": state.fps,
        },
        "settings": dict(settings),
        **figures,
        "stages_ms": stages,
        "unseen": unseen,
    }


def suppression_share(detector: Detector, result: Result) -> float | None:
    """The share, 0..1, of decoding and suppression in the network's time; None where that can't be told."""
    fitted, _ = detector.fit(result.frame.image)
    pictures = fitted[None]
    if detector.card.resize.fixed and detector.card.batch > 1:
        pictures = pictures.repeat(detector.card.batch, axis=0)
    try:
        times = detector.backend.stages(pictures, _PROFILED)
    except Exception as error:  # a model file that is gone, a runtime's own; no reason to lose what was measured
        logger.debug("no profile", exc_info=error)
        return None
    part, whole = times.get("decode+nms"), sum(times.values())
    return None if part is None or not whole > 0 else part / whole
