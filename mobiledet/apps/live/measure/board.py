"""What the machine tells about itself while it works: processor, memory, temperature, and whether it is slowed down."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledet.apps.live.measure.sensors import ThrottleCount, clock_mhz, firmware_flags, temperature_c, throttle_words
from mobiledet.utils.machine import memory_mib, usable_cores

logger = logging.getLogger(__name__)

_COMMAND_EVERY = 5.0
"""Seconds between two calls of ``vcgencmd``, which asks the board's firmware and takes it some time."""

_COMMAND_TIMEOUT = 1.0

Key = tuple[int, float]
"""A process: its number, and when it started, for numbers are used again."""


@dataclass(frozen=True)
class BoardReading:
    """What a machine read at one moment; None where it doesn't tell.

    Attributes:
        cpu_percent: Of all cores together, 0..100, by this program and its capture processes.
        memory_mib: Memory of the same in MiB; what two processes share is counted for each.
        peak_memory_mib: The most of it so far.
        temperature_c: Of the processor, in degrees Celsius.
        throttled: What slows the board down just now: ``under-voltage``, ``frequency capped``, ``throttled``, ``soft
            temperature limit``.
        throttled_since_start: What did so at any time since the start.
        clock_mhz: Mean of the cores.
    """

    cpu_percent: float | None = None
    memory_mib: float | None = None
    peak_memory_mib: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    throttled_since_start: tuple[str, ...] = ()
    clock_mhz: float | None = None


class BoardMonitor:
    """Reads the machine now and then, in a thread of its own; a reading takes it about half a millisecond.

    Args:
        interval: Seconds between two readings.
        processes: Gives the numbers of processes that belong to this program.
        sysfs: Where Linux tells about its devices.
        command: Raspberry Pi's program that asks the firmware; looked for in PATH.
    """

    def __init__(
        self,
        *,
        interval: float = 2.0,
        processes: Callable[[], Sequence[int]] = tuple,
        sysfs: Path = Path("/sys"),
        command: str = "vcgencmd",
    ) -> None:
        self._interval = interval
        self._processes = processes
        self._sysfs = sysfs
        self._command = shutil.which(command)
        self._asked = -_COMMAND_EVERY
        self._answers: tuple[int | None, float | None] = None, None
        self._before: tuple[float, dict[Key, float]] | None = None
        self._peak = 0.0
        self._sticky: int | None = None
        self._seen: dict[str, None] = {}
        self._count = ThrottleCount(sysfs)
        self._reading = BoardReading()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board monitor", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading, within a second or two. Harmless when done twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_COMMAND_TIMEOUT + 1)

    def reading(self) -> BoardReading:
        """The latest reading, at once; all unknown before the first."""
        return self._reading

    def read(self) -> BoardReading:
        """Read the machine now; `start` has it done regularly."""
        percent, memory = self._usage()
        if memory is not None:
            own = memory_mib()
            self._peak = max(self._peak, memory, own[1] if own is not None else 0.0)
        flags, warmth = self._ask()
        now = self._note(flags)
        temperature = temperature_c(self._sysfs)
        return BoardReading(
            cpu_percent=percent,
            memory_mib=memory,
            peak_memory_mib=round(self._peak, 1) if self._peak else None,
            temperature_c=warmth if temperature is None else temperature,
            throttled=now,
            throttled_since_start=tuple(self._seen),
            clock_mhz=clock_mhz(self._sysfs),
        )

    def _run(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                self._reading = self.read()
            except Exception as error:  # a number less is no reason to stop
                logger.debug("the machine can't be read", exc_info=error)
            # The first share of the processor needs two looks; it is shown soon.
            wait = self._interval if wait else min(0.5, self._interval)

    def _usage(self) -> tuple[float | None, float | None]:
        """Share of the processor since the last call in percent, and memory in MiB."""
        now, spent, memory = time.monotonic(), dict[Key, float](), 0.0
        for number in (os.getpid(), *self._processes()):
            used = _process(number)
            if used is not None:
                spent[number, used[0]] = used[1]
                memory += used[2]
        percent = None
        if self._before is not None and now > self._before[0] and spent:
            then, earlier = self._before
            work = sum(seconds - earlier.get(key, 0.0) for key, seconds in spent.items())
            percent = round(min(100.0, max(0.0, 100 * work / (now - then) / usable_cores())), 1)
        self._before = now, spent
        return percent, round(memory, 1) if memory else None

    def _ask(self) -> tuple[int | None, float | None]:
        """The firmware's flags and temperature: from its file, or from the command where that is all there is."""
        flags = firmware_flags(self._sysfs)
        if flags is not None or self._command is None:
            return flags, None
        now = time.monotonic()
        if now - self._asked >= _COMMAND_EVERY:
            self._asked = now
            throttled, warmth = self._call("get_throttled"), self._call("measure_temp")
            self._answers = _flags(throttled), _degrees(warmth)
        return self._answers

    def _call(self, question: str) -> str:
        """The command's answer; empty, now and ever after, once it fails or hangs."""
        if self._command is None:
            return ""
        try:
            done = subprocess.run(
                [self._command, question],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_TIMEOUT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.debug("%s %s: %s", self._command, question, error)
            self._command = None
            return ""
        return done.stdout

    def _note(self, flags: int | None) -> tuple[str, ...]:
        """What slows the board down now; what is new goes to the list of all that did."""
        now = dict.fromkeys(throttle_words(flags or 0))
        if self._count.grown():
            now["throttled"] = None
        self._seen |= now
        if flags is not None:
            # The upper half remembers since the board was switched on: what stood there at first isn't this run's.
            remembered = flags >> 16
            if self._sticky is None:
                self._sticky = remembered
            self._seen |= dict.fromkeys(throttle_words(remembered & ~self._sticky))
        return tuple(now)


def _process(number: int) -> tuple[float, float, float] | None:
    """When a process started, the seconds of processor it has used and its MiB; None for one that has ended."""
    import psutil

    try:
        process = psutil.Process(number)
        with process.oneshot():
            times = process.cpu_times()
            return process.create_time(), times.user + times.system, process.memory_info().rss / 2**20
    except psutil.Error:
        return None


def _flags(answer: str) -> int | None:
    """Of ``throttled=0x50005``."""
    try:
        return int(answer.partition("=")[2].strip(), 16)
    except ValueError:
        return None


def _degrees(answer: str) -> float | None:
    """Of ``temp=48.3'C``."""
    try:
        return float(answer.partition("=")[2].partition("'")[0])
    except ValueError:
        return None
