"""The live view in a browser: one server, up to 20 viewers.

The server has a thread and an event loop of its own. It only reads the newest result, so it never delays detection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import re
import secrets
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from mobiledet.apps.live.view import View
from mobiledet.errors import MobiledetError, need_extra

if TYPE_CHECKING:
    from mobiledet.apps.live.web.app import WebApp

_CLOSE_TIME = 0.9
"""Seconds that `ViewServer.close` waits at most; what still runs then was asked to end."""

_OTHER_PORTS = 20
"""How many ports after a taken one are tried, to name a free one."""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server at ``host``; for a name other than localhost: no."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_token(token: str) -> None:
    """Make sure that a token of the user's own is empty, or hard to guess and fit for an address.

    Raises:
        MobiledetError: It isn't; the token isn't shown.
    """
    if token and not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", token):
        raise MobiledetError(
            f"--token: 16 to 128 letters, digits, - and _, none else; for instance {secrets.token_urlsafe(16)}"
        )


def check_guests(frames: Sequence[str], hosts: Sequence[str]) -> None:
    """Make sure of the origins whose pages may show the view in a frame, and of further names of this machine.

    Raises:
        MobiledetError: One isn't an origin, ``scheme://host`` or ``scheme://host:port``, or not a name.
    """
    name = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
    for origin in frames:
        if not re.fullmatch(rf"https?://{name}(?::\d{{1,5}})?", origin):
            raise MobiledetError(f"--allow-frame: {origin!r} is not an origin such as http://homeassistant.local:8123")
    for host in hosts:
        if not re.fullmatch(name, host):
            raise MobiledetError(f"--allow-host: {host!r} is not a name such as camera.example.org, without a port")


class ViewServer:
    """Shows the newest result of each camera to browsers, and lets them change the settings.

    Args:
        views: What is shown, one or more. Viewers change their settings, which are the same for all who look; the
            numbers are asked for at most ten times a second, from a thread of the server.
        grid: All of them in one image, which is camera 0.
        host: Address of this machine to listen at; ``0.0.0.0`` is all its addresses.
        port: 0 takes any free port.
        token: See there; empty for none on a loopback address, and for a new one elsewhere.
        allow_frames: Origins whose pages may show the view in a frame.
        allow_hosts: Further names that requests without a token may ask for, those of a reverse proxy.

    Attributes:
        token: Secret that every request must carry, where others can reach the host: 32 random bytes, fit for a URL.

    Raises:
        MobiledetError: The host is empty, or the token, an origin or a name unfit.
    """

    def __init__(
        self,
        views: Sequence[View],
        *,
        grid: View | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str = "",
        allow_frames: Sequence[str] = (),
        allow_hosts: Sequence[str] = (),
    ) -> None:
        if not host:
            raise MobiledetError("the host to serve at is empty; use 127.0.0.1 (this machine only) or 0.0.0.0")
        check_token(token)
        check_guests(allow_frames, allow_hosts)
        self.token = token or (None if is_loopback(host) else secrets.token_urlsafe())
        self._views, self._grid = views, grid
        self._host, self._port = host, port
        self._frames, self._hosts = tuple(allow_frames), tuple(allow_hosts)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        """Open the port and serve, in a thread of its own.

        Raises:
            MissingDependencyError: aiohttp isn't installed.
            MobiledetError: The port is taken or not allowed, or the host is not an address of this machine.
        """
        need_extra("serve")
        from mobiledet.apps.live.web.app import WebApp
        from mobiledet.apps.live.web.guard import Guard

        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        try:
            guard = Guard(host=self._host, port=self._port, token=self.token, frames=self._frames, hosts=self._hosts)
            app = WebApp(self._views, guard, self._grid)
        except BaseException:
            listener.close()
            raise
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(app, listener, ready), name="view server", daemon=True)
        self._thread.start()
        ready.result()

    def _run(self, app: WebApp, listener: socket.socket, ready: Future[None]) -> None:
        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            async with app.serving(listener):
                ready.set_result(None)
                await self._stop.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            listener.close()

    @property
    def port(self) -> int:
        """The port it listens at; before the start, the one asked for."""
        return self._port

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token where there is one."""
        host = _reachable_address(self._host)
        place = f"[{host}]" if ":" in host else host
        return f"http://{place}:{self._port}/" + (f"?token={self.token}" if self.token else "")

    def close(self) -> None:
        """Stop within a second, also while viewers watch. May be called twice, or before the start."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CLOSE_TIME)


def _listen(host: str, port: int) -> socket.socket:
    """An open socket, or an error with its cause and remedy."""
    try:
        return _open_socket(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        code = None if isinstance(error, socket.gaierror) else getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            other = _free_port(host, port)
            advice = f"use another{f', such as {other}' if other else ''}"
            reason = f"port {port} of {host} is in use, perhaps by another live view; {advice}"
        elif code in (errno.EACCES, errno.EPERM):
            reason = f"port {port} needs administrator rights; use one between 1024 and 65535, such as 8080"
        elif code in (errno.EADDRNOTAVAIL, None):
            advice = "use 127.0.0.1 (this machine only) or 0.0.0.0 (the network)"
            reason = f"host {host!r} is not an address of this machine; {advice}"
        else:
            reason = f"can't serve at {host}, port {port}: {error}"
        raise MobiledetError(reason) from None


def _open_socket(host: str, port: int) -> socket.socket:
    # "localhost" may mean two addresses; a browser that tries the other one first then tries this one.
    name = "127.0.0.1" if host == "localhost" else host
    family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    both = name == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, dualstack_ipv6=both)


def _free_port(host: str, taken: int) -> int | None:
    for port in range(taken + 1, min(taken + _OTHER_PORTS, 65535) + 1):
        with contextlib.suppress(OSError), _open_socket(host, port):
            return port
    return None


def _reachable_address(host: str) -> str:
    """An address that a browser can open: for "all addresses" the one that this machine has in its network."""
    if host not in ("0.0.0.0", "::"):
        return host
    # Nothing is sent: a datagram socket only looks up by which way it would go.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return socket.gethostname() or "127.0.0.1"
