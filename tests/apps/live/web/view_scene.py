"""A view server with scripted results, and a client that speaks plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field

import cv2
import numpy as np
from live_parts import result

from mobiledet.apps.live.frames import Newest
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.sources.base import SourceState
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.apps.live.web.server import ViewServer

NAMES = ("person", "car", "tree <b>")
HEIGHT, WIDTH = 72, 128
PATIENCE = 20.0


def make_result(index, *, size=(HEIGHT, WIDTH), items=((1, 0.9), (2, 0.5), (1, 0.1)), noise=False):
    """A frame whose grey shows its number, with a car and two people."""
    made = result(index, items=items, names=NAMES, grabbed=time.monotonic() - 0.02, size=size, name=f"{index}.jpg")
    if noise:
        made.frame.image[:] = np.random.default_rng(index).integers(0, 255, made.frame.image.shape, np.uint8)
    return made


def make_numbers(**changes):
    usual = {"fps": 12.5, "age_ms": 30.0, "stages_ms": {"network": 20.0}, "processed": 7, "seconds": 3.0}
    source = SourceState(connected=True, captured=9, dropped=2, size=(HEIGHT, WIDTH))
    return LiveNumbers(**{**usual, "source": source, **changes})


@dataclass
class Scene:
    """What a server is made of, and the server once `serve` was called."""

    results: Newest = field(default_factory=Newest)
    settings: ViewSettings = field(default_factory=lambda: ViewSettings(names=NAMES))
    numbers: LiveNumbers = field(default_factory=make_numbers)
    drawn: list = field(default_factory=list)
    servers: list = field(default_factory=list)
    ask_numbers: object = None
    counting: dict = field(default_factory=dict)  # tracked, save_scene and history of the view
    others: list = field(default_factory=list)  # views of further cameras

    def __post_init__(self):
        self.painter = Painter(self.settings, on_draw=self.drawn.append)

    def serve(self, **options):
        numbers = self.ask_numbers or (lambda: self.numbers)
        self.view = View(self.results, self.painter, numbers, "model <i> on clip.mp4", **self.counting)
        server = ViewServer([self.view, *self.others], **{"port": 0, **options})
        server.start()
        self.servers.append(server)
        return server

    def show(self, index, **options):
        self.results.put(make_result(index, **options))

    def close(self):
        for server in self.servers:
            server.close()


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def ask(server, path, *, method="GET", body=None, headers=None, host="127.0.0.1"):
    """One request; header names of the answer are in lower case."""
    connection = http.client.HTTPConnection(host, server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def change(server, value, path="/settings", **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    names = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return ask(server, path, method="POST", body=body, headers=names)


class Viewer:
    """Reads the stream frame by frame; `next` gives index and image ``(H, W, 3)`` BGR."""

    def __init__(self, server, query="", headers=None):
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        self._connection.request("GET", f"/stream.mjpg{query}", headers=headers or {})
        self.response = self._connection.getresponse()
        self.status = self.response.status
        if self.status == 200:
            assert self.response.readline() == b"--picture\r\n"

    def next(self):
        head = {}
        while (line := self.response.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            head[name] = value
        if not head:
            raise EOFError
        jpeg = self.response.read(int(head["Content-Length"]))
        assert self.response.readline() == b"\r\n"
        assert self.response.readline() == b"--picture\r\n"
        return int(head["X-Index"]), cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)

    def close(self):
        self.response.close()
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def deaf_viewer(server, query=""):
    """A connection that asks for the stream and never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(f"GET /stream.mjpg{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


class Feeder:
    """Shows results at a steady rate, in a thread."""

    def __init__(self, scene, *, pause=0.01, **options):
        self.count = 0
        self._stop = threading.Event()
        self._work = (scene, pause, options)
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        scene, pause, options = self._work
        while not self._stop.wait(pause):
            scene.show(self.count, **options)
            self.count += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
