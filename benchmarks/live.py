"""Measure the live demo: throughput, age of frames, power, starting, stopping, lost cameras, a long run.

    python benchmarks/live.py throughput --model model_int8.onnx --clip clip.mp4
    python benchmarks/live.py age --model model_int8.onnx --clip clip.mp4
    python benchmarks/live.py power --model model_int8.onnx --clip clip.mp4
    python benchmarks/live.py start --model model_int8.onnx --clip clip.mp4
    python benchmarks/live.py stop --model model_int8.onnx --clip clip.mp4 --times 20
    python benchmarks/live.py drops --model model_int8.onnx --times 50
    python benchmarks/live.py soak --model model_int8.onnx --clip clip.mp4 --minutes 30
    python benchmarks/live.py cameras --model model_int8.onnx --clip clip.mp4 --sources 4 --fps 15 --minutes 30

Throughput is compared, within each round, with the bare call of the detector on frames that lie decoded in memory,
and with the plain loop of read, detect, draw, one after the other, as tutorials have it. All else is what
demo/webcam.py reports of itself, run as users run it. Exit status: 0, or 1 when something didn't hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
sys.path.insert(0, str(REPOSITORY / "tests" / "apps" / "live"))

WEBCAM = [sys.executable, str(REPOSITORY / "demo" / "webcam.py")]
IN_MEMORY = 200
"""Frames decoded for the bare call: 140 MiB at 640x360."""


def main() -> int:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(PARTS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fps", type=float, default=30, help="of the source for age, power, soak and cameras")
    parser.add_argument("--sources", type=int, default=4, help="for cameras")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what != "drops" and arguments.clip is None:
        parser.error(f"{arguments.what} needs --clip")
    with tempfile.TemporaryDirectory() as folder:
        return PARTS[arguments.what](arguments, Path(folder))


def webcam(arguments: argparse.Namespace, *more: object) -> list[str]:
    """A command line without a window."""
    plain = ["--model", arguments.model, "--threads", arguments.threads, "--no-window", *more]
    return [*WEBCAM, *map(str, plain)]


def run(command: Sequence[str], report: Path) -> dict[str, Any]:
    """Run it to its end; its report."""
    subprocess.run(
        [*command, "--report", str(report)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    return found


def throughput(arguments: argparse.Namespace, folder: Path) -> int:
    """Frames a second of a file, beside the bare call and the plain loop."""
    import cv2

    from mobiledet import Detector
    from mobiledet.draw.boxes import draw_detections

    detector = Detector(arguments.model, threads=arguments.threads, score_threshold=0.05)
    decoded: list[Any] = []
    capture = cv2.VideoCapture(str(arguments.clip))
    while len(decoded) < IN_MEMORY and (read := capture.read())[0]:
        decoded.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def bare() -> float:
        start = time.perf_counter()
        for frame in decoded:
            detector(frame)
        return len(decoded) / (time.perf_counter() - start)

    def plain_loop() -> float:
        opened, count, start = cv2.VideoCapture(str(arguments.clip)), 0, time.perf_counter()
        while (read := opened.read())[0]:
            frame = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
            draw_detections(frame, detector(frame).above(0.5))
            count += 1
        return count / (time.perf_counter() - start)

    def live(*more: object) -> float:
        command = webcam(arguments, "--source", arguments.clip, *more)
        return float(run(command, folder / "report.json")["fps"]["overall"])

    bare()
    rows: dict[str, list[float]] = {"bare call": [], "plain loop": [], "live": [], "live, saving .mp4": []}
    for number in range(arguments.rounds):
        rows["bare call"].append(bare())
        rows["live"].append(live())
        rows["bare call"][-1] = (rows["bare call"][-1] + bare()) / 2  # before and after, since the machine drifts
        rows["plain loop"].append(plain_loop())
        rows["live, saving .mp4"].append(live("--save", folder / f"{number}.mp4"))
    print(f"{arguments.clip.name}, {frames} frames, {arguments.threads} threads, {arguments.rounds} rounds")
    for name, values in rows.items():
        ratios = [value / base for value, base in zip(values, rows["bare call"], strict=True)]
        print(
            f"{name:20} {statistics.median(values):7.1f} FPS; beside the bare call {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    ratios = [value / base for value, base in zip(rows["live"], rows["bare call"], strict=True)]
    return 0 if statistics.median(ratios) >= 0.9 else 1


def age(arguments: argparse.Namespace, folder: Path) -> int:
    """Age of frames of a source that gives so many a second, beside one interval and one inference."""
    clip = paced(arguments, folder)
    status = 0
    for _ in range(arguments.rounds):
        found = run(webcam(arguments, "--source", clip, "--realtime"), folder / "report.json")
        call = found["stages_ms"]["network"]["p50"] + found["stages_ms"]["resize"]["p50"]
        limit = 1000 / arguments.fps + call
        held = found["age_ms"]["p95"] <= limit
        status |= not held
        print(
            f"age median {found['age_ms']['p50']:.1f} ms, p95 {found['age_ms']['p95']:.1f} ms (one interval and one "
            f"median call: {limit:.1f}){'' if held else '  EXCEEDED'}, {found['fps']['overall']:.1f} FPS, "
            f"{found['frames']['dropped']} of {found['frames']['captured']} dropped; 95 % of calls took less than "
            f"{found['stages_ms']['network']['p95']:.1f} ms"
        )
    return status


def power(arguments: argparse.Namespace, folder: Path) -> int:
    """Processor time of a source that gives so many frames a second, all or some of which are looked at."""
    clip = paced(arguments, folder)
    print(f"{arguments.clip.name}, {arguments.fps:g} frames a second, {arguments.threads} threads")
    print("| options | CPU, % of all cores | frames with boxes a second | looked at a second | age ms, median, 95 % |")
    print(5 * "|---" + "|")
    for options in [[], *([f"--target-fps={fps}", *more] for fps in (5, 10, 30) for more in ([], ["--motion"]))]:
        found = run(webcam(arguments, "--source", clip, "--realtime", *options), folder / "report.json")
        fps, age, frames = found["fps"]["overall"], found["age_ms"], found["frames"]
        looked = fps * (1 - frames["still"] / frames["processed"])
        print(
            f"| {' '.join(options) or 'none'} | {found['cpu_percent']['mean']:.0f} | {fps:.1f} | {looked:.1f} | "
            f"{age['p50']:.0f}, {age['p95']:.0f} |",
            flush=True,
        )
    return 0


def paced(arguments: argparse.Namespace, folder: Path) -> Path:
    """The clip's frames in a file that says it has the wanted rate."""
    import cv2

    path = folder / "paced.avi"
    capture = cv2.VideoCapture(str(arguments.clip))
    size = [int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), arguments.fps, size)
    for _ in range(round(20 * arguments.fps)):
        read, frame = capture.read()
        if not read:
            break
        writer.write(frame)
    writer.release()
    return path


def start(arguments: argparse.Namespace, folder: Path) -> int:
    """Seconds from starting the process to its help, and to the first boxes on disk."""
    helped, boxes = [], []
    for number in range(arguments.rounds):
        begin = time.perf_counter()
        subprocess.run([*WEBCAM, "--help"], check=True, stdout=subprocess.DEVNULL)
        helped.append(time.perf_counter() - begin)
        log = folder / f"{number}.jsonl"
        command = webcam(arguments, "--source", arguments.clip, "--detections", log, "--max-frames", 30)
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None, "it has ended; run it by hand to see why"
            time.sleep(0.002)
        boxes.append(time.perf_counter() - begin)
        process.wait()
    print(f"--help {statistics.median(helped):.2f} s (most {max(helped):.2f})")
    print(f"first boxes {statistics.median(boxes):.2f} s (most {max(boxes):.2f})")
    return 0 if statistics.median(helped) < 0.3 and statistics.median(boxes) <= 1.5 else 1


def stop(arguments: argparse.Namespace, folder: Path) -> int:
    """Ctrl-C at random moments: does it end, is the video whole, is a process left?"""
    import psutil
    from mjpeg_server import MjpegServer  # type: ignore[import-not-found]

    random.seed(arguments.seed)
    bad, endings, videos = 0, [], 0
    with MjpegServer(fps=30, size=(360, 640)) as server:
        for number in range(arguments.times):
            save = folder / f"{number}.mp4"
            source = server.url if number % 2 else arguments.clip
            command = webcam(arguments, "--source", source, "--save", save, "--detections", folder / f"{number}.jsonl")
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            delay = random.uniform(0.05, 3.0)
            time.sleep(delay)
            begin, children = time.perf_counter(), psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            words = process.communicate(timeout=60)[1]
            endings.append(time.perf_counter() - begin)
            time.sleep(0.2)
            orphans = [child.pid for child in children if child.is_running()]
            frames = playable(save) if save.exists() else None
            videos += frames is not None
            rest = [path.name for path in folder.iterdir() if path.name.startswith(".") or "partial" in path.name]
            fine = process.returncode in (130, 0) and not orphans and not rest and frames != 0 and "Trace" not in words
            bad += not fine
            print(
                f"after {delay:.2f} s: status {process.returncode}, ended in {endings[-1]:.2f} s, "
                f"{'no video yet' if frames is None else f'{frames} frames play'}"
                + ("" if fine else f"  WRONG: {orphans} {rest} {words[-300:]}")
            )
    print(f"{arguments.times} stops, {videos} videos, {bad} wrong; slowest end {max(endings):.2f} s")
    return int(bad > 0)


def drops(arguments: argparse.Namespace, folder: Path) -> int:
    """A stream that breaks off, stalls or is refused, and comes back, again and again."""
    from mjpeg_server import MjpegServer

    report, log = folder / "report.json", folder / "log.jsonl"
    with MjpegServer(fps=30, size=(360, 640)) as server:
        command = webcam(arguments, "--source", server.url, "--stall", 1, "--report", report, "--detections", log)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        waits = []

        def wait_for_frames(count: int) -> float:
            begin, end = time.monotonic(), lines(log) + count
            while lines(log) < end:
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < begin + 60, "it didn't come back"
                time.sleep(0.01)
            return time.monotonic() - begin

        try:
            wait_for_frames(20)
            for number in range(arguments.times):
                how = ("drop", "stall", "refuse")[number % 3]
                if how == "drop":
                    server.drop()
                elif how == "stall":
                    server.stalled = True
                    time.sleep(1.5)
                    server.stalled = False
                else:
                    server.refuse()
                    time.sleep(1.0)
                    server.come_back()
                waits.append(wait_for_frames(10))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    found = json.loads(report.read_text(encoding="utf-8"))
    print(
        f"{arguments.times} drops, stalls and refusals, {found['frames']['reconnects']} reconnections, "
        f"{found['frames']['processed']} frames processed; ten frames again after {statistics.median(waits):.1f} s "
        f"(most {max(waits):.1f}); lost for {found['frames']['lost_seconds']} s; status {process.returncode}"
    )
    return 0 if found["frames"]["reconnects"] >= arguments.times and process.returncode == 130 else 1


def lines(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def soak(arguments: argparse.Namespace, folder: Path) -> int:
    """A long paced run with everything on: memory, FPS and age at its start and its end."""
    clip = paced(arguments, folder)
    command = webcam(
        arguments, "--source", clip, "--realtime", "--loop", "--serve", 0, "--max-seconds", 60 * arguments.minutes
    )
    found = run([*command, "--detections", str(folder / "log.jsonl")], folder / "report.json")
    line = found["timeline"]
    rows = [
        (line["step_s"] * place, *values)
        for place, values in enumerate(zip(line["memory_mib"], line["fps"], line["age_ms"], strict=True))
    ]
    for row in rows[:: max(1, len(rows) // 15)]:
        print(f"{row[0] / 60:5.1f} min  {row[1]} MiB  {row[2]} FPS  age {row[3]} ms")
    memory, fps = found["memory_mib"], found["fps"]
    print(f"memory {memory}, fps {fps}, age {found['age_ms']}, frames {found['frames']}")
    if memory["last_minute"] is None:
        print("too short to compare the first with the last minute")
        return 1
    return 0 if memory["last_minute"] <= memory["first_minute"] * 1.03 + 2 else 1


def cameras(arguments: argparse.Namespace, folder: Path) -> int:
    """Several sources with one model, tracked and counted: FPS and age of each, memory at the start and the end."""
    clip, number = paced(arguments, folder), arguments.sources
    sources = [word for _ in range(number) for word in ("--source", clip)]
    counted = ["--line", "middle:0.5,0,0.5,1", "--serve", 0, "--events", folder / "events.jsonl"]
    command = webcam(arguments, *sources, "--realtime", "--loop", *counted, "--max-seconds", 60 * arguments.minutes)
    command += ["--report", str(folder / "report.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    flat = True
    for index in range(1, number + 1):
        found = json.loads((folder / f"report_{index}.json").read_text(encoding="utf-8"))
        age, frames, memory = found["age_ms"], found["frames"], found["memory_mib"]
        print(
            f"camera {index}: {found['fps']['overall']:.1f} FPS, age median {age['p50']:.0f} ms, 95 % below "
            f"{age['p95']:.0f} ms, {frames['dropped']} of {frames['captured']} dropped; memory of all {memory}"
        )
        flat &= memory["last_minute"] is None or memory["last_minute"] <= memory["first_minute"] * 1.03 + 2
    return 0 if flat else 1


def playable(path: Path) -> int:
    """Frames that can be read from a video."""
    import cv2

    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


PARTS: dict[str, Callable[[argparse.Namespace, Path], int]] = {
    "throughput": throughput,
    "age": age,
    "power": power,
    "start": start,
    "stop": stop,
    "drops": drops,
    "soak": soak,
    "cameras": cameras,
}

if __name__ == "__main__":
    sys.exit(main())
