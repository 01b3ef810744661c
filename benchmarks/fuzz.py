"""Damaged files for every reader: each must be read, or refused by one of the package's own errors, soon and small.

    python benchmarks/fuzz.py photos/ model.pt model.onnx detector.tflite photo.jpg clip.mp4 --minutes 30
    python benchmarks/fuzz.py photos/ --replay 17            # the 17th damaged copy of it again, with its traceback

A folder is a data set in any format, a file whatever its ending says. From each a damaged copy is made, by the number
of the try alone: bytes flipped, cut out, doubled or put in, or a value of a JSON file exchanged. What ends in another
exception, takes more than ten seconds or 6 GB, or ends the process is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS, BYTES, BATCH = 10, 6 << 30, 100
"""What one file may take, and how many are tried in one process."""

TOKENS = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"-1", b"0", b"nan", b"1e999", b"9" * 40, b"%s", b"../../"),
    *(b"<", b"&", b'"', b"{", b"]", b",", b"\x1b[2J", "\u202e\u0308ü".encode(), b"\xed\xa0\x80", b"A" * 5000),
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    float("nan"),
    2**70,
    "",
    "x",
    "../x",
    "\ud800",
    [],
    {},
    [[]],
    ["a"],
    {"a": 1},
)


def main() -> None:
    """Parse arguments, try damaged copies of all seeds in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", type=Path, help="small good files and folders")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--replay", type=int, metavar="N", help="only this copy of the one seed, with its traceback")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            reader_of(arguments.seeds[0])(damaged_copy(arguments.seeds[0], arguments.replay, Path(folder)))
        return
    end, start = time.monotonic() + 60 * arguments.minutes, 0
    counts: Counter[tuple[Path, str]] = Counter()
    found: dict[str, str] = {}
    while time.monotonic() < end:
        for seed in arguments.seeds:
            try_batch(seed, range(start, start + BATCH), counts, found)
        start += BATCH
    for seed in arguments.seeds:
        read, refused, bad = (counts[seed, outcome] for outcome in ("read", "refused", "finding"))
        print(f"{seed}: {read + refused + bad} tried, {read} read, {refused} refused, {bad} findings")
    for what, where in found.items():
        print(f"\n{where}\n{what}")
    sys.exit(1 if found else 0)


def try_batch(seed: Path, numbers: Sequence[int], counts: Counter[tuple[Path, str]], found: dict[str, str]) -> None:
    """Try some copies in a process of their own, and go on in another where one ends it."""
    remaining = list(numbers)
    while remaining:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=work, args=(seed, remaining, sender), daemon=True)
        child.start()
        sender.close()
        while remaining:
            try:
                if not receiver.poll(3 * SECONDS):
                    raise EOFError
                outcome, detail = receiver.recv()
            except EOFError:
                child.kill()
                child.join()
                outcome, detail = "finding", f"the process ended or hung, exit code {child.exitcode}"
            number = remaining.pop(0)
            counts[seed, outcome] += 1
            if outcome == "finding":
                found.setdefault(detail, f"{seed} --replay {number}")
            if child.exitcode is not None:
                break
        child.join()


def work(seed: Path, numbers: Sequence[int], sender: Connection) -> None:
    """In a child process: read the damaged copies one by one and report how each went."""
    import logging

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGALRM, out_of_time)
    read = reader_of(seed)
    from mobiledet.errors import MobiledetError

    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            copy = damaged_copy(seed, number, Path(folder))
            outcome, detail = "read", ""
            signal.alarm(SECONDS)
            try:
                read(copy)
            except MobiledetError:
                outcome = "refused"
            except BaseException as error:
                lines = traceback.extract_tb(error.__traceback__)
                ours = next((line for line in reversed(lines) if "mobiledet/" in line.filename), lines[-1])
                outcome = "finding"
                detail = f"{type(error).__name__} at {ours.filename}:{ours.lineno}: {str(error)[:200]!r}"
            finally:
                signal.alarm(0)
            sender.send((outcome, detail))


def out_of_time(*_: Any) -> None:
    """Handles the alarm."""
    raise TimeoutError(f"more than {SECONDS} s")


def reader_of(seed: Path) -> Callable[[Path], Any]:
    """What reads such a file or folder."""
    from mobiledet.config import DataConfig, config_from_plain
    from mobiledet.data.formats.choose import read_dataset
    from mobiledet.data.images import load_image
    from mobiledet.data.opening import open_data
    from mobiledet.data.videos import VIDEO_EXTENSIONS, read_video
    from mobiledet.errors import ConfigError, MobiledetError
    from mobiledet.runtime.detector import Detector
    from mobiledet.weights.importing import import_weights

    def read_folder(path: Path) -> None:
        read_dataset(path)
        open_data(DataConfig(root=str(path)))

    def read_config(path: Path) -> None:
        try:
            plain = json.loads(path.read_bytes())
        except ValueError:
            raise ConfigError("not JSON") from None
        config_from_plain(plain if isinstance(plain, dict) else {})

    if seed.is_dir():
        return Detector if (seed / "card.json").exists() else read_folder

    def read_tflite(path: Path) -> None:
        with contextlib.suppress(MobiledetError):
            Detector(path, threads=1)
        import_weights(path)

    suffix = seed.suffix.lower()
    if suffix in VIDEO_EXTENSIONS:
        return lambda path: sum(1 for _ in read_video(path))
    readers: dict[str, Callable[[Path], Any]] = {
        **dict.fromkeys((".pt", ".onnx"), Detector),
        **dict.fromkeys((".pb", ".safetensors"), import_weights),
        ".tflite": read_tflite,
        ".json": read_config,
    }
    return readers.get(suffix, load_image)


def damaged_copy(seed: Path, number: int, folder: Path) -> Path:
    """The copy of that number: of a folder all but one file as they are."""
    rng = random.Random(f"{seed.name} {number}")
    copy = folder / seed.name
    if seed.is_dir():
        shutil.copytree(seed, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        labels = [path for path in files if path.suffix in (".json", ".xml", ".txt", ".csv", ".yaml", ".names")]
        target = rng.choice(labels if labels and rng.random() < 0.85 else files)
    else:
        target = copy
        shutil.copy(seed, copy)
    content = target.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        content = damaged(content, rng, is_json=target.suffix == ".json")
    target.write_bytes(content)
    return copy


def damaged(content: bytes, rng: random.Random, *, is_json: bool) -> bytes:
    """The content with one change."""
    if is_json and rng.random() < 0.6:
        try:
            plain = json.loads(content)
        except ValueError:
            plain = None
        places = list(nodes(plain))
        if places:
            parent, key = rng.choice(places)
            if rng.random() < 0.2:
                del parent[key]
            else:
                parent[key] = rng.choice(VALUES)
            return json.dumps(plain).encode()
    at = rng.randrange(len(content) + 1)
    size = rng.choice((1, 1, 4, 64, 4096))
    match rng.randrange(5):
        case 0:
            flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in content[at : at + 1])
            return content[:at] + flipped + content[at + 1 :]
        case 1:
            return content[:at] + content[at + size :]
        case 2:
            return content[: at + size] + content[at:]
        case 3:
            return content[:at] + rng.choice(TOKENS) + content[at:]
        case _:
            return content[:at] + bytes(rng.randrange(256) for _ in range(size)) + content[at + size :]


def nodes(plain: Any) -> Any:
    """Every place of a JSON value, as its container and the key there."""
    if isinstance(plain, dict | list):
        for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
            yield plain, key
            yield from nodes(plain[key])


if __name__ == "__main__":
    main()
