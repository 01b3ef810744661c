"""A camera of the network on this machine: JPEG after JPEG over HTTP, and all that can go wrong with it.

with MjpegServer(fps=30) as server:
    server.url; server.drop(); server.stalled = True; server.refuse(); server.come_back()
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class MjpegServer:
    """Use as a context manager.

    Frame n is red, ``8 * (n % 32)`` bright, so that a test can tell which one it got.

    Attributes:
        stalled: while set, connections stay open and nothing comes.
        status: anything but 200 is answered instead of images.
    """

    def __init__(self, *, fps: float = 30.0) -> None:
        self.fps = fps
        self.stalled, self.status, self.sent = False, 200, 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.come_back()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/stream"

    def __enter__(self) -> MjpegServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def drop(self) -> None:
        """Cut all connections."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Stop to listen, too."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()
        self.drop()
        deadline = time.monotonic() + 5
        while self._open and time.monotonic() < deadline:
            time.sleep(0.01)

    def come_back(self) -> None:
        """Listen again, at the same port."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.owner = self
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stream(self, connection: socket.socket, write) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            due = time.monotonic()
            while True:
                if not self.stalled:
                    image = np.zeros((48, 64, 3), np.uint8)
                    image[..., 2] = 8 * (self.sent % 32)
                    data = cv2.imencode(".jpg", image)[1].tobytes()
                    write(b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))
                    self.sent += 1
                due = max(due + 1 / self.fps, time.monotonic() - 0.1)
                time.sleep(max(0.0, due - time.monotonic()))
                if self.stalled and connection.fileno() >= 0:  # notice when the other side hangs up
                    connection.settimeout(0.001)
                    with contextlib.suppress(TimeoutError):
                        if not connection.recv(1):
                            return
                    connection.settimeout(None)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)


class _Server(ThreadingHTTPServer):
    owner: MjpegServer
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server.owner
        if owner.status != 200:
            self.send_response(owner.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        owner.stream(self.connection, self.wfile.write)
