"""Whether a window can be opened, found out before one is.

OpenCV's windows are made by Qt, which ends the whole program (SIGABRT) where it can't reach a screen. So the likely
reasons are checked one by one, and for all others a window is opened in another process first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading

from mobiledet.structures import Size

PROBE_LIMIT = 10.0
"""Seconds another process has for loading OpenCV, which is slow on small boards, and reaching the screen."""

_SOCKET_LIMIT = 2.0
_INSTEAD = "or watch in a browser with --serve, or save a video with --save"
_X11_PORT = 6000

# Asking for OpenGL makes OpenCV connect to the screen and then refuse, before any window shows; where it has OpenGL, a
# window flashes up. The alarm ends a process whose parent was killed meanwhile.
_PROBE = """
import json, signal, sys
sys.path[:] = json.loads(sys.argv[1])
signal.alarm(int(sys.argv[2]))
import cv2
try:
    cv2.namedWindow("probe", cv2.WINDOW_OPENGL)
    cv2.destroyAllWindows()
except cv2.error as error:
    if error.code != cv2.Error.OpenGlNotSupported:
        sys.exit(" ".join(str(error).split()))
print("opened", flush=True)
import ctypes
x11 = ctypes.CDLL("libX11.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
screen = ctypes.c_void_p(x11.XOpenDisplay(None))
if screen:
    print(x11.XDisplayHeight(screen, 0), x11.XDisplayWidth(screen, 0))
"""


class DisplayProbe:
    """Finds out in the background whether a window can be opened, while a model is loaded."""

    def __init__(self) -> None:
        self._found: tuple[str | None, Size | None] = None, None
        self._thread = threading.Thread(target=self._look, name="display probe", daemon=True)
        self._thread.start()

    def result(self) -> tuple[str | None, Size | None]:
        """Why no window can be opened, in one line with a remedy, or None; and ``(height, width)`` of the screen.

        The size is that of all monitors together, None where it couldn't be learned. Waits a few seconds at most.
        """
        self._thread.join()
        return self._found

    def _look(self) -> None:
        has_server = sys.platform.startswith(("linux", "freebsd"))
        # Without a screen, another OpenCV wouldn't help.
        problem = (_server_problem() if has_server else None) or _opencv_problem()
        self._found = _try_in_process() if problem is None and has_server else (problem, None)


def quiet_qt() -> None:
    """Keep Qt from advising on window systems; to be called before the first window. Its warnings stay."""
    # A user who looks for a fault has set this already.
    os.environ.setdefault("QT_LOGGING_RULES", "default.info=false")


def _opencv_problem() -> str | None:
    try:
        import cv2
    except ImportError as error:
        return f"OpenCV can't be loaded ({error}); install the missing library, then try again"
    if cv2.currentUIFramework():
        return None
    return (
        "the OpenCV that is installed can't open windows (opencv-python-headless has replaced opencv-python); "
        "watch in a browser with --serve, save a video with --save, or get windows with: "
        "pip install --force-reinstall --no-deps opencv-python"
    )


def _server_problem() -> str | None:
    display = os.environ.get("DISPLAY", "")
    if not display:
        if os.environ.get("WAYLAND_DISPLAY"):
            return None
        return f"there is no screen: DISPLAY isn't set; run this on the desktop, or log in with ssh -X, {_INSTEAD}"
    match = re.fullmatch(r"(?P<host>.*):(?P<number>\d+)(\.\d+)?", display)
    if match is None:
        return f"DISPLAY is {display!r}, which is not a screen's name; on the desktop it is usually ':0', {_INSTEAD}"
    if display.startswith("/") or _answers(match["host"], int(match["number"])):
        return None
    return f"DISPLAY is {display!r}, but no screen answers there; log in again, or with ssh -X, {_INSTEAD}"


def _answers(host: str, number: int) -> bool:
    """Whether an X server takes connections."""
    local = host in ("", "unix") or host.endswith("/unix")
    if local and hasattr(socket, "AF_UNIX"):
        name = f"/tmp/.X11-unix/X{number}"
        for address in (f"\0{name}", name):  # Linux has a name without a file, too
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as unix:
                unix.settimeout(_SOCKET_LIMIT)
                unix.connect(address)
                return True
    with contextlib.suppress(OSError, OverflowError):
        # What ssh -X offers.
        place = "localhost" if local else host.strip("[]")
        with socket.create_connection((place, _X11_PORT + number), timeout=_SOCKET_LIMIT):
            return True
    return False


def _try_in_process() -> tuple[str | None, Size | None]:
    quiet_qt()
    command = [sys.executable, "-c", _PROBE, json.dumps([str(place) for place in sys.path]), str(int(PROBE_LIMIT) + 1)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_LIMIT,
            check=False,
            start_new_session=True,  # Ctrl-C in the terminal is for this program
        )
    except subprocess.TimeoutExpired:
        return f"the screen {_screen()} didn't answer within {PROBE_LIMIT:g} s; log in again, {_INSTEAD}", None
    except OSError:
        return None, None  # that no process can be started says nothing about the screen
    words = done.stdout.decode("utf-8", "replace").split()
    if words[:1] != ["opened"]:
        reason = _reason(done.stderr.decode("utf-8", "replace")) or f"status {done.returncode}"
        return f"a window can't be opened on {_screen()} ({reason}); {_remedy(reason)}, {_INSTEAD}", None
    return None, (int(words[1]), int(words[2])) if len(words) == 3 else None


def _screen() -> str:
    return os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "the screen"


def _reason(stderr: str) -> str:
    """The most useful line of what Qt, X or Python wrote to stderr."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = ("cannot open shared object", "uthorization", "No protocol specified", "could not connect", "Could not")
    for words in telling:
        for line in lines:
            if words in line:
                return line[:200]
    return lines[-1][:200] if lines else ""


def _remedy(reason: str) -> str:
    if "shared object" in reason:
        return "install the library named"
    if "QT_QPA_PLATFORM" in os.environ:
        return f"unset QT_QPA_PLATFORM, which is {os.environ['QT_QPA_PLATFORM']!r}"
    if not os.environ.get("DISPLAY"):
        return "OpenCV needs X11: install xwayland"
    return "this user may not be allowed to use it: start this as the user who is logged in there"
