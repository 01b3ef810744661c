"""The view server's routes. Imported only to serve, for it needs aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.view import SNAPSHOT_QUALITY, View
from mobiledet.apps.live.web.guard import add_headers
from mobiledet.apps.live.web.messages import (
    SettingsError,
    apply_settings,
    counts_json,
    detections_json,
    finite,
    settings_json,
)
from mobiledet.apps.live.web.streams import EncodedFrame, FrameStream
from mobiledet.draw.boxes import jpeg_bytes
from mobiledet.errors import MobiledetError
from mobiledet.evaluation.thresholds import LOWEST

logger = logging.getLogger(__name__)

MOST_VIEWERS = 20
MOST_CONNECTIONS = 128
"""A browser opens up to six. Each is a file of this process, and cameras, logs and videos need some, too."""

PAGE = Path(__file__).parent / "page"
_TYPES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

_REPEAT = 1.0
"""Seconds after which the last frame is sent again, so that neither side takes the connection for dead."""

PATIENCE = 10.0
"""Seconds that sending one frame may take; after that the viewer counts as gone."""

_UNSENT = 128 * 1024
"""Bytes that may wait in the operating system for a slow viewer; with more it would see old frames."""

_LARGEST_BODY = 64 * 1024
_AT_ONCE = 16
"""Connections accepted in one go; they are not counted against each other."""

BODY_TIME = 5.0
"""Seconds that the body of a request may take to arrive."""

_NUMBERS_LIFE = 0.1
_SHUTDOWN = 0.3
_BOUNDARY = b"picture"


class WebApp:
    """The routes and what they share; ``guard`` decides who gets an answer."""

    def __init__(self, view: View, guard: Middleware) -> None:
        self._view = view
        self._run = secrets.token_hex(8)  # lets the page notice a restart
        self._guard = guard
        self._one_snapshot = asyncio.Semaphore(1)
        # One thread draws the stream, one a snapshot, one gets the numbers.
        self._executor = ThreadPoolExecutor(3, thread_name_prefix="view")
        self._frames = FrameStream(view, self._executor)
        self._viewers: dict[asyncio.Transport, str] = {}
        self._asked: tuple[float, asyncio.Future[dict[str, Any]]] | None = None
        try:
            self._files = {name: (PAGE / name).read_bytes() for name in _TYPES}
        except OSError as error:
            raise MobiledetError(f"{error.filename}: part of the page is missing; reinstall mobiledet") from None

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer requests at a listening socket, for as long as the context lasts."""
        app = web.Application(middlewares=[self._guard], client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(add_headers)
        for path, handler in (
            ("/", self._file),
            ("/static/{name}", self._file),
            ("/about.json", self._about),
            ("/numbers", self._send_numbers),
            ("/detections.json", self._send_detections),
            ("/snapshot.jpg", self._snapshot),
            ("/stream.mjpg", self._stream),
        ):
            app.router.add_get(path, handler, allow_head=False)
        app.router.add_post("/settings", self._change_settings)
        faults = logging.getLogger(f"{__name__}.server")
        faults.addFilter(_is_own_fault)
        # Requests are not logged: the terminal is for the program's own messages.
        runner = web.AppRunner(app, access_log=None, logger=faults, shutdown_timeout=_SHUTDOWN, keepalive_timeout=30)
        await runner.setup()
        listening = await _listen(runner, listener)
        try:
            yield
        finally:
            listening.close()
            for transport in list(self._viewers):
                transport.abort()
            await self._frames.close()
            await runner.cleanup()
            self._executor.shutdown(wait=True, cancel_futures=True)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in self._files:
            raise web.HTTPNotFound(text="404: there is no such page\n")
        return web.Response(body=self._files[name], content_type=_TYPES[name], charset="utf-8")

    async def _about(self, _: web.Request) -> web.Response:
        from mobiledet.draw.boxes import class_color

        names = self._view.settings.names
        colors = ["#{:02x}{:02x}{:02x}".format(*class_color(label)) for label in range(1, len(names) + 1)]
        return _json({"run": self._run, "title": self._view.title, "names": names, "colors": colors, "lowest": LOWEST})

    async def _send_numbers(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        # Twenty viewers ask forty times a second and share an answer.
        if self._asked is None or (self._asked[1].done() and now - self._asked[0] > _NUMBERS_LIFE):
            self._asked = now, asyncio.get_running_loop().run_in_executor(self._executor, self._look)
        seen = await asyncio.shield(self._asked[1])
        return _json(
            {
                "run": self._run,
                **seen,
                "settings": settings_json(self._view.settings),
                "viewers": len(self._viewers),
                "most_viewers": MOST_VIEWERS,
                "watching": request.query.get("viewer", "") in self._viewers.values(),
            }
        )

    def _look(self) -> dict[str, Any]:
        """Numbers, and what is in the newest frame; runs in the executor, because getting the numbers may take long."""
        newest = self._view.results.get()
        return {
            "numbers": asdict(self._view.numbers()),
            "ended": self._view.results.closed,
            "picture": None
            if newest is None
            else {
                "index": newest[1].frame.index,
                "size": list(newest[1].frame.image.shape[:2]),
                "seconds_ago": round(time.monotonic() - newest[1].ready, 3),
                "counts": counts_json(newest[1], self._view.settings),
            },
        }

    async def _send_detections(self, _: web.Request) -> web.Response:
        return _json(detections_json(self._newest(), self._view.settings, time.monotonic()))

    async def _change_settings(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="415: send JSON, as application/json\n")
        try:
            apply_settings(await asyncio.wait_for(request.read(), BODY_TIME), self._view.settings)
        except SettingsError as error:
            raise web.HTTPBadRequest(text=f"400: {error}\n") from None
        except (web.RequestPayloadError, ConnectionError):
            raise web.HTTPBadRequest(text="400: the body is damaged or incomplete\n") from None
        except asyncio.TimeoutError:
            raise web.HTTPRequestTimeout(text="408: the rest of the body did not arrive\n") from None
        return _json(settings_json(self._view.settings))

    async def _snapshot(self, _: web.Request) -> web.Response:
        result = self._newest()
        async with self._one_snapshot:
            jpeg = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: jpeg_bytes(self._view.painter.paint(result), SNAPSHOT_QUALITY)
            )
        name = time.strftime("mobiledet_%Y-%m-%d_%H-%M-%S.jpg")
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=jpeg, content_type="image/jpeg", headers=headers)

    def _newest(self) -> Result:
        newest = self._view.results.get()
        if newest is None:
            raise web.HTTPServiceUnavailable(text="503: there is no frame yet\n")
        return newest[1]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(
                text=f"503: {MOST_VIEWERS} viewers are watching, which is the most allowed\n"
            )
        response = web.StreamResponse(
            headers={"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"}
        )
        transport = request.transport
        if transport is None:
            return response
        self._viewers[transport] = request.query.get("viewer", "")
        try:
            _keep_little_unsent(transport)
            await response.prepare(request)
            await response.write(b"--" + _BOUNDARY + b"\r\n")
            after = 0
            while not transport.is_closing():
                encoded = await self._frames.next(after, _REPEAT)
                if encoded is not None and not transport.is_closing():
                    await asyncio.wait_for(_send(request, response, encoded), PATIENCE)
                    after = encoded.number
        except (ConnectionError, asyncio.TimeoutError):
            transport.abort()
        finally:
            del self._viewers[transport]
        return response


async def _send(request: web.Request, response: web.StreamResponse, frame: EncodedFrame) -> None:
    # The boundary is sent together with the frame before it: browsers show a frame once they have seen its end.
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(frame.jpeg)}\r\nX-Index: {frame.index}\r\n\r\n"
    await response.write(b"".join((head.encode(), frame.jpeg, b"\r\n--", _BOUNDARY, b"\r\n")))
    await request.writer.drain()


async def _listen(runner: web.AppRunner, listener: socket.socket) -> asyncio.Server:
    """Accept connections, but never more than may be open at a time; aiohttp itself has no limit."""
    server = runner.server
    assert server is not None

    def protocol() -> asyncio.Protocol:
        return server() if len(server.connections) < MOST_CONNECTIONS else _Refused()

    return await asyncio.get_running_loop().create_server(protocol, sock=listener, backlog=_AT_ONCE)


class _Refused(asyncio.Protocol):
    """A connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _is_own_fault(record: logging.LogRecord) -> bool:
    """A client that sends no HTTP, or hangs up, isn't a fault of this program."""
    noise = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
    return record.exc_info is None or not isinstance(record.exc_info[1], noise)


def _keep_little_unsent(transport: asyncio.Transport) -> None:
    """Have frames for a slow viewer wait here, where newer ones replace them, rather than in the operating system."""
    transport.set_write_buffer_limits(high=0)
    level, option = socket.SOL_SOCKET, socket.SO_SNDBUF
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        level, option = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(level, option, _UNSENT)


def _json(value: Any) -> web.Response:
    return web.Response(text=json.dumps(finite(value), allow_nan=False), content_type="application/json")
