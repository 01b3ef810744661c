"""What the tests of live views share: a screen to open windows on."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from live_parts import wait_until


@pytest.fixture(scope="session")
def x_screen() -> Iterator[str]:
    """The ``DISPLAY`` of a screen of 900 x 600, or a skip."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb")
    # A server that resets itself when its last client leaves can throw out a window manager that is just connecting.
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "900x600x24", "-nolisten", "tcp", "-noreset"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    manager = None
    try:
        assert server.stdout is not None
        number = server.stdout.readline().strip()
        if not number:
            pytest.skip("Xvfb doesn't start")
        display = f":{number}"
        if shutil.which("openbox"):
            manager = subprocess.Popen(
                ["openbox", "--sm-disable"],
                env={**os.environ, "DISPLAY": display},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _wait_for_manager(display)
        yield display
    finally:
        for process in (manager, server):
            if process is not None:
                process.terminate()
                process.wait()
        assert server.stdout is not None
        server.stdout.close()


def _wait_for_manager(display: str) -> None:
    """It takes the focus from windows that are there before it."""
    if shutil.which("xprop") is None:
        time.sleep(1.0)
        return
    command, environment = ["xprop", "-root", "_NET_SUPPORTING_WM_CHECK"], {**os.environ, "DISPLAY": display}
    wait_until(lambda: "window id" in subprocess.run(command, env=environment, capture_output=True, text=True).stdout)
