"""Where a machine keeps its temperature, clock and throttling: Linux's sysfs first, then what psutil finds."""

from __future__ import annotations

from pathlib import Path

_ZONES = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc", "cpu", "package", "tcpu", "acpitz")
"""Thermal zones that speak for the processor, the best first; by the beginnings of their types."""

_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")

_SANE = (1.0, 130.0)
"""Degrees Celsius; what lies outside is a sensor that isn't there."""

_WORDS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")

_FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"


def temperature_c(sysfs: Path) -> float | None:
    """Of the processor in degrees Celsius; None where no sensor speaks for it."""
    best: tuple[int, float] | None = None
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        kind = _read(zone / "type").lower()
        rank = next((place for place, name in enumerate(_ZONES) if kind.startswith(name)), None)
        value = _number(_read(zone / "temp"))
        if rank is None or value is None or not _SANE[0] <= value / 1000 <= _SANE[1]:
            continue
        # Of several zones for clusters of cores the hottest is the one that counts.
        if best is None or (rank, -value) < (best[0], -best[1]):
            best = rank, value
    return round(best[1] / 1000, 1) if best is not None else _sensor()


def clock_mhz(sysfs: Path) -> float | None:
    """Mean clock of the cores in MHz; None where it isn't told."""
    paths = sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [value / 1000 for path in paths if (value := _number(_read(path)))]
    if not clocks:
        try:
            import psutil

            found = psutil.cpu_freq()
        except Exception:  # psutil misses it in its own ways on each system
            return None
        clocks = [found.current] if found is not None and found.current else []
    return round(sum(clocks) / len(clocks)) if clocks else None


def firmware_flags(sysfs: Path) -> int | None:
    """A Raspberry Pi's flags as ``vcgencmd get_throttled`` gives them; None where the kernel doesn't show them."""
    try:
        return int(_read(sysfs / _FIRMWARE), 16)
    except ValueError:
        return None


def throttle_words(flags: int) -> tuple[str, ...]:
    """The lowest four of a Raspberry Pi's flags in words."""
    return tuple(word for bit, word in enumerate(_WORDS) if flags >> bit & 1)


class ThrottleCount:
    """Whether an Intel processor was too hot: it counts how often."""

    def __init__(self, sysfs: Path) -> None:
        self._paths = [
            sysfs / "devices/system/cpu/cpu0/thermal_throttle" / name
            for name in ("core_throttle_count", "package_throttle_count")
        ]
        self._last = self._count()

    def grown(self) -> bool:
        """Whether it did since the last call."""
        count = self._count()
        grown, self._last = count > self._last, count
        return grown

    def _count(self) -> float:
        return sum(_number(_read(path)) or 0.0 for path in self._paths)


def _sensor() -> float | None:
    """The processor's temperature as psutil finds it."""
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # some zones exist but don't answer
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
