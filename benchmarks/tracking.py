"""How many ids a video's objects get, beside how many objects there are; and how long that takes a frame.

    mobiledet webcam --model coco.onnx --source people.mp4 --no-window --threshold 0.05 --detections people.jsonl
    python benchmarks/tracking.py people.jsonl --class person
    python benchmarks/tracking.py people.jsonl --class person --tracker supervision

All trackers get the same detections, of every frame or of every second or third, with the time of each.
supervision's ByteTrack, which counts frames, is in its versions up to 0.29: run the second command where that is
installed instead of ``trackers``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.cli.common import run_and_exit
from mobiledet.detections import Detections

Update = Callable[[Detections, float], np.ndarray]
"""From a frame's detections and its time to their ids, 0 for none."""


def main() -> None:
    """Parse arguments, track, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="+", help="of webcam --detections, with scores from 0.05 on")
    parser.add_argument("--class", dest="name", required=True, help="whose ids are counted")
    parser.add_argument("--tracker", choices=("mobiledet", "supervision"), default="mobiledet")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.3, 0.4, 0.5])
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3], help="take every n-th frame")
    arguments = parser.parse_args()
    print("| video | threshold | every | ids | frames with the class, with an id | ms a frame |\n" + 6 * "|---" + "|")
    for log in arguments.log:
        frames = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for threshold in arguments.thresholds:
            for every in arguments.every:
                print(
                    "|",
                    " | ".join([log.stem, f"{threshold:g}", str(every), *track(frames[::every], arguments, threshold)]),
                    "|",
                )


def track(frames: list[dict[str, Any]], arguments: argparse.Namespace, threshold: float) -> list[str]:
    """The figures of one row: ids, frames with the class and with an id, milliseconds."""
    update = (ours if arguments.tracker == "mobiledet" else theirs)(frames, threshold)
    ids: set[int] = set()
    seen = tracked = 0
    spent = []
    for frame in frames:
        found = frame["detections"]
        boxes = np.array([one["box"] for one in found], np.float32).reshape(-1, 4)
        scores, labels = (np.array([one[key] for one in found]) for key in ("score", "label"))
        start = time.perf_counter()
        given = update(Detections(boxes, scores.astype(np.float32), labels.astype(np.int64)), frame["position"])
        spent.append(1e3 * (time.perf_counter() - start))
        of_class = np.array([one["name"] == arguments.name for one in found], bool)
        seen += bool((of_class & (scores >= threshold)).any())
        tracked += bool((of_class & (given > 0)).any())
        ids |= set(given[of_class & (given > 0)].tolist())
    return [str(len(ids)), f"{seen}, {tracked}", f"{statistics.mean(spent):.2f}"]


def ours(_frames: list[dict[str, Any]], threshold: float) -> Update:
    """Mobiledet's."""
    from mobiledet.runtime.tracking import Tracker

    tracker = Tracker(threshold)

    def update(detections: Detections, seconds: float) -> np.ndarray:
        ids = tracker.update(detections, seconds).track_ids
        assert ids is not None
        return ids

    return update


def theirs(frames: list[dict[str, Any]], threshold: float) -> Update:
    """supervision's, with its defaults but for the threshold; it gets the detections that score 0.1 or more."""
    import supervision

    rate = (len(frames) - 1) / (frames[-1]["position"] - frames[0]["position"])
    tracker = supervision.ByteTrack(track_activation_threshold=threshold, frame_rate=rate)

    def update(detections: Detections, _seconds: float) -> np.ndarray:
        ids = np.zeros(len(detections), np.int64)
        used = np.flatnonzero(detections.scores >= 0.1)
        found = tracker.update_with_detections(
            supervision.Detections(
                xyxy=detections.boxes[used],
                confidence=detections.scores[used],
                class_id=detections.labels[used],
                data={"index": used},
            )
        )
        if len(found):
            ids[found.data["index"]] = found.tracker_id
        return ids

    return update


if __name__ == "__main__":
    run_and_exit(main)
