"""A server on this machine, and a download that neither waits long nor asks a proxy."""

from __future__ import annotations

import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator

import pytest
from loopback import Loopback

import mobiledet.download.fetch as fetching

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BACKOFF", 0.01)
    monkeypatch.delenv("MOBILEDET_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``disk(free)``: every disk has so many bytes left."""

    def set_free(free: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 0, free))

    return set_free


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """``until(condition)``: wait for it."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait


@pytest.fixture
def background() -> Callable[[Callable[[], object]], Callable[[], BaseException | None]]:
    """``background(function)``: call it in a thread; calling the result waits for its end and gives its error."""

    def start(function: Callable[[], object]) -> Callable[[], BaseException | None]:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                function()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()

        def error() -> BaseException | None:
            thread.join(10)
            assert not thread.is_alive()
            return errors[0] if errors else None

        return error

    return start
