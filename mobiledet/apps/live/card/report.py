"""The report of a live run: what ran, on what, and every figure, as one JSON; and its summary for the screen."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mobiledet.apps.live.card.fps_card import KIND, VERSION
from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.scene.counting import counts_in_words
from mobiledet.apps.live.sources.base import Source
from mobiledet.runtime.detector import Detector
from mobiledet.utils.machine import describe_machine
from mobiledet.utils.text import count, listing
from mobiledet.version import __version__

logger = logging.getLogger(__name__)

_PROFILED = 10
"""Calls from which the share of NMS in the network's time is taken."""

UNSEEN = (
    "Age counts from the moment a frame reached this program. Exposure, readout, USB or network, and the queues of "
    "sensor and driver come before that and are not included."
)
UNSEEN_SCREEN = "The delay of the screen, and of a browser, is not included either."
NMS_SHARE = f"nms (decoding and NMS) is part of network: its share in a profile of {_PROFILED} calls after the run."
FILE_AGE = "A file was read frame by frame, some ahead: age is the time from taking one of those to its boxes."
STREAM_AGE = "FFmpeg decodes a stream's frames before this program gets them: neither age nor grab includes that."


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
    secrets: Mapping[str, str],
    load: float | None,
) -> dict[str, Any]:
    """All that is known of a run, as plain types.

    ``figures`` are `Meter.figures`. The frame of the ``last`` result is profiled once more for the share of NMS, which
    None leaves unknown. ``secrets`` are what may not be seen of the ``command``, and what stands for it.
    """
    for secret, shown in secrets.items():
        command = [word.replace(secret, shown) if secret else word for word in command]
    card, state = detector.card, source.state()
    stages = dict(figures["stages_ms"])
    share = nms_share(detector, last) if last is not None else None
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
        "command": shlex.join(command),
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


def nms_share(detector: Detector, result: Result) -> float | None:
    """The share, 0..1, of decoding and NMS in the network's time; None where they can't be separated."""
    fitted, _ = detector.fit(result.frame.image)
    images = fitted[None]
    if detector.card.resize.fixed:
        images = images.repeat(detector.card.batch or 1, axis=0)
    try:
        times = detector.backend.stages(images, _PROFILED)
    except Exception as error:  # such as a deleted model file; what was measured is kept
        logger.debug("no profile", exc_info=error)
        return None
    part, whole = times.get("decode+nms"), sum(times.values())
    return None if part is None or not whole > 0 else part / whole


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Counts, FPS, age and stages in a few lines; nothing that wasn't measured."""
    frames, fps, stages = report["frames"], report["fps"], report["stages_ms"]
    live = report["source"]["live"]
    # A file is read a few frames ahead, so how many were captured says nothing; of a camera's some were dropped.
    number = f"{frames['processed']} of {frames['captured']}" if live else f"{frames['processed']}"
    lines = [
        f"{number} frames processed in {report['seconds']:.1f} s"
        + (f", {frames['dropped']} dropped" if live else "")
        + (f", {frames['skipped']} unreadable" if frames["skipped"] else "")
        + (f", {frames['not_due']} not due" if frames["not_due"] else "")
        + (f"; in {frames['still']} of them nothing moved" if frames["still"] else "")
    ]
    if fps["overall"] is not None:
        line = f"{fps['overall']:.1f} FPS"
        if fps["last_minute"] is not None:
            line += f" ({fps['first_minute']:.1f} in the first minute, {fps['last_minute']:.1f} in the last)"
        lines.append(f"{line} with {report['model']['runtime']}")
    if live and report["age_ms"]:
        lines.append(f"age of a frame when its boxes are ready: {_pair(report['age_ms'])} ms")
    if live and report["shown_age_ms"]:
        lines.append(f"and when they are on the screen: {_pair(report['shown_age_ms'])} ms")
    if deadline := report.get("deadline"):
        shares = ", ".join("{}x{} for {:.0%}".format(*size["input_size"], size["share"]) for size in deadline["sizes"])
        lines.append(f"{deadline['in_time']:.1%} ready within {deadline['limit_ms']:g} ms; {shares}")
    known = [f"{name} {_pair(stages[name])}" for name in ("grab", "resize", "network", "draw") if name in stages]
    if known:
        lines.append(f"median (and 95 %) in ms: {', '.join(known)}")
    if report.get("objects"):
        lines.append(f"tracked: {listing((f'{many} {name}' for name, many in report['objects'].items()), 10)}")
    lines += [f"{name}: {text}" for name, text in counts_in_words(report.get("counts", {}))]
    if frames["reconnects"] or frames["lost_seconds"]:
        reconnections = count(frames["reconnects"], "reconnection")
        lines.append(f"source lost for {frames['lost_seconds']:.1f} s, {reconnections}")
    if frames["not_saved"]:
        thinned = f", {frames['thinned']} of them because its frame rate is lower" if frames["thinned"] else ""
        lines.append(f"{count(frames['not_saved'], 'frame')} not in the video{thinned}")
    if report["throttled"]:
        lines.append(f"the board was slowed down: {', '.join(report['throttled'])}")
    return lines


def _pair(values: Mapping[str, float]) -> str:
    return f"{values['p50']:.1f} ({values['p95']:.1f})"
