"""The machine during a run: processor, memory, temperature, and whether it is slowed down.

Sensors are read from Linux's sysfs first, then by psutil.
"""

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
from typing import TypeVar

from mobiledet.utils.machine import memory_mib, read_text, usable_cores

logger = logging.getLogger(__name__)

COMMAND_EVERY = 5.0
"""Seconds between two calls of ``vcgencmd``, which asks the board's firmware; that takes some time."""

COMMAND_TIMEOUT = 1.0
"""Seconds that such a call may take."""

T = TypeVar("T")

Key = tuple[int, float]
"""A process: its id, and when it started, because ids are used again."""

_ZONES = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc", "cpu", "package", "tcpu", "acpitz")
"""Thermal zones of the processor, the best first; by the beginnings of their types."""

_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")

_SANE = (1.0, 130.0)
"""Degrees Celsius; a value outside is of a sensor that doesn't exist."""

_CAUSES = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")

_FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"


@dataclass(frozen=True)
class BoardReading:
    """Readings of the machine at one moment; None where it gives none.

    Attributes:
        cpu_percent: Of all cores together, 0..100, by this program and its capture processes.
        memory_mib: Memory of the same in MiB; memory that two processes share is counted for each.
        peak_memory_mib: The largest value of it so far.
        temperature_c: Of the processor, in degrees Celsius.
        throttled: Causes that slow the board down just now: ``under-voltage``, ``frequency capped``, ``throttled``,
            ``soft temperature limit``.
        throttled_since_start: Causes at any time since the start.
    """

    cpu_percent: float | None = None
    memory_mib: float | None = None
    peak_memory_mib: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    throttled_since_start: tuple[str, ...] = ()


class BoardMonitor:
    """Reads the machine now and then, in a thread of its own; a reading takes it about half a millisecond.

    Args:
        interval: Seconds between two readings.
        children: Gives the ids of other processes that belong to this program; None for those that aren't there.
        sysfs: The folder in which Linux describes its devices.
        command: Raspberry Pi's program that asks the firmware; searched in PATH.
    """

    def __init__(
        self,
        *,
        interval: float = 2.0,
        children: Callable[[], Sequence[int | None]] = list,
        sysfs: Path = Path("/sys"),
        command: str = "vcgencmd",
    ) -> None:
        self._interval = interval
        self._children = children
        self._sysfs = sysfs
        self._command = shutil.which(command)
        self._asked = -COMMAND_EVERY
        self._answers: tuple[int | None, float | None] = None, None
        self._before: tuple[float, dict[Key, float]] | None = None
        self._peak = 0.0
        self._sticky: int | None = None
        self._seen: dict[str, None] = {}
        folder = sysfs / "devices/system/cpu/cpu0/thermal_throttle"
        self._counts = [folder / name for name in ("core_throttle_count", "package_throttle_count")]
        self._counted = self._throttled_times()
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
            self._thread.join(COMMAND_TIMEOUT + 1)

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
        )

    def _run(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                self._reading = self.read()
            except Exception as error:  # a missing number is no reason to stop
                logger.debug("the machine can't be read", exc_info=error)
            # The first processor load needs two readings; it is shown soon.
            wait = self._interval if wait else min(0.5, self._interval)

    def _usage(self) -> tuple[float | None, float | None]:
        """Processor load since the last call in percent, and memory in MiB."""
        now, spent, memory = time.monotonic(), dict[Key, float](), 0.0
        for number in (os.getpid(), *self._children()):
            if number is not None and (used := _process(number)) is not None:
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
        """The firmware's flags and temperature: from its file, or from the command where there is no file."""
        flags = _parsed(read_text(self._sysfs / _FIRMWARE), _hexadecimal)
        if flags is not None or self._command is None:
            return flags, None
        now = time.monotonic()
        if now - self._asked >= COMMAND_EVERY:
            self._asked = now
            # It answers ``throttled=0x50005`` and ``temp=48.3'C``.
            throttled, warmth = self._call("get_throttled"), self._call("measure_temp")
            self._answers = _parsed(throttled, _hexadecimal), _parsed(warmth.partition("'")[0], float)
        return self._answers

    def _call(self, question: str) -> str:
        """What follows the = in the command's answer; empty, now and ever after, once it fails or hangs."""
        if self._command is None:
            return ""
        try:
            done = subprocess.run(
                [self._command, question],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_TIMEOUT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.debug("%s %s: %s", self._command, question, error)
            self._command = None
            return ""
        return done.stdout.partition("=")[2]

    def _note(self, flags: int | None) -> tuple[str, ...]:
        """Causes that slow the board down now; new ones are added to the list of all since the start."""
        now = dict.fromkeys(throttle_causes(flags or 0))
        before, self._counted = self._counted, self._throttled_times()
        if self._counted > before:
            now["throttled"] = None
        self._seen |= now
        if flags is not None:
            # The upper half remembers since the board was switched on: what it held at first isn't of this run.
            remembered = flags >> 16
            if self._sticky is None:
                self._sticky = remembered
            self._seen |= dict.fromkeys(throttle_causes(remembered & ~self._sticky))
        return tuple(now)

    def _throttled_times(self) -> float:
        """How often an Intel processor was too hot, by its own count."""
        return sum(_parsed(read_text(path), float) or 0.0 for path in self._counts)


def _process(number: int) -> tuple[float, float, float] | None:
    """When a process started, its seconds of processor time and its MiB; None for one that has ended."""
    import psutil

    try:
        process = psutil.Process(number)
        with process.oneshot():
            times = process.cpu_times()
            return process.create_time(), times.user + times.system, process.memory_info().rss / 2**20
    except psutil.Error:
        return None


def temperature_c(sysfs: Path) -> float | None:
    """Temperature of the processor in degrees Celsius; None without a sensor of it."""
    found = []
    for zone in sysfs.glob("class/thermal/thermal_zone*"):
        kind, value = read_text(zone / "type").lower(), _parsed(read_text(zone / "temp"), float)
        rank = next((place for place, name in enumerate(_ZONES) if kind.startswith(name)), None)
        if rank is not None and value is not None and _SANE[0] <= value / 1000 <= _SANE[1]:
            found.append((rank, -value))  # of several zones for clusters of cores the hottest one counts
    return round(-min(found)[1] / 1000, 1) if found else _sensor()


def throttle_causes(flags: int) -> tuple[str, ...]:
    """Names of the causes in the lowest four of a Raspberry Pi's flags."""
    return tuple(cause for bit, cause in enumerate(_CAUSES) if flags >> bit & 1)


def _sensor() -> float | None:
    """The processor's temperature, from psutil."""
    try:
        import psutil

        found = psutil.sensors_temperatures()
    except Exception:  # macOS and Windows don't have the function; drivers fail in their own ways
        return None
    for name in _SENSORS:
        values = [entry.current for entry in found.get(name, []) if entry.current is not None]
        sane = [value for value in values if _SANE[0] <= value <= _SANE[1]]
        if sane:
            return round(max(sane), 1)
    return None


def _hexadecimal(text: str) -> int:
    return int(text, 16)


def _parsed(text: str, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text.strip())
    except ValueError:
        return None
