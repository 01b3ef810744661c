"""A real Chromium without a window, driven over its DevTools protocol.

with Browser(tmp_path) as browser:
    browser.open(url)
    browser.wait_for("document.title !== ''")
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 30.0  # seconds for anything the browser is asked


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser with a profile of its own.

    Attributes:
        problems: Errors on its console, uncaught exceptions and policy violations so far.
    """

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1280, 900)) -> None:
        command = find_chromium()
        assert command is not None
        self.problems: list[str] = []
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._profile = folder / "profile"
        self._complaints = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [
                command,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile}",
                f"--window-size={size[0]},{size[1]}",
                "about:blank",
            ],
            stdout=self._complaints,
            stderr=self._complaints,
        )
        self._numbers = itertools.count(1)
        self._arrived = False
        self._session = self._socket = None
        self._loop = asyncio.new_event_loop()
        try:
            self._run(self._connect(self._port()))
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
            self.device(*size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str) -> None:
        """Go to an address, and wait until its document is there."""
        self._arrived = False
        self.call("Page.navigate", url=url)
        while not self._arrived:
            self._run(self._receive())

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout: float = PATIENCE) -> Any:
        """The value of an expression, once it is true."""
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"never came true within {timeout:g} s: {script}"
            self.rest(0.1)
        return value

    def rest(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    def screenshot(self, selector: str) -> bytes:
        """PNG of an element."""
        clip = dict(zip(("x", "y", "width", "height"), self.place(selector), strict=True), scale=1)
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window, after scrolling it there."""
        found = self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'nearest'}});"
            " const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
        )
        return tuple(found)

    def click(self, selector: str) -> None:
        left, top, width, height = self.place(selector)
        self.mouse("mousePressed", left + width / 2, top + height / 2)
        self.mouse("mouseReleased", left + width / 2, top + height / 2)

    def mouse(self, kind: str, x: float, y: float, *, count: int = 1) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=count)

    def drag(self, selector: str, start: float, end: float, *, steps: int = 10) -> None:
        """Drag along an element, between two shares of its width."""
        left, top, width, height = self.place(selector)
        middle = top + height / 2
        self.mouse("mousePressed", left + width * start, middle)
        for step in range(1, steps + 1):
            self.mouse("mouseMoved", left + width * (start + (end - start) * step / steps), middle)
        self.mouse("mouseReleased", left + width * end, middle)

    def press(self, key: str, code: int) -> None:
        """Press a key that writes nothing, by its name and its Windows code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def device(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def dark(self, on: bool) -> None:
        value = "dark" if on else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        self._run(self._socket.send_json({"id": number, "method": method, "params": params}))
        while (answer := self._run(self._receive())).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self._process.terminate()
        self._process.wait(10)
        if self._session is not None:
            self._run(self._session.close())
            self.rest(0)  # its connections close one round of the loop later
        self._loop.close()
        self._complaints.close()

    def _run(self, job: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(job, PATIENCE))

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as response:
            target = next(each for each in await response.json() if each["type"] == "page")
        self._socket = await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)

    def _port(self) -> int:
        file = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, IndexError, ValueError):
                return int(file.read_text().splitlines()[0])
            time.sleep(0.05)
        raise AssertionError(f"Chromium didn't start; see {self._complaints.name}")

    async def _receive(self) -> dict[str, Any]:
        """The next message; what it says of the page is noted."""
        message = await self._socket.receive_json()
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.domContentEventFired":
            self._arrived = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message
