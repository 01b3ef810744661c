import os
import stat
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from live_parts import wait_until

from mobiledet.apps.live.measure import board
from mobiledet.apps.live.measure.board import BoardMonitor, BoardReading


@pytest.fixture(autouse=True)
def _no_sensors_of_this_machine(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)


@pytest.fixture
def sysfs(tmp_path):
    """``sysfs({"class/thermal/thermal_zone0/type": "soc"})``: a tree of such files."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "sys"

    return write


def zones(*pairs):
    files = {}
    for number, (kind, value) in enumerate(pairs):
        files[f"class/thermal/thermal_zone{number}/type"] = f"{kind}\n"
        files[f"class/thermal/thermal_zone{number}/temp"] = f"{value}\n"
    return files


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("cpu-thermal", 48312)], 48.3),
        ([("acpitz", 27800), ("x86_pkg_temp", 61000), ("iwlwifi_1", 40000)], 61.0),
        ([("cpu-thermal", 50000), ("cpu-thermal", 62000)], 62.0),
        ([("soc_dts0", 41000), ("gpu-thermal", 80000)], 41.0),
        ([("cpu-thermal", 0)], None),
        ([("cpu-thermal", 255000)], None),
        ([("cpu-thermal", -274000), ("acpitz", 30000)], 30.0),
        ([("cpu-thermal", "?")], None),
        ([("battery", 30000)], None),
        ([], None),
    ],
)
def test_the_zone_of_the_processor(sysfs, pairs, expected):
    assert board.temperature_c(sysfs(zones(*pairs))) == expected


def test_without_zones_psutil_is_asked(tmp_path, monkeypatch):
    import psutil

    found = {
        "nvme": [SimpleNamespace(current=30.0)],
        "coretemp": [SimpleNamespace(current=value) for value in (55.04, 0.0, None)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: found, raising=False)
    assert board.temperature_c(tmp_path) == 55.0
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert board.temperature_c(tmp_path) is None


@pytest.mark.parametrize(
    ("flags", "causes"),
    [
        (0, ()),
        (0x1, ("under-voltage",)),
        (0x2, ("frequency capped",)),
        (0x4, ("throttled",)),
        (0x8, ("soft temperature limit",)),
        (0x50005, ("under-voltage", "throttled")),
        (0xF0000, ()),
    ],
)
def test_flags_name_causes(flags, causes):
    assert board.throttle_causes(flags) == causes


FLAGS = "devices/platform/soc/soc:firmware/get_throttled"


def test_what_was_before_the_start_is_not_of_this_run(sysfs):
    root = sysfs({FLAGS: "50000\n"})
    monitor = BoardMonitor(sysfs=root, command="none-such")
    assert monitor.read().throttled_since_start == ()
    sysfs({FLAGS: "50008\n"})
    reading = monitor.read()
    assert reading.throttled == reading.throttled_since_start == ("soft temperature limit",)
    # The cap came and went between two looks; the firmware remembers.
    sysfs({FLAGS: "70000\n"})
    reading = monitor.read()
    assert reading.throttled == ()
    assert reading.throttled_since_start == ("soft temperature limit", "frequency capped")


def test_an_intel_processor_counts(sysfs):
    name = "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    monitor = BoardMonitor(sysfs=sysfs({name: "7\n"}), command="none-such")
    assert monitor.read().throttled == ()
    sysfs({name: "9\n"})
    assert monitor.read().throttled == ("throttled",)
    reading = monitor.read()
    assert (reading.throttled, reading.throttled_since_start) == ((), ("throttled",))


@pytest.fixture
def vcgencmd(tmp_path, monkeypatch):
    """``vcgencmd("echo hello")``: a program of that name in PATH that does this, and notes its calls."""
    if sys.platform == "win32":
        pytest.skip("a shell script")

    def write(script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "vcgencmd"
        program.write_text(f'#!/bin/sh\necho "$1" >> "{tmp_path}/calls"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "calls"

    return write


PI = """case "$1" in get_throttled) echo "throttled=0x50005";; measure_temp) echo "temp=48.3'C";; esac"""


def test_vcgencmd_is_asked_now_and_then(vcgencmd, tmp_path, monkeypatch):
    calls = vcgencmd(PI)
    monitor = BoardMonitor(sysfs=tmp_path)
    for _ in range(3):
        reading = monitor.read()
        assert reading.throttled == reading.throttled_since_start == ("under-voltage", "throttled")
        assert reading.temperature_c == 48.3
    assert calls.read_text().split() == ["get_throttled", "measure_temp"]
    monkeypatch.setattr(board, "COMMAND_EVERY", 0)
    monitor.read()
    assert len(calls.read_text().split()) == 4


def test_sysfs_knows_the_temperature_better(vcgencmd, sysfs):
    vcgencmd(PI)
    assert BoardMonitor(sysfs=sysfs(zones(("cpu-thermal", 51000)))).read().temperature_c == 51.0


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 30"])
def test_a_vcgencmd_that_fails_or_hangs_is_asked_once(vcgencmd, tmp_path, monkeypatch, script):
    calls = vcgencmd(script)
    monkeypatch.setattr(board, "COMMAND_EVERY", 0)
    monkeypatch.setattr(board, "COMMAND_TIMEOUT", 0.3)
    monitor = BoardMonitor(sysfs=tmp_path)
    for _ in range(3):
        reading = monitor.read()
    assert (reading.throttled, reading.temperature_c) == ((), None)
    assert calls.read_text().split() == ["get_throttled"]


@pytest.mark.parametrize("script", ["echo nonsense", "echo throttled=0xzz", "printf '\\377\\376='", "true"])
def test_a_vcgencmd_that_answers_something_else(vcgencmd, tmp_path, script):
    vcgencmd(script)
    reading = BoardMonitor(sysfs=tmp_path).read()
    assert (reading.throttled, reading.temperature_c) == ((), None)


def test_processor_and_memory_of_this_program(tmp_path):
    monitor = BoardMonitor(sysfs=tmp_path, command="none-such")
    assert monitor.read().cpu_percent is None
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    reading = monitor.read()
    assert 0 < reading.cpu_percent <= 100
    assert 10 < reading.memory_mib <= reading.peak_memory_mib


BURN = "import time\nheld = bytearray(80 * 2**20)\nprint(1, flush=True)\nwhile True: pass"


def test_children_count_too_until_they_end(tmp_path):
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as child:
        try:
            child.stdout.readline()
            alone = BoardMonitor(sysfs=tmp_path, command="none-such")
            both = BoardMonitor(sysfs=tmp_path, command="none-such", children=lambda: [child.pid, None])
            first = alone.read(), both.read()
            assert first[1].memory_mib > first[0].memory_mib + 70
            time.sleep(0.5)
            assert both.read().cpu_percent > 1
        finally:
            child.kill()
    reading = both.read()
    assert reading.memory_mib < first[1].memory_mib - 70
    assert reading.cpu_percent is not None
    assert reading.peak_memory_mib >= first[1].memory_mib


def test_it_reads_in_its_own_thread_and_ends(tmp_path):
    monitor = BoardMonitor(interval=0.02, sysfs=tmp_path, command="none-such")
    assert monitor.reading() == BoardReading()
    monitor.start()
    wait_until(lambda: monitor.reading().cpu_percent is not None)
    monitor.close()
    monitor.close()
    assert "board monitor" not in {thread.name for thread in threading.enumerate()}


def test_closing_does_not_wait_for_the_next_look(tmp_path):
    monitor = BoardMonitor(interval=600, sysfs=tmp_path, command="none-such")
    monitor.start()
    wait_until(lambda: monitor.reading().memory_mib is not None)
    start = time.monotonic()
    monitor.close()
    assert time.monotonic() - start < 5
    BoardMonitor(sysfs=tmp_path).close()


def test_a_reading_that_fails_is_not_the_end(tmp_path, monkeypatch):
    fails = [True]

    def fails_first():
        if fails[0]:
            raise RuntimeError("no")
        return []

    monitor = BoardMonitor(interval=0.01, children=fails_first, sysfs=tmp_path, command="none-such")
    monitor.start()
    time.sleep(0.1)
    fails[0] = False
    wait_until(lambda: monitor.reading().memory_mib is not None)
    monitor.close()
