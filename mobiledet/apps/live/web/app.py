"""The view server's routes. Imported only to serve, for it needs aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.apps.live.view import SNAPSHOT_QUALITY, View
from mobiledet.apps.live.web.guard import Guard
from mobiledet.apps.live.web.messages import (
    SettingsError,
    apply_settings,
    counts_json,
    detections_json,
    finite,
    read_scene_message,
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
    "scene.js": "text/javascript",
    "openapi.json": "application/json",
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


@dataclass
class _Camera:
    """What is shown of one camera, and the answer about its numbers that was asked for last, with its moment."""

    view: View
    frames: FrameStream
    asked: tuple[float, asyncio.Future[dict[str, Any]]] | None = None


class WebApp:
    """The routes and what they share; ``guard`` decides who gets an answer.

    Attributes:
        routes: All of them; page/openapi.json describes them.
    """

    def __init__(self, views: Sequence[View], guard: Guard, grid: View | None = None) -> None:
        self._run = secrets.token_hex(8)  # lets the page notice a restart
        self._guard = guard
        self._one_snapshot, self._one_save = asyncio.Semaphore(1), asyncio.Semaphore(1)
        # For each camera one thread draws the stream and one gets the numbers; one draws a snapshot, one saves.
        self._executor = ThreadPoolExecutor(2 * len(views) + 4, thread_name_prefix="view")
        self._views, self._grid = views, grid
        self._cameras = {
            str(number): _Camera(view, FrameStream(view, self._executor))
            for number, view in enumerate((grid, *views))
            if view is not None
        }
        self._viewers: dict[asyncio.Transport, str] = {}
        self._busy: set[object] = set()  # connections on which a request is being answered
        self.routes = [
            *(
                web.get(path, handler)
                for path, handler in (
                    ("/", self._file),
                    (r"/{name:openapi\.json}", self._file),
                    ("/static/{name}", self._file),
                    ("/about.json", self._about),
                    ("/numbers", self._send_numbers),
                    ("/detections.json", self._send_detections),
                    ("/scene.json", self._send_scene),
                    ("/history.json", self._send_history),
                    ("/snapshot.jpg", self._snapshot),
                    ("/stream.mjpg", self._stream),
                )
            ),
            web.post("/settings", self._change_settings),
            web.post("/scene", self._change_scene),
        ]
        try:
            self._files = {name: (PAGE / name).read_bytes() for name in _TYPES}
        except OSError as error:
            raise MobiledetError(f"{error.filename}: part of the page is missing; reinstall mobiledet") from None

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer requests at a listening socket, for as long as the context lasts."""
        app = web.Application(middlewares=[self._mark_busy, self._guard.middleware], client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(self._guard.add_headers)
        app.add_routes(self.routes)
        faults = logging.getLogger(f"{__name__}.server")
        faults.addFilter(_is_own_fault)
        # Requests are not logged: the terminal is for the program's own messages.
        runner = web.AppRunner(app, access_log=None, logger=faults, shutdown_timeout=_SHUTDOWN, keepalive_timeout=30)
        await runner.setup()
        listening = await self._listen(runner, listener)
        try:
            yield
        finally:
            listening.close()
            for transport in list(self._viewers):
                transport.abort()
            for camera in self._cameras.values():
                await camera.frames.close()
            await runner.cleanup()
            self._executor.shutdown(wait=True, cancel_futures=True)

    @web.middleware
    async def _mark_busy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)

    async def _listen(self, runner: web.AppRunner, listener: socket.socket) -> asyncio.Server:
        """Accept connections; where there are too many, in place of the oldest that asks for nothing."""
        server = runner.server
        assert server is not None

        def protocol() -> asyncio.Protocol:
            live = [(each, each.transport) for each in server.connections]
            live = [(each, transport) for each, transport in live if transport and not transport.is_closing()]
            if len(live) < MOST_CONNECTIONS:
                return server()
            for each, transport in live:  # oldest first
                if transport and each not in self._busy and not transport.get_write_buffer_size():
                    transport.close()
                    return server()
            return _Refused()

        return await asyncio.get_running_loop().create_server(protocol, sock=listener, backlog=_AT_ONCE)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in self._files:
            raise web.HTTPNotFound(text="404: there is no such page\n")
        return web.Response(body=self._files[name], content_type=_TYPES[name], charset="utf-8")

    async def _about(self, _: web.Request) -> web.Response:
        from mobiledet.draw.boxes import class_color

        views = self._views
        names = views[0].settings.names
        colors = ["#{:02x}{:02x}{:02x}".format(*class_color(label)) for label in range(1, len(names) + 1)]
        return _json(
            {
                "run": self._run,
                "title": (self._grid or views[0]).title,
                "names": names,
                "colors": colors,
                "lowest": LOWEST,
                "cameras": [{"title": view.title, "tracked": view.tracked} for view in views],
                "grid": self._grid is not None,
            }
        )

    def _camera(self, request: web.Request) -> _Camera:
        """The camera that a request asks for, else the first."""
        asked = request.query.get("camera", "1")
        if asked not in self._cameras:
            raise web.HTTPNotFound(text=f"404: there is no camera {asked[:20]!r}; there are 1 to {len(self._views)}\n")
        return self._cameras[asked]

    async def _send_numbers(self, request: web.Request) -> web.Response:
        camera, now = self._camera(request), time.monotonic()
        # Twenty viewers ask forty times a second and share an answer.
        if camera.asked is None or (camera.asked[1].done() and now - camera.asked[0] > _NUMBERS_LIFE):
            camera.asked = now, asyncio.get_running_loop().run_in_executor(self._executor, _look, camera.view)
        seen = await asyncio.shield(camera.asked[1])
        return _json(
            {
                "run": self._run,
                **seen,
                "settings": settings_json(camera.view.settings),
                "viewers": len(self._viewers),
                "most_viewers": MOST_VIEWERS,
                "watching": request.query.get("viewer", "") in self._viewers.values(),
            }
        )

    async def _send_detections(self, request: web.Request) -> web.Response:
        view = self._camera(request).view
        return _json(detections_json(_newest(view), view.settings, time.monotonic()))

    async def _send_scene(self, request: web.Request) -> web.Response:
        view = self._camera(request).view
        height, width = _newest(view).frame.image.shape[:2]
        scene = view.settings.scene if view.tracked else Scene()
        return _json(scene.in_shares((height, width)).plain())

    async def _send_history(self, request: web.Request) -> web.Response:
        history = self._camera(request).view.history
        return _json({"now": time.time(), "minutes": [] if history is None else history.plain()})

    async def _change_settings(self, request: web.Request) -> web.Response:
        views = [self._camera(request).view] if "camera" in request.query else self._views
        settings = [view.settings for view in views]
        body = await _read_json(request)
        try:
            apply_settings(body, *settings)
        except SettingsError as error:
            raise web.HTTPBadRequest(text=f"400: {error}\n") from None
        return _json(settings_json(settings[0]))

    async def _change_scene(self, request: web.Request) -> web.Response:
        view = self._camera(request).view
        if not view.tracked:
            raise web.HTTPConflict(text="409: nothing is counted without ids; start the program with --track\n")
        body = await _read_json(request)
        try:
            scene = read_scene_message(body)
        except SettingsError as error:
            raise web.HTTPBadRequest(text=f"400: {error}\n") from None
        async with self._one_save:
            view.settings.scene = scene
            if view.save_scene is not None:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._executor, view.save_scene, scene)
                except MobiledetError as error:
                    raise web.HTTPInternalServerError(
                        text=f"500: counted from now on, but not saved: {error}\n"
                    ) from None
        return _json(scene.plain())

    async def _snapshot(self, request: web.Request) -> web.Response:
        view = self._camera(request).view
        result = _newest(view)
        async with self._one_snapshot:
            jpeg = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: jpeg_bytes(view.painter.paint(result), SNAPSHOT_QUALITY)
            )
        name = time.strftime("mobiledet_%Y-%m-%d_%H-%M-%S.jpg")
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=jpeg, content_type="image/jpeg", headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        frames = self._camera(request).frames
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers={"Content-Type": kind})
        if len(self._viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(
                text=f"503: {MOST_VIEWERS} viewers are watching, which is the most allowed\n"
            )
        response = web.StreamResponse(headers={"Content-Type": kind})
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
                encoded = await frames.next(after, _REPEAT)
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


def _newest(view: View) -> Result:
    newest = view.results.get()
    if newest is None:
        raise web.HTTPServiceUnavailable(text="503: there is no frame yet\n")
    return newest[1]


def _look(view: View) -> dict[str, Any]:
    """Numbers, and what is in the newest frame; runs in the executor, because getting the numbers may take long."""
    newest = view.results.get()
    return {
        "numbers": asdict(view.numbers()),
        "ended": view.results.closed,
        "picture": None
        if newest is None
        else {
            "index": newest[1].frame.index,
            "size": list(newest[1].frame.image.shape[:2]),
            "seconds_ago": round(time.monotonic() - newest[1].ready, 3),
            "counts": counts_json(newest[1], view.settings),
        },
        "counts": (newest[1].counts or None) if newest is not None else None,
    }


async def _read_json(request: web.Request) -> bytes:
    """The body of a request that says it is JSON."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="415: send JSON, as application/json\n")
    try:
        return await asyncio.wait_for(request.read(), BODY_TIME)
    except (web.RequestPayloadError, ConnectionError):
        raise web.HTTPBadRequest(text="400: the body is damaged or incomplete\n") from None
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout(text="408: the rest of the body did not arrive\n") from None


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
