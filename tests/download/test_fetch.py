from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Answer, Loopback, closed_port

import mobiledet.download.fetch as fetching
from mobiledet.download.archives import extract_member
from mobiledet.download.fetch import Remote, fetch
from mobiledet.errors import DownloadError, MissingDependencyError, MobiledetError
from mobiledet.utils.files import cache_folder, locked
from mobiledet.utils.text import readable_size

BODY = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
OTHER = random.Random(1).randbytes(300_000)
PAGE = b"<html>please log in</html>"
HTML: dict[str, str | None] = {"Content-Type": "text/html; charset=utf-8"}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BACKOFF", 0.01)
    monkeypatch.delenv("MOBILEDET_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.bin"


def get(url: str, target: Path, *, timeout: float = 5.0, **known) -> Path:
    return fetch(Remote(url, **known), target, what="the weights", timeout=timeout, progress=False)


def refusal(url: str, target: Path, *, timeout: float = 5.0, **known) -> str:
    """The message of a fetch that fails; no file may come of it."""
    was_there = target.exists()
    with pytest.raises(DownloadError) as caught:
        get(url, target, timeout=timeout, **known)
    message = str(caught.value)
    assert "\n" not in message
    assert target.exists() == was_there
    return message


def nothing_but(target: Path) -> bool:
    return list(target.parent.iterdir()) == [target]


def leave_part(server: Loopback, target: Path, **known) -> str:
    """Break a transfer off for good, so that a part is left."""
    url = server.serve("/w", Answer(BODY, cut_after=100_000), Answer(status=404))
    refusal(url, target, **known)
    assert 0 < target.with_name("weights.bin.part").stat().st_size <= 100_000
    server.asked.clear()
    return url


# --- what goes well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{}, {"size": len(BODY)}, {"sha256": SHA256.upper()}, {"md5": MD5, "size": 300_000}])
def test_a_file_comes_whole_and_alone(server: Loopback, target: Path, known: dict) -> None:
    assert get(server.serve("/w", Answer(BODY)), target, **known) == target
    assert target.read_bytes() == BODY
    assert nothing_but(target)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_chunks_without_a_length(server: Loopback, target: Path) -> None:
    get(server.serve("/w", Answer(BODY, chunked=True)), target)
    assert target.read_bytes() == BODY


def test_what_is_there_is_not_fetched_again(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.serve("/w", Answer(BODY))
    get(url, target, sha256=SHA256)
    get(url, target, sha256=SHA256)
    assert len(server.asked) == 1
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    assert get(url, target, sha256=SHA256) == target


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"md5": MD5}, {"size": 5}])
def test_another_file_in_its_place_is_left_alone(server: Loopback, target: Path, known: dict) -> None:
    target.parent.mkdir()
    target.write_bytes(b"mine")
    message = refusal(server.serve("/w", Answer(BODY)), target, **known)
    assert str(target) in message
    assert "move it away" in message
    assert target.read_bytes() == b"mine"
    assert server.asked == []


def test_a_folder_in_its_place(server: Loopback, target: Path) -> None:
    target.mkdir(parents=True)
    assert "not a file" in refusal(server.serve("/w", Answer(BODY)), target)


def test_redirects_are_followed(server: Loopback, target: Path) -> None:
    there = server.serve("/there", Answer(BODY))
    get(server.serve("/w", Answer(status=302, headers={"Location": there})), target, sha256=SHA256)
    assert target.read_bytes() == BODY
    circle = server.serve("/c", Answer(status=302, headers={"Location": "/c"}))
    assert "circles" in refusal(circle, target.with_name("other"))


def test_proxies_of_the_environment(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    url = "http://nowhere.invalid/w"
    server._answers[url] = [Answer(BODY)]  # a proxy is asked for the whole address
    assert get(url, target).read_bytes() == BODY
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    assert "proxy" in refusal(url, target.with_name("other"))


# --- broken transfers -------------------------------------------------------------------------------------------


def test_a_cut_transfer_goes_on_where_it_stood(server: Loopback, target: Path) -> None:
    get(server.serve("/w", Answer(BODY, cut_after=100_000), Answer(BODY, cut_after=90_000), Answer(BODY)), target)
    assert target.read_bytes() == BODY
    first, second, third = server.ranges()
    assert first is None
    assert 0 < int(second[6:-1]) <= 100_000 < int(third[6:-1]) <= 190_000
    assert server.asked[1].headers["if-range"] == '"1"'
    assert server.asked[0].headers["accept-encoding"] == "identity"


def test_a_later_call_goes_on_too(server: Loopback, target: Path) -> None:
    leave_part(server, target)
    get(server.serve("/w", Answer(BODY)), target)
    assert target.read_bytes() == BODY
    assert server.ranges()[0] is not None
    assert nothing_but(target)


def test_a_changed_file_is_not_spliced(server: Loopback, target: Path) -> None:
    leave_part(server, target)
    get(server.serve("/w", Answer(OTHER, etag='"2"')), target)
    assert server.ranges()[0] is not None
    assert target.read_bytes() == OTHER


def test_a_server_that_splices_anyway(server: Loopback, target: Path) -> None:
    """It ignores If-Range, but its ETag gives it away."""
    url = leave_part(server, target)
    length = target.with_name("weights.bin.part").stat().st_size
    answer = Answer(OTHER[length:], 206, {"Content-Range": f"bytes {length}-299999/300000"}, etag='"2"')
    server.serve("/w", answer, Answer(OTHER, etag='"2"'))
    assert get(url, target).read_bytes() == OTHER
    assert server.ranges()[1] is None


def test_without_a_version_or_checksum_it_starts_over(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, etag=None, cut_after=100_000), Answer(status=404))
    refusal(url, target)
    get(server.serve("/w", Answer(OTHER, etag=None)), target)
    assert target.read_bytes() == OTHER
    assert server.ranges()[-1] is None


def test_a_weak_version_gives_way_to_the_date(server: Loopback, target: Path) -> None:
    headers: dict[str, str | None] = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    url = server.serve("/w", Answer(BODY, headers=headers, etag='W/"1"', cut_after=100_000), Answer(status=404))
    refusal(url, target)
    server.serve("/w", Answer(BODY, headers=headers, etag='W/"1"', ranges=False))
    get(url, target)
    assert server.asked[-1].headers["if-range"] == headers["Last-Modified"]


def test_another_server_may_go_on_if_there_is_a_checksum(server: Loopback, target: Path) -> None:
    leave_part(server, target, sha256=SHA256)
    get(server.serve("/mirror", Answer(BODY, etag='"other"')), target, sha256=SHA256)
    assert server.ranges()[0] is not None
    assert target.read_bytes() == BODY


def test_but_not_without_one(server: Loopback, target: Path) -> None:
    leave_part(server, target)
    get(server.serve("/mirror", Answer(OTHER)), target)
    assert server.ranges() == [None]
    assert target.read_bytes() == OTHER


def test_a_server_that_ignores_ranges(server: Loopback, target: Path) -> None:
    get(server.serve("/w", Answer(BODY, ranges=False, cut_after=100_000), Answer(BODY, ranges=False)), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("said", ["bytes 5-299999/300000", "bytes x", None])
def test_a_wrong_content_range(server: Loopback, target: Path, said: str | None) -> None:
    wrong = Answer(BODY[1000:], 206, {"Content-Range": said})
    get(server.serve("/w", Answer(BODY, cut_after=100_000), wrong, Answer(BODY)), target)
    assert target.read_bytes() == BODY
    assert server.ranges()[2] is None


def test_a_part_nobody_asked_for(server: Loopback, target: Path) -> None:
    answer = Answer(BODY[:9], 206, {"Content-Range": "bytes 0-8/300000"})
    assert "another part" in refusal(server.serve("/w", answer), target)


def test_a_whole_part_only_gets_its_name(server: Loopback, target: Path) -> None:
    """Killed between the last byte and the renaming; 416 is the answer to asking for more."""
    for known in ({}, {"size": len(BODY)}):
        url = leave_part(server, target, **known)
        target.with_name("weights.bin.part").write_bytes(BODY)
        server.serve("/w", Answer(BODY))
        assert get(url, target, **known).read_bytes() == BODY
        assert server.ranges() == ([] if known else ["bytes=300000-"])
        target.unlink()


def test_a_part_longer_than_the_file(server: Loopback, target: Path) -> None:
    url = leave_part(server, target)
    target.with_name("weights.bin.part").write_bytes(BODY + b"more")
    server.serve("/w", Answer(BODY))
    assert get(url, target).read_bytes() == BODY


def test_a_part_with_wrong_bytes_is_found_by_its_checksum(server: Loopback, target: Path) -> None:
    url = leave_part(server, target, sha256=SHA256)
    target.with_name("weights.bin.part").write_bytes(bytes(1000))
    server.serve("/w", Answer(BODY))
    assert get(url, target, sha256=SHA256).read_bytes() == BODY
    assert server.ranges() == ["bytes=1000-", None]


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"content": null, "url": 5, "validator": []}', "[" * 100_000])
def test_damaged_notes_mean_starting_over(server: Loopback, target: Path, notes: str) -> None:
    url = leave_part(server, target)
    target.with_name("weights.bin.part.json").write_text(notes)
    server.serve("/w", Answer(BODY))
    assert get(url, target).read_bytes() == BODY
    assert server.ranges() == [None]


def test_somebody_elses_part_is_left_alone(server: Loopback, target: Path) -> None:
    target.parent.mkdir()
    part = target.with_name("weights.bin.part")
    part.write_bytes(b"a browser's")
    message = refusal(server.serve("/w", Answer(BODY)), target)
    assert str(part) in message
    assert part.read_bytes() == b"a browser's"


def test_a_stall_is_cut_short_and_mended(server: Loopback, target: Path) -> None:
    start = time.perf_counter()
    get(server.serve("/w", Answer(BODY, stall_after=100_000), Answer(BODY)), target, timeout=0.2)
    assert time.perf_counter() - start < 3
    assert target.read_bytes() == BODY
    assert server.ranges()[1] is not None


def test_a_server_that_never_speaks(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, stall_after=0, headers={"Content-Length": "300000"}))
    assert "nothing came for 0.1 s (4 tries)" in refusal(url, target, timeout=0.1)


def test_a_truncated_body_is_said_to_be(server: Loopback, target: Path) -> None:
    """Content-Length says more than there is: each try gets nothing new."""
    url = server.serve("/w", Answer(BODY, headers={"Content-Length": "400000"}, ranges=False))
    message = refusal(url, target)
    assert "broke" in message or "ended after" in message
    assert "(4 tries)" in message
    assert len(server.asked) == 4


def test_truncated_chunks(server: Loopback, target: Path) -> None:
    get(server.serve("/w", Answer(BODY, chunked=True, cut_after=150_000), Answer(BODY)), target)
    assert target.read_bytes() == BODY


def test_more_than_was_said(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY + b"more", chunked=True))
    assert "sends more than the 300,000 bytes" in refusal(url, target, size=300_000)
    assert not list(target.parent.iterdir())


def test_a_length_that_says_less(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, headers={"Content-Length": "1000"}))
    assert "1,000 bytes instead of 300,000" in refusal(url, target, size=300_000)
    assert "sha256" in refusal(url, target, sha256=SHA256)


def test_headway_makes_up_for_breaks(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "HEADWAY", 1000)
    cuts = [Answer(BODY, cut_after=70_000)] * 4
    get(server.serve("/w", *cuts[:1], *cuts, Answer(BODY)), target)
    assert len(server.asked) == 5
    monkeypatch.setattr(fetching, "HEADWAY", 1 << 20)
    assert "(4 tries)" in refusal(server.serve("/v", *cuts, Answer(BODY)), target.with_name("v"))


# --- wrong files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "named"), [({"sha256": SHA256}, SHA256), ({"md5": MD5}, MD5)])
def test_a_wrong_checksum_is_tried_twice_and_refused(server: Loopback, target: Path, known: dict, named: str) -> None:
    message = refusal(server.serve("/w", Answer(OTHER)), target, **known)
    assert named in message
    assert server.ranges() == [None, None]
    assert not list(target.parent.iterdir())


def test_a_wrong_checksum_once_is_forgiven(server: Loopback, target: Path) -> None:
    get(server.serve("/w", Answer(OTHER), Answer(BODY)), target, sha256=SHA256)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"size": 300_000}, {"size": len(PAGE), "md5": MD5}])
def test_a_login_page_is_called_one(server: Loopback, target: Path, known: dict) -> None:
    message = refusal(server.serve("/w", Answer(PAGE, headers=HTML)), target, **known)
    assert "web page" in message
    assert not list(target.parent.iterdir())


def test_a_login_page_costs_nothing_that_came(server: Loopback, target: Path) -> None:
    url = leave_part(server, target, sha256=SHA256)
    before = target.with_name("weights.bin.part").read_bytes()
    server.serve("/w", Answer(PAGE, headers=HTML, ranges=False))
    assert "web page" in refusal(url, target, sha256=SHA256)
    assert target.with_name("weights.bin.part").read_bytes() == before


def test_pages_that_are_wanted(server: Loopback, target: Path) -> None:
    page = get(server.serve("/w", Answer(PAGE, headers=HTML)), target.with_name("page.html"))
    assert page.read_bytes() == PAGE


def test_an_empty_file(server: Loopback, target: Path) -> None:
    assert "empty" in refusal(server.serve("/w", Answer(b"")), target)
    assert "empty" in refusal(server.serve("/w", Answer(b"", chunked=True)), target)


def test_bytes_stay_as_they_are(server: Loopback, target: Path) -> None:
    """Some servers call a .gz "encoded"; unpacking it on the way would be wrong."""
    packed = gzip.compress(BODY)
    url = server.serve("/w", Answer(packed, headers={"Content-Encoding": "gzip"}))
    assert get(url, target.with_name("w.tar.gz")).read_bytes() == packed
    assert "compresses" in refusal(url, target)


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 300, 401, 403, 404, 410, 416, 418, 451, 599])
def test_a_final_answer_is_final(server: Loopback, target: Path, status: int) -> None:
    message = refusal(server.serve("/w", Answer(status=status)), target)
    assert f"the server answers {status}" in message
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_answer_is_tried_again(server: Loopback, target: Path, status: int) -> None:
    get(server.serve("/w", Answer(status=status), Answer(status=status), Answer(BODY)), target)
    assert target.read_bytes() == BODY
    assert f"{status}" in refusal(server.serve("/v", Answer(status=status)), target.with_name("v"))


def test_a_server_may_ask_for_patience(server: Loopback, target: Path) -> None:
    start = time.perf_counter()
    get(server.serve("/w", Answer(status=429, headers={"Retry-After": "1"}), Answer(BODY)), target)
    assert time.perf_counter() - start >= 1
    url = server.serve("/v", Answer(status=503, headers={"Retry-After": "3600"}))
    assert "come back in 3600 s" in refusal(url, target.with_name("v"))
    get(server.serve("/u", Answer(status=503, headers={"Retry-After": "soon"}), Answer(BODY)), target.with_name("u"))


def test_nobody_there(target: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/w.bin"
    start = time.perf_counter()
    with pytest.raises(DownloadError) as caught:
        fetch(Remote(url), target, what="the weights", by_hand="its md5 is 1234")
    assert time.perf_counter() - start < 2
    assert str(caught.value) == (
        f"the weights can't be fetched: the server refuses the connection; to install it manually, download {url} and "
        f"save it as {target}; its md5 is 1234"
    )


def test_a_server_that_goes_away_is_waited_for(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as server:
        url = server.serve("/w", Answer(BODY, cut_after=100_000))
        waits: list[float] = []
        monkeypatch.setattr(fetching.time, "sleep", lambda seconds: (waits.append(seconds), server.__exit__()))
        monkeypatch.setattr(server._server, "shutdown", _once(server._server.shutdown))
        assert "refuses the connection (4 tries); what has come is kept" in refusal(url, target)
        assert waits == [0.01, 0.02, 0.04]


def _once(function):
    calls = []

    def call():
        if not calls:
            calls.append(1)
            function()

    return call


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://nowhere.invalid/w", "name can't be resolved"),
        ("ftp://example.org/w", "not a valid http or https address"),
        ("file:///etc/passwd", "not a valid http or https address"),
        ("nonsense", "not a valid http or https address"),
        ("", "not a valid http or https address"),
        ("http://[::1/w", "not a valid http or https address"),
        ("http://a:b:c/w", "not a valid http or https address"),
        ("http:///w", "not a valid http or https address"),
    ],
)
def test_odd_addresses(target: Path, url: str, why: str) -> None:
    assert why in refusal(url, target)


def test_no_secure_connection(server: Loopback, target: Path) -> None:
    assert "TLS" in refusal(server.url.replace("http", "https") + "/w", target)


def test_secrets_are_not_told(server: Loopback, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mobiledet")
    url = server.serve("/w", Answer(BODY, cut_after=100_000), Answer(status=500), Answer(status=403))
    secret = url.replace("http://", "http://user:hunter2@") + "?token=hunter2#hunter2"
    message = refusal(secret, target)
    assert f"download {url} and" in message
    dead = f"http://user:hunter2@127.0.0.1:{closed_port()}/w?token=hunter2"
    told = message + refusal(dead, target) + caplog.text
    told += "".join(p.read_text() for p in target.parent.glob("*.json"))
    assert "hunter2" not in told
    assert caplog.text  # something was told


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_nothing_is_tried(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MOBILEDET_OFFLINE", value)
    url = server.serve("/w", Answer(BODY))
    message = refusal(url, target)
    assert message.startswith("the weights can't be fetched: MOBILEDET_OFFLINE is set; to install it manually")
    assert str(target) in message
    assert server.asked == []
    assert not target.parent.exists()
    monkeypatch.setenv("MOBILEDET_OFFLINE", "0")
    get(url, target)


def test_without_requests(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(MissingDependencyError, match=r'pip install -e "\.\[train\]"'):
        get("http://127.0.0.1:9/w", target)


# --- this machine -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_seen_before_it_starts(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 0, 250_000))
    url = server.serve("/w", Answer(BODY))
    assert "lacks 50,000 of them" in refusal(url, target, size=300_000)
    assert server.asked == []
    assert "lacks 50,000 of them" in refusal(url, target)  # the size is the server's word
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 0, 300_000))
    leave_part(server, target)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 0, 240_000))
    get(server.serve("/w", Answer(BODY)), target)  # what has come needs no room any more


def test_a_disk_that_fills_up(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.serve("/w", Answer(BODY))
    real = Path.open

    def full(self: Path, mode: str = "r", *args, **kwargs):
        if mode == "ab":
            return real(Path("/dev/full"), mode, *args, **kwargs)
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    message = refusal(url, target)
    assert "No space left" in message
    assert str(target.parent) in message


def test_folders_that_cant_be(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/w", Answer(BODY))
    (tmp_path / "file").write_text("")
    assert "can't be written to" in refusal(url, tmp_path / "file" / "w")
    assert "can't be written to" in refusal(url, Path("/proc/nothing/w"))
    assert "can't be written to" in refusal(url, tmp_path / ("n" * 252))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(server: Loopback, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in refusal(server.serve("/w", Answer(BODY)), tmp_path / "w")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_comes_up_meanwhile_is_kept(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, stall_after=100_000))
    thread = _Result(lambda: get(url, target))
    _until(lambda: target.with_name("weights.bin.part").exists() and server.asked)
    target.write_bytes(b"mine")
    server.release()
    assert "meanwhile" in str(thread.error())
    assert target.read_bytes() == b"mine"


# --- two at a time, and stopping --------------------------------------------------------------------------------


class _Result:
    def __init__(self, function) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,))
        self._thread.start()

    def _run(self, function) -> None:
        try:
            function()
        except BaseException as error:
            self._error = error

    def error(self) -> BaseException | None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self._error


def _until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def program(url: str, target: Path) -> subprocess.Popen:
    code = (
        "import sys; from pathlib import Path; from mobiledet.cli.common import run_tool;"
        "from mobiledet.download.fetch import Remote, fetch;"
        f"run_tool(lambda: print(fetch(Remote({url!r}), Path({str(target)!r}), what='the weights')) and None)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_threads_fetch_it_once(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, stall_after=100_000))
    threads = [_Result(lambda: get(url, target)) for _ in range(3)]
    _until(lambda: server.asked)
    server.release()
    assert [thread.error() for thread in threads] == [None] * 3
    assert len(server.asked) == 1
    assert target.read_bytes() == BODY
    assert nothing_but(target)


def test_processes_fetch_it_once(server: Loopback, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mobiledet")
    url = server.serve("/w", Answer(BODY, stall_after=100_000))
    with program(url, target) as first:
        _until(lambda: server.asked)
        second = _Result(lambda: get(url, target))
        _until(lambda: "another process" in caplog.text)
        server.release()
        assert second.error() is None
        assert first.wait(10) == 0
    assert len(server.asked) == 1
    assert nothing_but(target)


def test_the_second_takes_over_from_a_killed_first(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, stall_after=100_000), Answer(BODY))
    with program(url, target) as first:
        _until(lambda: target.with_name("weights.bin.part").exists())
        _until(lambda: target.with_name("weights.bin.part").stat().st_size)
        first.kill()
        first.wait(10)
    assert get(url, target).read_bytes() == BODY
    assert server.ranges()[1] is not None
    assert nothing_but(target)


def test_ctrl_c_keeps_what_has_come(server: Loopback, target: Path) -> None:
    url = server.serve("/w", Answer(BODY, stall_after=100_000), Answer(BODY))
    part = target.with_name("weights.bin.part")
    with program(url, target) as stopped:
        _until(lambda: part.exists() and part.stat().st_size)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=10)
    assert stopped.returncode == 130
    assert "Traceback" not in err
    assert "what has come is kept" in err
    assert 0 < part.stat().st_size <= 100_000
    with program(url, target) as again:
        assert again.communicate(timeout=10)[0] == f"{target}\n"
    assert server.ranges()[1] is not None
    assert target.read_bytes() == BODY
    assert nothing_but(target)


def test_a_lock_is_for_one(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        with locked(tmp_path / "lock", "waiting"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [_Result(work) for _ in range(6)]
    assert [thread.error() for thread in threads] == [None] * 6
    assert most == [1] * 6
    assert not list(tmp_path.iterdir())


# --- small things -----------------------------------------------------------------------------------------------


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MOBILEDET_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mobiledet"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(MobiledetError, match="MOBILEDET_CACHE"):
        cache_folder()


def test_sizes_for_people() -> None:
    sizes = (5, 1023, 1024, 1_000_000, 815_585_330, 19_336_861_798, 10**16)
    expected = ["5 bytes", "1023 bytes", "1 KiB", "977 KiB", "778 MiB", "18 GiB", "9.09e+03 TiB"]
    assert [readable_size(size) for size in sizes] == expected


def test_importing_it_is_light() -> None:
    code = "import mobiledet.download, sys; print([m for m in ('torch','cv2','numpy','requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_bar_on_a_terminal_only(server: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = (Answer(BODY, cut_after=200_000, ranges=False), Answer(BODY, ranges=False))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(Remote(server.serve("/w", *answers)), target, what="the weights")
    assert "the weights: " in terminal.getvalue()
    silent = io.StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    fetch(Remote(server.serve("/v", *answers)), target.with_name("v"), what="the weights")
    assert silent.getvalue() == ""


# --- archives ---------------------------------------------------------------------------------------------------

FILES = {"model/detect.tflite": BODY, "model/labelmap.txt": b"person\n", "readme": b""}


def tarball(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes], *, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(info, "/etc/passwd")
    return path


PACKERS = pytest.mark.parametrize("pack", [tarball, zipped])


def no_member(archive: Path, suffix: str, target: Path) -> str:
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(DownloadError) as caught:
        extract_member(archive, suffix, target)
    assert "\n" not in str(caught.value)
    assert [path for path in sorted(archive.parent.rglob("*")) if path not in before and path.is_file()] == []
    return str(caught.value)


@PACKERS
def test_the_one_member(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)  # its name tells nothing
    target = tmp_path / "deep" / "out.tflite"
    assert extract_member(archive, "detect.tflite", target) == target
    assert target.read_bytes() == BODY
    assert nothing_but(target)
    extract_member(archive, "detect.tflite", target)  # the same content: fine
    target.write_bytes(b"mine")
    assert "move it away" in no_member(archive, "detect.tflite", target)
    assert target.read_bytes() == b"mine"
    assert extract_member(archive, "readme", tmp_path / "empty").read_bytes() == b""


@PACKERS
def test_no_such_member_or_several(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES | {"b/detect.tflite": b""})
    message = no_member(archive, "detect.tflite", tmp_path / "out")
    assert "2 members" in message
    assert "'b/detect.tflite'" in message
    message = no_member(archive, ".pb", tmp_path / "out")
    assert "no member that ends in '.pb'" in message
    assert "'model/labelmap.txt'" in message
    assert "nothing" in no_member(pack(tmp_path / "b", {}), ".pb", tmp_path / "out")
    many = no_member(pack(tmp_path / "c", {str(i): b"" for i in range(100)}), ".pb", tmp_path / "out")
    assert "and 92 more" in many


@PACKERS
@pytest.mark.parametrize("name", ["/etc/x.txt", "../x.txt", "a/../../x.txt", "..\\x.txt", "C:x.txt", "\\x.txt"])
def test_members_that_lead_out(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / "a", FILES | {name: b"evil"})
    for suffix in ("x.txt", "detect.tflite"):
        assert "leads out" in no_member(archive, suffix, tmp_path / "out")


def test_links_are_not_followed(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info = tarfile.TarInfo("a/link.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        archive = tarball(tmp_path / "a.tgz", FILES, info)
        assert "is a link" in no_member(archive, "link.txt", tmp_path / "out")
    archive = zipped(tmp_path / "a.zip", FILES, link="a/link.txt")
    assert "is a link" in no_member(archive, "link.txt", tmp_path / "out")


@PACKERS
def test_every_way_to_be_damaged(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", FILES)
    whole = archive.read_bytes()
    for length in (0, 1, 2, 3, 10, 100, len(whole) // 2, len(whole) - 30, len(whole) - 5, len(whole) - 1):
        archive.write_bytes(whole[:length])
        message = no_member(archive, "detect.tflite", tmp_path / "out")
        assert "get it again" in message, (length, message)
    for place in range(100, len(whole) - 600, len(whole) // 20):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert "get it again" in no_member(archive, "detect.tflite", tmp_path / "out"), place


def test_what_is_no_archive(tmp_path: Path) -> None:
    page = tmp_path / "a.zip"
    page.write_bytes(PAGE)
    assert "neither a .zip nor a .tar.gz" in no_member(page, "x", tmp_path / "out")
    assert "No such file" in no_member(tmp_path / "absent.zip", "x", tmp_path / "out")
    assert "directory" in no_member(tmp_path, "x", tmp_path / "out")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"no tar"))
    assert "get it again" in no_member(tmp_path / "b.gz", "x", tmp_path / "out")


def test_a_member_that_doesnt_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a", FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 100_000))
    assert "lacks 200,000" in no_member(archive, "detect.tflite", tmp_path / "out")


def test_notes_are_plain(server: Loopback, target: Path) -> None:
    leave_part(server, target, md5=MD5)
    notes = json.loads(target.with_name("weights.bin.part.json").read_text())
    assert notes["validator"] == '"1"'
    assert notes["content"] == MD5
    assert notes["total"] == len(BODY)
