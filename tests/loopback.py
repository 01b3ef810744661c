"""A server on this machine with prepared answers: whole, cut, stalled, lying, or not at all.

    with Loopback() as server:
        url = server.serve("/file.bin", Answer(body, cut_after=1000), Answer(body))

The first request for a path gets its first answer, the last answer is repeated for all further ones.
"""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST_STALL = 10.0  # seconds, so that no failed test hangs


@dataclass(frozen=True)
class Answer:
    """One answer of the server.

    Attributes:
        body: the whole file.
        status: 200 means 206 as well, when a part is asked for.
        headers: more headers, in place of the usual ones of the same name; None leaves one out.
        etag: version of the file, with its quotes.
        ranges: whether parts are served.
        cut_after: bytes of this answer's body after which the connection is closed.
        stall_after: bytes of this answer's body after which nothing comes until `Loopback.release`.
        chunked: send chunks, without a length.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str | None] = field(default_factory=dict)
    etag: str | None = '"1"'
    ranges: bool = True
    cut_after: int | None = None
    stall_after: int | None = None
    chunked: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]


class Loopback:
    """The server; use as a context manager.

    Attributes:
        url: its address, without a slash at the end.
        asked: all requests so far.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.loopback = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; closing it twice does no harm."""
        self.release()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def serve(self, path: str, *answers: Answer) -> str:
        """Set the answers for a path and return its address."""
        self._answers[path] = list(answers)
        return self.url + path

    def release(self) -> None:
        """Let stalled answers go on."""
        self._released.set()

    def ranges(self) -> list[str | None]:
        """The ``Range`` header of each request so far."""
        return [asked.headers.get("range") for asked in self.asked]

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        """What to say to a request; for the handler."""
        with self._lock:
            self.asked.append(Asked(path, headers))
            answers = self._answers.get(path.partition("?")[0], [Answer(status=404)])
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def wait(self) -> None:
        """Stall; for the handler."""
        self._released.wait(LONGEST_STALL)


def closed_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class _Server(ThreadingHTTPServer):
    loopback: Loopback

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        answer = self.server.loopback.answer(self.path, {key.lower(): value for key, value in self.headers.items()})
        status, body = answer.status, answer.body
        headers: dict[str, str | None] = {"Content-Type": "application/octet-stream", "ETag": answer.etag}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if status == 200 and asked and answer.ranges and self.headers.get("If-Range", answer.etag) == answer.etag:
            start, whole = int(asked[1]), len(body)
            body = body[start:]
            status = 206 if body else 416
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}" if body else f"bytes */{whole}"
        headers |= {"Transfer-Encoding": "chunked"} if answer.chunked else {"Content-Length": str(len(body))}
        headers |= answer.headers
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self._send(answer, body)

    def _send(self, answer: Answer, body: bytes) -> None:
        stops = [stop for stop in (answer.cut_after, answer.stall_after) if stop is not None]
        first = min([len(body), *stops])
        self._write(answer, body[:first])
        if answer.stall_after is not None:
            self.server.loopback.wait()
        if answer.cut_after is None:
            self._write(answer, body[first:])
            if answer.chunked:
                self.wfile.write(b"0\r\n\r\n")

    def _write(self, answer: Answer, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if answer.chunked else data)
            self.wfile.flush()
