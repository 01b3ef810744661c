"""Damaged files for every reader: each must be read, or refused by one of the package's own errors, soon and small.

    python benchmarks/fuzz.py photos/ model.pt model.onnx detector.tflite photo.jpg clip.mp4 --minutes 30
    python benchmarks/fuzz.py photos/ --replay 17            # the 17th damaged copy of it again, with its traceback

A folder is a data set in any format or a model, a file whatever its ending says; a model that can be opened is also
run. From each a damaged copy is made, by the number of the try alone: bytes flipped, cut out, doubled or put in, or a
value of a JSON file exchanged. A finding is what ends in another exception, takes more than ten seconds of processor
time or 6 GB of addresses, waits for something that doesn't come, or ends the process. A busy machine makes none.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

SECONDS, IDLE_SECONDS, BYTES, BATCH = 10, 20, 6 << 30, 50
"""What one file may take: of processor time, of waiting, of addresses; and how many are tried in one process."""

Findings = dict[str, list[str]]
"""What happened, and the copies with which it did."""

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
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first copy, to go on")
    parser.add_argument("--replay", type=int, metavar="N", help="only this copy of the one seed, with its traceback")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            reader_of(arguments.seeds[0])(damaged_copy(arguments.seeds[0], arguments.replay, Path(folder)))
        return
    end, start = time.monotonic() + 60 * arguments.minutes, arguments.start
    counts: Counter[tuple[Path, str]] = Counter()
    found: Findings = defaultdict(list)
    while time.monotonic() < end:
        for seed in arguments.seeds:
            try_batch(seed, range(start, start + BATCH), counts, found)
        start += BATCH
    for seed in arguments.seeds:
        read, refused, bad = (counts[seed, outcome] for outcome in ("read", "refused", "finding"))
        print(f"{seed}: {read + refused + bad} tried, {read} read, {refused} refused, {bad} findings")
    print(f"go on with: --start {start}")
    for what, copies in found.items():
        print(f"\n{what}\n{len(copies)} times: {', '.join(copies[:3])}")
    sys.exit(1 if found else 0)


def try_batch(seed: Path, numbers: Sequence[int], counts: Counter[tuple[Path, str]], found: Findings) -> None:
    """Try some copies in a process of their own, and go on in another where one ends it."""
    remaining = list(numbers)
    while remaining:
        with tempfile.TemporaryFile() as last_words:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            arguments = (seed, remaining, sender, last_words.fileno())
            child = multiprocessing.get_context("fork").Process(target=work, args=arguments, daemon=True)
            child.start()
            sender.close()
            outcome, detail = answer(child.pid or 0, receiver)
            if outcome != "ready":
                sys.exit(f"{seed}: can't be read undamaged: {detail or last_words_in(last_words)}")
            while remaining and outcome:
                outcome, detail = answer(child.pid or 0, receiver)
                if not outcome:
                    child.kill()
                    child.join()
                    detail = f"{detail or f'exit code {child.exitcode}'}: {last_words_in(last_words)}"
                number = remaining.pop(0)
                counts[seed, outcome or "finding"] += 1
                if outcome in ("finding", ""):
                    found[detail].append(f"{seed} --replay {number}")
            child.join()


def answer(pid: int, receiver: Connection) -> tuple[str, str]:
    """How it went with the next copy; no outcome where the process ended, goes on for too long or waits."""
    begun = used = processor_seconds(pid)
    idle = 0
    while not receiver.poll(1):
        before, used = used, processor_seconds(pid)
        idle = 0 if used > before or wants_to_run(pid) else idle + 1
        if used - begun > SECONDS or idle > IDLE_SECONDS:
            os.kill(pid, signal.SIGUSR1)  # has it write where it is
            time.sleep(1)
            return "", "it waits" if idle > IDLE_SECONDS else f"more than {SECONDS} s of processor time"
    try:
        outcome: tuple[str, str] = receiver.recv()
    except EOFError:
        return "", ""
    return outcome


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def wants_to_run(pid: int) -> bool:
    """Whether a thread of it could go on if it had a processor, or waits for a disk."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return any(thread.read_text().rpartition(")")[2].split()[0] in "RD" for thread in threads)


def last_words_in(file: Any) -> str:
    """Where a process was, as it wrote itself: a line of our code, and its last line."""
    file.seek(0)
    lines = file.read().decode(errors="replace").splitlines()
    return " ".join([*(line.strip() for line in lines if "mobiledet/" in line)][:1] + lines[-1:])


def work(seed: Path, numbers: Sequence[int], sender: Connection, last_words: int) -> None:
    """In a child process: read the damaged copies one by one and report how each went."""
    logging.disable(logging.CRITICAL)
    os.dup2(last_words, 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    read = reader_of(seed)
    read(seed)  # loads what it needs
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    sender.send(("ready", ""))
    from mobiledet.errors import MobiledetError

    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            copy = damaged_copy(seed, number, Path(folder))
            outcome, detail = "read", ""
            try:
                read(copy)
            except MobiledetError:
                outcome = "refused"
            except BaseException as error:
                lines = traceback.extract_tb(error.__traceback__)
                ours = next((line for line in reversed(lines) if "mobiledet/" in line.filename), lines[-1])
                outcome = "finding"
                detail = f"{type(error).__name__} at {ours.filename}:{ours.lineno}: {str(error)[:200]!r}"
            sender.send((outcome, detail))


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
        open_data(DataConfig(root=str(path), val_split=None))  # a few images are too few to hold some out

    def read_config(path: Path) -> None:
        try:
            plain = json.loads(path.read_bytes())
        except ValueError:
            raise ConfigError("not JSON") from None
        config_from_plain(plain if isinstance(plain, dict) else {})

    def run_model(path: Path) -> None:
        Detector(path, threads=1)(np.zeros((40, 60, 3), np.uint8))

    def read_tflite(path: Path) -> None:
        try:
            import_weights(path)
        except MobiledetError:
            run_model(path)
        else:
            with contextlib.suppress(MobiledetError):
                run_model(path)

    if seed.is_dir():
        return run_model if (seed / "card.json").exists() else read_folder

    suffix = seed.suffix.lower()
    if suffix in VIDEO_EXTENSIONS:
        return lambda path: sum(1 for _ in read_video(path))
    readers: dict[str, Callable[[Path], Any]] = {
        **dict.fromkeys((".pt", ".onnx"), run_model),
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
        content = damaged(content, rng, suffix=target.suffix)
    target.write_bytes(content)
    return copy


def damaged(content: bytes, rng: random.Random, *, suffix: str) -> bytes:
    """The content with one change."""
    if suffix == ".tflite" and rng.random() < 0.6:
        with contextlib.suppress(Exception):  # damaged before, or a value that has no place in the file
            return damaged_graph(content, rng)
    if suffix == ".json" and rng.random() < 0.6:
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


def damaged_graph(content: bytes, rng: random.Random) -> bytes:
    """A .tflite file with another value in one of its tables, as a converter with a fault would write it."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    from mobiledet.runtime.card import MARK, seal

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    tables = [model, graph, *model.operatorCodes, *graph.operators, *graph.tensors]
    tables += [table for op in graph.operators if (table := op.builtinOptions) is not None]
    tables += [table for tensor in graph.tensors if (table := tensor.quantization) is not None]
    places = [(table, name) for table in tables for name, value in vars(table).items() if value is not None]
    kind = rng.choice(sorted({type(table).__name__ for table, _ in places}))
    table, name = rng.choice([place for place in places if type(place[0]).__name__ == kind])
    value = getattr(table, name)
    if name == "customOptions":
        options = flexbuffers.Loads(bytes(value))
        options[rng.choice(sorted(options))] = rng.choice((-1, 0, 2**31, 1e30, float("nan"), "x", True, None))
        value = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
    elif isinstance(value, int):
        value = rng.choice((-1, 0, 1, 2, value + 1, value - 1, 127, 2**31 - 1, rng.randrange(len(graph.tensors))))
    elif isinstance(value, float):
        value = rng.choice((-1.0, 0.0, 1e30, float("nan")))
    elif isinstance(value, bytes):
        value = rng.choice((b"", b"x", b"TFLite_Detection_PostProcess", b"\xff"))
    elif hasattr(value, "Pack"):
        value = None
    elif len(value):
        value = list(value)
        at = rng.randrange(len(value) + 1)
        match rng.randrange(4):
            case 0:
                value = value[:at]
            case 1:
                value = value[at:]
            case 2:
                value.insert(at, rng.choice(value))
            case _ if value and not hasattr(value[0], "Pack"):
                value[at - 1] = rng.choice((-1, 0, 1, value[at - 1] + 1, value[at - 1] * 2, 2**31 - 1))
            case _:
                value[at - 1] = rng.choice(value)
    setattr(table, name, value)
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    stream = io.BytesIO(bytes(builder.Output()))
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as former, zipfile.ZipFile(stream, "a") as archive:
            for file in former.namelist():
                archive.writestr(file, former.read(file))
    return seal(stream.getvalue()) if MARK in stream.getvalue() else stream.getvalue()


def nodes(plain: Any) -> Any:
    """Every place of a JSON value, as its container and the key there."""
    if isinstance(plain, dict | list):
        for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
            yield plain, key
            yield from nodes(plain[key])


if __name__ == "__main__":
    main()
