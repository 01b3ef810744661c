"""A queue of events between the frames and a program or server that may be slow, or away."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from mobiledet.apps.live.scene.counting import Event
from mobiledet.errors import MobiledetError, SourceError
from mobiledet.utils.addresses import http_request, parse_address, without_user
from mobiledet.utils.text import count, shorten

logger = logging.getLogger(__name__)

KEPT = 1000
"""Events that may wait; more are dropped and counted."""

LAST_CHANCE_S = 2.0
"""Seconds that events which still wait get at the end."""

_TIMEOUT_S = 5.0
_COMMAND_S = 30.0
_LONGEST_PAUSE_S = 30.0


class NotAccepted(Exception):  # noqa: N818 - a reason, handled here
    """The receiver refused an event for good: sending it again would not help."""


class Outbox:
    """Sends events in order, in a thread of its own; one that can't be sent now is tried again, 1 to 30 s later.

    Args:
        name: Of the receiver, in messages.
        send: Sends one event; raises OSError where it may work later, and `NotAccepted` where it won't.
        interval: Seconds between two events of the same kind, line or zone, and direction; those between are left out.
    """

    def __init__(self, name: str, send: Callable[[Event], None], *, interval: float = 0.0) -> None:
        self.name, self._send, self._interval = name, send, interval
        self.sent = self.refused = self.dropped = self.left_out = 0
        """Events delivered, refused by the receiver, dropped because too many waited, and left out by the rate."""
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._latest: dict[tuple[object, ...], float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event; never waits."""
        kind = tuple(event.get(key) for key in ("event", "line", "zone", "direction"))
        now = time.monotonic()
        if now - self._latest.get(kind, -self._interval) < self._interval:
            self.left_out += 1
        elif self._queue.qsize() >= KEPT:
            self.dropped += 1
        else:
            self._latest[kind] = now
            self._queue.put(event)

    def close(self) -> None:
        """Give what waits a last chance.

        Raises:
            MobiledetError: Events were lost.
        """
        if self._closing.is_set():
            return
        self._queue.put(None)
        self._thread.join(LAST_CHANCE_S)
        self._closing.set()
        lost = self.dropped + self.refused + max(0, self._queue.qsize() - 1)
        if lost or self._thread.is_alive():
            raise MobiledetError(f"{self.name}: {count(lost + self._thread.is_alive(), 'event')} did not arrive")

    def _run(self) -> None:
        while (event := self._queue.get()) is not None and not self._closing.is_set():
            pause, reported = 1.0, False
            while not self._closing.is_set():
                try:
                    self._send(event)
                    self.sent += 1
                    if reported:
                        logger.info("%s: answers again", self.name)
                    break
                except NotAccepted as error:
                    self.refused += 1
                    logger.warning("%s: %s", self.name, error)
                    break
                except OSError as error:
                    if not reported:
                        logger.warning("%s: %s; trying again", self.name, shorten(str(error), 200))
                    reported = True
                    self._closing.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S)


def webhook(address: str) -> Callable[[Event], None]:
    """Sends events as JSON, by HTTP POST; a user and password in the address go into a header.

    Raises:
        SourceError: It is not the address of a web server.
    """
    if not address.lower().startswith(("http://", "https://")):
        raise SourceError(f"--webhook {without_user(address)}: the address must begin with http:// or https://")
    shown = parse_address(address)

    def send(event: Event) -> None:
        request = http_request(address)
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(event).encode()
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 425, 429):
                raise NotAccepted(f"{shown.shown} answered with status {error.code}") from None
            raise

    return send


def command(words: Sequence[str]) -> Callable[[Event], None]:
    """Starts a program for each event, one after the other, without a shell; it gets the event as JSON at its input."""

    def send(event: Event) -> None:
        try:
            done = subprocess.run(
                words, input=json.dumps(event).encode(), stdout=subprocess.DEVNULL, timeout=_COMMAND_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotAccepted(str(error)) from None
        if done.returncode:
            raise NotAccepted(f"it ended with status {done.returncode}")

    return send
