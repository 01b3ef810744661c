"""The report in a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobiledet.utils.text import count


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Counts, FPS, age and stages; nothing that wasn't measured."""
    frames, fps, stages = report["frames"], report["fps"], report["stages_ms"]
    live = report["source"]["live"]
    # A file is read a few pictures ahead, which says nothing; of a camera's pictures some were dropped.
    pictures = f"{frames['processed']} of {frames['captured']}" if live else f"{frames['processed']}"
    lines = [
        f"{pictures} pictures processed in {report['seconds']:.1f} s"
        + (f", {frames['dropped']} dropped" if live else "")
        + (f", {frames['skipped']} unreadable" if frames["skipped"] else "")
    ]
    if fps["overall"] is not None:
        line = f"{fps['overall']:.1f} FPS"
        if fps["last_minute"] is not None:
            line += f" ({fps['first_minute']:.1f} in the first minute, {fps['last_minute']:.1f} in the last)"
        lines.append(f"{line} with {report['model']['runtime']}")
    if live and report["age_ms"]:
        lines.append(f"age of a picture when its boxes are there: {_pair(report['age_ms'])} ms")
    if live and report["shown_age_ms"]:
        lines.append(f"and when they are on the screen: {_pair(report['shown_age_ms'])} ms")
    told = [f"{name} {_pair(stages[name])}" for name in ("grab", "resize", "network", "draw") if name in stages]
    if told:
        lines.append(f"median (and 95 %) in ms: {', '.join(told)}")
    if frames["reconnects"] or frames["lost_seconds"]:
        lines.append(f"source lost for {frames['lost_seconds']:.1f} s, {frames['reconnects']} reconnections")
    if frames["not_saved"]:
        thinned = f", {frames['thinned']} of them since it has fewer a second" if frames["thinned"] else ""
        lines.append(f"{count(frames['not_saved'], 'picture')} not in the video{thinned}")
    if report["throttled"]:
        lines.append(f"the board was slowed down: {', '.join(report['throttled'])}")
    return lines


def _pair(values: Mapping[str, float]) -> str:
    return f"{values['p50']:.1f} ({values['p95']:.1f})"
