"""Live detection from a camera, a stream, a video or images, with measured speed and delay.

    mobiledet webcam                                              # camera 0, a COCO detector, a window
    mobiledet webcam --model model_int8.onnx --source video.mp4   # or rtsp://..., images/, camera:1, picamera2
    mobiledet webcam --no-window --serve 8080                     # no screen: watch in a browser
    mobiledet webcam --save out.mp4 --report card.json --max-frames 500
    mobiledet webcam --line "gate:100,400,540,400" --mqtt mqtt://broker --homeassistant
    mobiledet webcam --source video.mp4 --no-window --detections - | jq .detections

Keys in the window: q quit, space pause, s snapshot, + - threshold, l labels, p panel, f full screen, h help.
Exit status: 0; 1 for wrong input; 130 after Ctrl-C and 143 after SIGTERM, with all files complete.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()

import argparse  # noqa: E402 - the clock of "start to first boxes" starts before anything is loaded
import sys  # noqa: E402
from contextlib import nullcontext, redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from mobiledet.apps.live.sources.opening import source_examples  # noqa: E402
from mobiledet.cli.common import UsageError, add_labels, fraction, model, print_lines, thread_count  # noqa: E402
from mobiledet.errors import need_extra  # noqa: E402

if TYPE_CHECKING:
    from mobiledet.apps.live.scene.shapes import Scene

DEFAULT_MODEL = "ssd_mobilenet_v1_075_coco"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--model",
        type=model,
        nargs="+",
        default=[DEFAULT_MODEL],
        help=f"exported file or folder, best.pt, or a name ({DEFAULT_MODEL}); several sizes of one with --deadline",
    )
    add_labels(parser)
    parser.add_argument(
        "--source",
        action="append",
        help=f"{source_examples()} (default: camera:0); several times for several, which share the model",
    )
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="where the network runs, as in predict")
    seen = parser.add_argument_group("what is shown")
    seen.add_argument("--threshold", type=fraction, help="minimum score (default: the model's best, or 0.5)")
    seen.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="only these classes")
    seen.add_argument("--no-labels", action="store_true", help="boxes without names and scores")
    seen.add_argument("--no-window", action="store_true", help="do not open a window")
    seen.add_argument("--serve", type=int, nargs="?", const=8080, metavar="PORT", help="page for a browser (8080)")
    seen.add_argument("--host", default="127.0.0.1", help="of the page; 0.0.0.0: open to the network, with a token")
    seen.add_argument("--token", default="", help="of the page, the same at every start (default: a new one)")
    seen.add_argument(
        "--allow-frame", action="append", default=[], metavar="ORIGIN", help="whose pages may show the page in a frame"
    )
    seen.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="of a reverse proxy before the page"
    )
    saved = parser.add_argument_group("what may be left out")
    saved.add_argument("--target-fps", type=float, metavar="N", help="look at N frames a second at most")
    saved.add_argument("--motion", action="store_true", help="look only where something moves, and once a second")
    saved.add_argument(
        "--deadline",
        type=float,
        metavar="MS",
        help="run the largest --model with which 95 %% of frames are ready by then",
    )
    counted = parser.add_argument_group("what is counted")
    counted.add_argument("--track", action="store_true", help="ids that stay from frame to frame")
    counted.add_argument(
        "--line",
        action="append",
        default=[],
        metavar="NAME:X,Y,X,Y",
        help="count who crosses it, in pixels or shares of the frame; several times for several",
    )
    counted.add_argument(
        "--zone", action="append", default=[], metavar="NAME:X,Y,X,Y,X,Y...", help="count who is in it; likewise"
    )
    counted.add_argument(
        "--scene", type=Path, metavar="YAML", help="lines and zones of a file; the page writes changes to it"
    )
    sent = parser.add_argument_group("where events go: who appears, crosses a line, is in a zone")
    sent.add_argument("--events", type=Path, metavar="FILE", help="as JSON lines; - for standard output")
    sent.add_argument("--mqtt", default="", metavar="ADDRESS", help="a broker: mqtt://USER:PASSWORD@HOST:PORT/TOPIC")
    sent.add_argument("--homeassistant", action="store_true", help="describe lines and zones to it, over the broker")
    sent.add_argument("--webhook", default="", metavar="ADDRESS", help="POST each event as JSON")
    sent.add_argument(
        "--on-event", default="", metavar="COMMAND", help="run it, without a shell, the event at its input"
    )
    sent.add_argument(
        "--event-interval",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="fewest between two events of a kind, line and direction for --webhook and --on-event (default: 0)",
    )
    camera = parser.add_argument_group("how the source is read")
    camera.add_argument("--width", type=int, help="asked of the camera, pixels")
    camera.add_argument("--height", type=int, help="asked of the camera, pixels")
    camera.add_argument("--fps", type=float, help="asked of the camera; images per second of a folder with --realtime")
    camera.add_argument("--mjpg", action="store_true", help="ask the camera for MJPG frames: more per second over USB")
    camera.add_argument("--realtime", action="store_true", help="read a file at its own speed, dropping late frames")
    camera.add_argument("--loop", action="store_true", help="repeat a file for ever")
    camera.add_argument(
        "--stall", type=float, metavar="SECONDS", help="reconnect after so long without a frame (camera 3, stream 6)"
    )
    kept = parser.add_argument_group("what is saved")
    kept.add_argument("--save", type=Path, metavar="VIDEO", help="annotated: .mp4 (fast), .webm (for browsers), .avi")
    kept.add_argument(
        "--detections", type=Path, metavar="FILE", help="of every frame, as JSON lines; - for standard output"
    )
    kept.add_argument("--report", type=Path, metavar="FILE", help="all figures as JSON, for fps-card")
    kept.add_argument("--label", default="", help="name of this board in the report")
    kept.add_argument("--snapshots", type=Path, default=Path("runs/snapshots"), help="folder (default: runs/snapshots)")
    kept.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    kept.add_argument("--max-seconds", type=float, metavar="S", help="stop S seconds after the first boxes")


def run(arguments: argparse.Namespace) -> int:
    """Detect until the end, print a summary."""
    check(arguments)

    from mobiledet.exporters.prepare_model import check_runnable, prepare_model

    on_processor = arguments.device in ("auto", "cpu")  # elsewhere a name runs in PyTorch, which knows other devices
    for name in arguments.model:
        check_runnable(name, provider=None if on_processor else arguments.device)
    if arguments.serve is not None:
        need_extra("serve")

    from mobiledet.apps.live.card.report import summary_lines
    from mobiledet.apps.live.events.sending import EventOptions
    from mobiledet.apps.live.options import LiveOptions
    from mobiledet.apps.live.pacing import Pacing
    from mobiledet.apps.live.save.json_lines import STDOUT
    from mobiledet.apps.live.session import LiveRun
    from mobiledet.apps.live.sources.base import SourceOptions
    from mobiledet.apps.live.stopping import LiveStop
    from mobiledet.errors import MobiledetError

    scene = scene_of(arguments)
    track = bool(arguments.track or scene or arguments.scene)
    events = EventOptions(
        file=arguments.events,
        mqtt=arguments.mqtt,
        home_assistant=arguments.homeassistant,
        webhook=arguments.webhook,
        command=arguments.on_event,
        interval=arguments.event_interval,
    )
    if not track and events:
        raise UsageError("events need ids, lines or zones: --track, --line, --zone or --scene")
    options = LiveOptions(
        model_name=model_name(arguments.model[0]),
        sources=arguments.source or ["camera:0"],
        source_options=SourceOptions(
            width=arguments.width,
            height=arguments.height,
            fps=arguments.fps,
            mjpg=arguments.mjpg,
            realtime=arguments.realtime,
            loop=arguments.loop,
            stall_s=arguments.stall,
        ),
        threads=arguments.threads,
        label_file=arguments.labels,
        provider=None if arguments.device == "auto" else arguments.device,
        threshold=arguments.threshold,
        classes=arguments.classes,
        labels=not arguments.no_labels,
        window=not arguments.no_window,
        serve=arguments.serve,
        host=arguments.host,
        token=arguments.token,
        allow_frames=arguments.allow_frame,
        allow_hosts=arguments.allow_host,
        track=track,
        scene=scene,
        scene_file=arguments.scene,
        events=events,
        pacing=Pacing(target_fps=arguments.target_fps, motion=arguments.motion, deadline_ms=arguments.deadline),
        save=arguments.save,
        detections=arguments.detections,
        report=arguments.report,
        label=arguments.label,
        snapshots=arguments.snapshots,
        max_frames=arguments.max_frames,
        max_seconds=arguments.max_seconds,
        started=STARTED,
        command=["python", *sys.argv],
    )
    live = LiveRun(options)
    runnable: list[str | Path] = arguments.model
    if on_processor:
        runnable = [prepare_model(name, threads=arguments.threads) for name in arguments.model]
    with LiveStop() as stop:
        reports = live.run(runnable, stop)
    to_stdout = STDOUT in (arguments.detections, arguments.events)
    with redirect_stdout(sys.stderr) if to_stdout else nullcontext():
        for report in reports:
            if len(reports) > 1:
                print_lines([f"{report['source']['name']}:"])
            print_lines(summary_lines(report))
    if live.problems:
        raise MobiledetError("; ".join(live.problems))
    return stop.exit_status


def model_name(text: str) -> str:
    """A model's name in titles and reports; a run folder's number alone would say too little."""
    path = Path(text)
    return f"{path.parent.name}/{path.name}" if path.name.isdigit() and path.parent.name else path.name


def scene_of(arguments: argparse.Namespace) -> Scene:
    """The lines and zones of the options."""
    from mobiledet.apps.live.scene.shapes import Scene, parse_shape

    return Scene(
        *(
            dict(parse_shape(kind, text) for text in texts)
            for kind, texts in (("line", arguments.line), ("zone", arguments.zone))
        )
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse values that are not valid."""
    if not 0 <= arguments.event_interval < 1e9:
        raise UsageError("--event-interval must be 0 or more seconds")
    for name in ("width", "height", "fps", "stall", "max_frames", "max_seconds", "target_fps", "deadline"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0")
    if len(arguments.model) > 1 and arguments.deadline is None:
        raise UsageError("several models need --deadline, which chooses among them")
    if arguments.serve is not None and not 0 <= arguments.serve <= 65535:
        raise UsageError("--serve must be a port, 1 to 65535, or 0 for any free one")
    if arguments.serve is None and (arguments.host != "127.0.0.1" or arguments.token):
        raise UsageError("--host and --token need --serve")
    if arguments.serve is None and (arguments.allow_frame or arguments.allow_host):
        raise UsageError("--allow-frame and --allow-host need --serve")
    kept = (arguments.save, arguments.detections, arguments.report, arguments.events)
    files = [path.resolve() for path in kept if path is not None]
    if len(set(files)) < len(files):
        raise UsageError("--save, --detections, --events and --report must name different files")
