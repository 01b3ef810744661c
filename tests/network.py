"""What a program and all that it starts say to other machines, whether in Python, in C or in a program of its own.

    done, tried = run_watched([sys.executable, "-c", "..."], env=env)

The kernel holds each call that names an address until this process has looked at it (seccomp's user notification), for
which it asks for no rights and no package, only for Linux. What goes to this machine is let through; for everything
else, and for name servers, there is no network.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ARCHITECTURES = {
    "x86_64": (0xC000003E, {42: "connect", 44: "sendto", 46: "sendmsg", 307: "sendmmsg"}, 317),
    "aarch64": (0xC00000B7, {203: "connect", 206: "sendto", 211: "sendmsg", 269: "sendmmsg"}, 277),
}
"""The kernel's number of the architecture, of each call that can name an address, and of seccomp."""

_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_DNS = 53
_LONGEST_S = 120.0
_AFTERWARDS_S = 20.0


def run_watched(command: Sequence[str], **options: Any) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a program to its end: what became of it, and the addresses that it or its children tried to reach.

    Children that outlive it are waited for, for a while.

    Raises:
        OSError: This system can't watch.
    """
    if platform.machine() not in _ARCHITECTURES or sys.platform != "linux":
        raise OSError(errno.ENOSYS, "calls are watched on Linux only, on x86-64 and aarch64")
    ours, theirs = socket.socketpair()
    tried: list[str] = []
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno()), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(theirs.fileno(),),
        env={**options.pop("env", os.environ), "PYTHONFAULTHANDLER": "1"},
        **options,
    )
    theirs.close()
    with ours, process:
        _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
        if not listeners:
            raise OSError(errno.EPERM, f"calls can't be watched here: {process.communicate()[1]}")
        watcher = threading.Thread(target=_watch, args=(listeners[0], tried), daemon=True)
        watcher.start()
        try:
            stdout, stderr = process.communicate(timeout=_LONGEST_S)
            watcher.join(_AFTERWARDS_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # Python then says where it stands
            raise AssertionError(f"{command} hangs: {process.communicate()[1][-5000:]}") from None
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr), tried


def _watch(listener: int, tried: list[str]) -> None:
    """Look at each call until no process is left."""
    calls = _ARCHITECTURES[platform.machine()][1]
    poll = select.poll()
    poll.register(listener)
    while not poll.poll()[0][1] & select.POLLHUP:
        notice = bytearray(80)
        with contextlib.suppress(OSError):  # who called is gone
            fcntl.ioctl(listener, _RECEIVE, notice)
            key, process, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", notice)
            address = _foreign(process, calls[number], arguments)
            if address is not None:
                tried.append(f"{address} by {_command(process)}")
            error, go_on = (0, 1) if address is None else (-errno.ENETUNREACH, 0)
            fcntl.ioctl(listener, _ANSWER, struct.pack("=QqiI", key, 0, error, go_on))
    os.close(listener)


def _foreign(process: int, call: str, arguments: Sequence[int]) -> str | None:
    """The address that a call names; None where that is this machine, or none."""
    try:
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            place, length = arguments[4:] if call == "sendto" else arguments[1:3]
            if call.startswith("sendm"):
                memory.seek(place)
                place, length = struct.unpack("=QI", memory.read(12))
            if not place or not length:
                return None
            memory.seek(place)
            content = memory.read(min(length, 28))
    except OSError as error:
        return f"an address that can't be read ({error.strerror})"
    family, port = struct.unpack("=H", content[:2])[0], int.from_bytes(content[2:4], "big")
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host = ipaddress.ip_address(content[4:8] if family == socket.AF_INET else content[8:24])
    return f"{host}:{port}" if port == _DNS or not (host.is_loopback or host.is_unspecified) else None


def _command(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text(errors="replace").replace("\0", " ").strip()[:200]


def _report_calls_to(channel: int) -> None:
    """Have the kernel ask whoever is at the other end of a socket about each call that can name an address."""
    architecture, calls, seccomp = _ARCHITECTURES[platform.machine()]
    steps = [(0x20, 0, 0, 4), (0x15, 0, len(calls) + 1, architecture), (0x20, 0, 0, 0)]
    steps += [(0x15, len(calls) - index, 0, number) for index, number in enumerate(calls)]
    steps += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x7FC00000)]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = struct.pack("@HP", len(steps), ctypes.cast(code, ctypes.c_void_p).value)
    libc, listener, ready = ctypes.CDLL(None, use_errno=True), -1, threading.Event()

    def hand_over() -> None:  # not itself subject to what the other thread sets up
        ready.wait()
        with socket.socket(fileno=channel) as end:
            socket.send_fds(end, [b"."], [listener] if listener >= 0 else [])

    thread = threading.Thread(target=hand_over)
    thread.start()
    libc.prctl(38, 1, 0, 0, 0)  # gives up rights that it would get from programs; without that only root may do this
    listener = libc.syscall(seccomp, 1, 8, program)
    ready.set()
    thread.join()
    if listener < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    os.close(listener)


if __name__ == "__main__":
    _report_calls_to(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
