"""One file over http, from a server that answers in every way servers do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback import Answer, Loopback, closed_port

import mobiledet.download.fetch as fetching
from mobiledet.download.fetch import Remote, fetch
from mobiledet.errors import DownloadError, MissingDependencyError

BODY = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
OTHER = random.Random(1).randbytes(300_000)
PAGE = Answer(b"<html>please log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}, ranges=False)
CUT = Answer(BODY, cut_after=100_000)


class Weights:
    """A file to fetch: the answers of its server, and what is here."""

    def __init__(self, server: Loopback, folder: Path) -> None:
        self.server = server
        self.url = f"{server.url}/w"
        self.target = folder / "weights.bin"
        self.part = folder / "weights.bin.part"
        self.notes = folder / "weights.bin.part.json"

    def get(self, *answers: Answer, name: str = "", url: str = "", timeout: float = 5.0, **known) -> bytes:
        """Fetch it, answered thus; what came must be alone in its folder."""
        target = self.target.with_name(name or self.target.name)
        if answers:
            self.server.serve("/w", *answers)
        remote = Remote(url or self.url, **known)
        assert fetch(remote, target, what="the weights", timeout=timeout, progress=False) == target
        assert [path for path in target.parent.iterdir() if target.name in path.name] == [target]
        return target.read_bytes()

    def refusal(self, *answers: Answer, **how) -> str:
        """The message of a fetch that fails; no file may come of it."""
        was_there = self.target.exists()
        with pytest.raises(DownloadError) as caught:
            self.get(*answers, **how)
        assert "\n" not in str(caught.value)
        assert self.target.exists() == was_there
        return str(caught.value)

    def leave_part(self, **known) -> None:
        """Break a transfer off for good, so that a part is left."""
        self.refusal(CUT, Answer(status=404), **known)
        assert 0 < self.part.stat().st_size <= 100_000
        self.server.asked.clear()

    def has_part(self) -> bool:
        return self.part.exists() and self.part.stat().st_size > 0

    def program(self) -> subprocess.Popen:
        code = (
            "import sys; from pathlib import Path; from mobiledet.cli.common import run_and_exit;"
            "from mobiledet.download.fetch import Remote, fetch;"
            f"run_and_exit(lambda: print(fetch(Remote({self.url!r}), Path({str(self.target)!r}), what='the weights')))"
        )
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def weights(server: Loopback, tmp_path: Path) -> Weights:
    return Weights(server, tmp_path / "cache")


# --- what goes well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{}, {"size": len(BODY)}, {"sha256": SHA256.upper()}, {"md5": MD5, "size": 300_000}])
def test_a_file_comes_whole_and_alone(weights: Weights, known: dict) -> None:
    assert weights.get(Answer(BODY), **known) == BODY
    assert list(weights.target.parent.iterdir()) == [weights.target]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(weights.target.stat().st_mode) == 0o666 & ~umask


def test_chunks_without_a_length(weights: Weights) -> None:
    assert weights.get(Answer(BODY, chunked=True)) == BODY
    assert weights.get(Answer(BODY, chunked=True, cut_after=150_000), Answer(BODY), name="again") == BODY


def test_what_is_there_is_not_fetched_again(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.get(Answer(BODY), sha256=SHA256)
    weights.get(sha256=SHA256)
    assert len(weights.server.asked) == 1
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    assert weights.get(sha256=SHA256) == BODY


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"md5": MD5}, {"size": 5}])
def test_another_file_in_its_place_is_left_alone(weights: Weights, known: dict) -> None:
    weights.target.parent.mkdir()
    weights.target.write_bytes(b"mine")
    message = weights.refusal(Answer(BODY), **known)
    assert str(weights.target) in message
    assert "move it away" in message
    assert weights.target.read_bytes() == b"mine"
    assert weights.server.asked == []


def test_a_folder_in_its_place(weights: Weights) -> None:
    weights.target.mkdir(parents=True)
    assert "not a file" in weights.refusal(Answer(BODY))


def test_redirects_are_followed(weights: Weights) -> None:
    there = weights.server.serve("/there", Answer(BODY))
    assert weights.get(Answer(status=302, headers={"Location": there}), sha256=SHA256) == BODY
    assert "circles" in weights.refusal(Answer(status=302, headers={"Location": "/w"}), name="other")


def test_proxies_of_the_environment(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", weights.server.url)
    monkeypatch.setenv("no_proxy", "")
    url = "http://nowhere.invalid/w"
    weights.server.serve(url, Answer(BODY))  # a proxy is asked for the whole address
    assert weights.get(url=url) == BODY
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    assert "proxy" in weights.refusal(url=url, name="other")


# --- broken transfers -------------------------------------------------------------------------------------------


def test_a_cut_transfer_goes_on_where_it_stopped(weights: Weights) -> None:
    assert weights.get(CUT, Answer(BODY, cut_after=90_000), Answer(BODY)) == BODY
    first, second, third = weights.server.ranges()
    assert first is None
    assert 0 < int(second[6:-1]) <= 100_000 < int(third[6:-1]) <= 190_000
    assert weights.server.asked[1].headers["if-range"] == '"1"'
    assert weights.server.asked[0].headers["accept-encoding"] == "identity"


def test_a_later_call_goes_on_too(weights: Weights) -> None:
    weights.leave_part(md5=MD5)
    assert json.loads(weights.notes.read_text()) == {"content": MD5, "validator": '"1"'}
    assert weights.get(Answer(BODY), md5=MD5) == BODY
    assert weights.server.ranges()[0] is not None


def test_a_changed_file_is_not_spliced(weights: Weights) -> None:
    weights.leave_part()
    assert weights.get(Answer(OTHER, etag='"2"')) == OTHER
    assert weights.server.ranges()[0] is not None


def test_a_server_that_splices_anyway(weights: Weights) -> None:
    """It ignores If-Range, but its ETag gives it away."""
    weights.leave_part()
    length = weights.part.stat().st_size
    spliced = Answer(OTHER[length:], 206, {"Content-Range": f"bytes {length}-299999/300000"}, etag='"2"')
    assert weights.get(spliced, Answer(OTHER, etag='"2"')) == OTHER
    assert weights.server.ranges()[1] is None


def test_without_a_version_or_checksum_it_starts_over(weights: Weights) -> None:
    weights.refusal(Answer(BODY, etag=None, cut_after=100_000), Answer(status=404))
    assert weights.get(Answer(OTHER, etag=None)) == OTHER
    assert weights.server.ranges()[-1] is None


def test_a_weak_version_gives_way_to_the_date(weights: Weights) -> None:
    headers: dict[str, str | None] = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    weights.refusal(Answer(BODY, headers=headers, etag='W/"1"', cut_after=100_000), Answer(status=404))
    weights.get(Answer(BODY, headers=headers, etag='W/"1"', ranges=False))
    assert weights.server.asked[-1].headers["if-range"] == headers["Last-Modified"]


def test_another_server_may_go_on_if_there_is_a_checksum(weights: Weights) -> None:
    weights.leave_part(sha256=SHA256)
    mirror = weights.server.serve("/mirror", Answer(BODY, etag='"other"'))
    assert weights.get(url=mirror, sha256=SHA256) == BODY
    assert weights.server.ranges()[0] is not None


def test_but_not_without_one(weights: Weights) -> None:
    weights.leave_part()
    assert weights.get(url=weights.server.serve("/mirror", Answer(OTHER))) == OTHER
    assert weights.server.ranges() == [None]


def test_a_server_that_ignores_ranges(weights: Weights) -> None:
    assert weights.get(Answer(BODY, ranges=False, cut_after=100_000), Answer(BODY, ranges=False)) == BODY


@pytest.mark.parametrize("reported", ["bytes 5-299999/300000", "bytes x", None])
def test_a_wrong_content_range(weights: Weights, reported: str | None) -> None:
    assert weights.get(CUT, Answer(BODY[1000:], 206, {"Content-Range": reported}), Answer(BODY)) == BODY
    assert weights.server.ranges()[2] is None


def test_a_part_nobody_asked_for(weights: Weights) -> None:
    assert "another part" in weights.refusal(Answer(BODY[:9], 206, {"Content-Range": "bytes 0-8/300000"}))


@pytest.mark.parametrize(("known", "ranges"), [({}, ["bytes=300000-"]), ({"size": len(BODY)}, [])])
def test_a_whole_part_only_gets_its_name(weights: Weights, known: dict, ranges: list[str]) -> None:
    """Killed between the last byte and the renaming; 416 is the answer to asking for more."""
    weights.leave_part(**known)
    weights.part.write_bytes(BODY)
    assert weights.get(Answer(BODY), **known) == BODY
    assert weights.server.ranges() == ranges


def test_a_part_longer_than_the_file(weights: Weights) -> None:
    weights.leave_part()
    weights.part.write_bytes(BODY + b"more")
    assert weights.get(Answer(BODY)) == BODY


def test_a_part_with_wrong_bytes_is_found_by_its_checksum(weights: Weights) -> None:
    weights.leave_part(sha256=SHA256)
    weights.part.write_bytes(bytes(1000))
    assert weights.get(Answer(BODY), sha256=SHA256) == BODY
    assert weights.server.ranges() == ["bytes=1000-", None]


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"content": null, "url": 5, "validator": []}', "[" * 100_000])
def test_damaged_notes_mean_starting_over(weights: Weights, notes: str) -> None:
    weights.leave_part()
    weights.notes.write_text(notes)
    assert weights.get(Answer(BODY)) == BODY
    assert weights.server.ranges() == [None]


def test_somebody_elses_part_is_left_alone(weights: Weights) -> None:
    weights.target.parent.mkdir()
    weights.part.write_bytes(b"a browser's")
    assert str(weights.part) in weights.refusal(Answer(BODY))
    assert weights.part.read_bytes() == b"a browser's"


def test_a_stall_is_ended_and_mended(weights: Weights) -> None:
    start = time.perf_counter()
    assert weights.get(Answer(BODY, stall_after=100_000), Answer(BODY), timeout=0.2) == BODY
    assert time.perf_counter() - start < 3
    assert weights.server.ranges()[1] is not None


def test_a_server_that_never_speaks(weights: Weights) -> None:
    silent = Answer(BODY, stall_after=0, headers={"Content-Length": "300000"})
    assert "nothing came for 0.1 s (4 tries)" in weights.refusal(silent, timeout=0.1)


def test_a_length_that_is_too_large(weights: Weights) -> None:
    """Each try gets nothing new."""
    assert "(4 tries)" in weights.refusal(Answer(BODY, headers={"Content-Length": "400000"}, ranges=False))
    assert len(weights.server.asked) == 4


def test_a_length_that_is_too_small(weights: Weights) -> None:
    short = Answer(BODY, headers={"Content-Length": "1000"})
    assert "1,000 bytes instead of 300,000" in weights.refusal(short, size=300_000)
    assert "sha256" in weights.refusal(short, sha256=SHA256)


def test_more_than_was_announced(weights: Weights) -> None:
    message = weights.refusal(Answer(BODY + b"more", chunked=True), size=300_000)
    assert "sends more than the 300,000 bytes" in message
    assert not list(weights.target.parent.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_the_limit_where_no_size_is_known(weights: Weights, chunked: bool) -> None:
    assert "more than 200,000" in weights.refusal(Answer(BODY, chunked=chunked), most=200_000)
    assert not weights.has_part()
    assert weights.get(Answer(BODY, chunked=chunked), most=len(BODY)) == BODY


def test_a_link_in_the_place_of_a_part_is_not_followed(weights: Weights, tmp_path: Path) -> None:
    weights.leave_part()
    precious = weights.part.rename(tmp_path / "precious")
    weights.part.symlink_to(precious)
    before = precious.read_bytes()
    assert "in the way" in weights.refusal(Answer(BODY))
    assert precious.read_bytes() == before


def test_headway_makes_up_for_breaks(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [Answer(BODY, cut_after=70_000)] * 4
    assert "(4 tries)" in weights.refusal(*cuts, Answer(BODY), name="v")
    weights.server.asked.clear()
    monkeypatch.setattr(fetching, "HEADWAY", 1000)
    assert weights.get(*cuts, Answer(BODY)) == BODY
    assert len(weights.server.asked) == 5


# --- wrong files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"md5": MD5}])
def test_a_wrong_checksum_is_tried_twice_and_refused(weights: Weights, known: dict) -> None:
    assert next(iter(known.values())) in weights.refusal(Answer(OTHER), **known)
    assert weights.server.ranges() == [None, None]
    assert not list(weights.target.parent.iterdir())


def test_a_wrong_checksum_once_is_forgiven(weights: Weights) -> None:
    assert weights.get(Answer(OTHER), Answer(BODY), sha256=SHA256) == BODY


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"size": 300_000}, {"size": len(PAGE.body), "md5": MD5}])
def test_a_login_page_is_called_one(weights: Weights, known: dict) -> None:
    assert "web page" in weights.refusal(PAGE, **known)
    assert not list(weights.target.parent.iterdir())


def test_a_login_page_costs_nothing_that_came(weights: Weights) -> None:
    weights.leave_part(sha256=SHA256)
    before = weights.part.read_bytes()
    assert "web page" in weights.refusal(PAGE, sha256=SHA256)
    assert weights.part.read_bytes() == before


def test_pages_that_are_wanted(weights: Weights) -> None:
    assert weights.get(PAGE, name="page.html") == PAGE.body


@pytest.mark.parametrize("chunked", [False, True])
def test_an_empty_file(weights: Weights, chunked: bool) -> None:
    assert "empty" in weights.refusal(Answer(b"", chunked=chunked))


def test_bytes_stay_as_they_are(weights: Weights) -> None:
    """Some servers call a .gz "encoded"; unpacking it on the way would be wrong."""
    packed = Answer(gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
    assert weights.get(packed, name="w.tar.gz") == packed.body
    assert "compresses" in weights.refusal(packed)


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 300, 401, 403, 404, 410, 416, 418, 451, 599])
def test_a_final_answer_is_final(weights: Weights, status: int) -> None:
    assert f"the server answers {status}" in weights.refusal(Answer(status=status))
    assert len(weights.server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_answer_is_tried_again(weights: Weights, status: int) -> None:
    assert weights.get(Answer(status=status), Answer(status=status), Answer(BODY)) == BODY
    assert f"{status}" in weights.refusal(Answer(status=status), name="v")


def test_a_server_may_ask_for_patience(weights: Weights) -> None:
    start = time.perf_counter()
    weights.get(Answer(status=429, headers={"Retry-After": "1"}), Answer(BODY))
    assert time.perf_counter() - start >= 1
    assert "come back in 3600 s" in weights.refusal(Answer(status=503, headers={"Retry-After": "3600"}), name="v")
    weights.get(Answer(status=503, headers={"Retry-After": "soon"}), Answer(BODY), name="u")


def test_nobody_there(weights: Weights) -> None:
    url = f"http://127.0.0.1:{closed_port()}/w.bin"
    start = time.perf_counter()
    with pytest.raises(DownloadError) as caught:
        fetch(Remote(url), weights.target, what="the weights", by_hand="its md5 is 1234")
    assert time.perf_counter() - start < 2
    for words in ("the weights", "can't be reached", url, str(weights.target), "; its md5 is 1234"):
        assert words in str(caught.value)


def test_a_server_that_goes_away_is_waited_for(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if not waits:
            weights.server.close()
        waits.append(seconds)

    monkeypatch.setattr(fetching.time, "sleep", sleep)
    assert "can't be reached (is there a network?) (4 tries); what has come is kept" in weights.refusal(CUT)
    assert waits == [0.01, 0.02, 0.04]


@pytest.mark.parametrize("url", ["ftp://example.org/w", "file:///w", "nonsense", "http://[::1/w", "http://a:b:c/w"])
def test_addresses_that_are_invalid(weights: Weights, url: str) -> None:
    assert "not a valid http or https address" in weights.refusal(url=url)


def test_addresses_without_a_server(weights: Weights) -> None:
    assert "can't be reached" in weights.refusal(url="http://nowhere.invalid/w")
    assert "not a valid http or https address" in weights.refusal(url="http:///w")
    assert "TLS" in weights.refusal(url=weights.url.replace("http", "https"))


def test_secrets_are_not_shown(weights: Weights, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mobiledet")
    secret = weights.url.replace("http://", "http://user:hunter2@") + "?token=hunter2#hunter2"
    message = weights.refusal(CUT, Answer(status=500), Answer(status=403), url=secret)
    assert f"download {weights.url} and" in message
    dead = f"http://user:hunter2@127.0.0.1:{closed_port()}/w?token=hunter2"
    shown = message + weights.notes.read_text() + weights.refusal(url=dead) + caplog.text
    assert "hunter2" not in shown
    assert caplog.text


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_nothing_is_tried(weights: Weights, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MOBILEDET_OFFLINE", value)
    message = weights.refusal(Answer(BODY))
    for words in ("MOBILEDET_OFFLINE is set", weights.url, str(weights.target)):
        assert words in message
    assert weights.server.asked == []
    assert not weights.target.parent.exists()
    monkeypatch.setenv("MOBILEDET_OFFLINE", "0")
    assert weights.get() == BODY


def test_without_requests(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(MissingDependencyError, match="pip install requests"):
        weights.get()


# --- this machine -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_seen_before_it_starts(weights: Weights, disk) -> None:
    disk(250_000)
    assert "lacks 50,000 of them" in weights.refusal(Answer(BODY), size=300_000)
    assert weights.server.asked == []
    assert "lacks 50,000 of them" in weights.refusal()  # the size is the server's word
    disk(300_000)
    weights.leave_part()
    disk(240_000)
    weights.get(Answer(BODY))  # what has come needs no space any more


def test_a_disk_that_fills_up(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *rest, **options):
        return real(Path("/dev/full") if mode == "ab" else path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    message = weights.refusal(Answer(BODY))
    assert "No space left" in message
    assert str(weights.target.parent) in message


@pytest.mark.parametrize("place", ["file/w", "/proc/nothing/w", "n" * 252])
def test_folders_that_cant_be(weights: Weights, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="can't be written to"):
        fetch(Remote(weights.server.serve("/w", Answer(BODY))), tmp_path / place, what="the weights")


def test_a_file_made_meanwhile_is_kept(weights: Weights, background, until) -> None:
    error = background(lambda: weights.get(Answer(BODY, stall_after=100_000)))
    until(weights.has_part)
    weights.target.write_bytes(b"mine")
    weights.server.release()
    assert str(weights.target) in str(error())
    assert weights.target.read_bytes() == b"mine"


# --- two at a time, and stopping --------------------------------------------------------------------------------


def test_threads_fetch_it_once(weights: Weights, background, until) -> None:
    weights.server.serve("/w", Answer(BODY, stall_after=100_000))
    errors = [background(weights.get) for _ in range(3)]
    until(lambda: weights.server.asked)
    weights.server.release()
    assert [error() for error in errors] == [None] * 3
    assert len(weights.server.asked) == 1
    assert list(weights.target.parent.iterdir()) == [weights.target]


def test_processes_fetch_it_once(weights: Weights, background, until, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mobiledet")
    weights.server.serve("/w", Answer(BODY, stall_after=100_000))
    with weights.program() as first:
        until(lambda: weights.server.asked)
        error = background(weights.get)
        until(lambda: "another process" in caplog.text)
        weights.server.release()
        assert error() is None
        assert first.wait(10) == 0
    assert len(weights.server.asked) == 1


def test_the_second_takes_over_from_a_killed_first(weights: Weights, until) -> None:
    weights.server.serve("/w", Answer(BODY, stall_after=100_000), Answer(BODY))
    with weights.program() as first:
        until(weights.has_part)
        first.kill()
    assert weights.get() == BODY
    assert weights.server.ranges()[1] is not None


def test_ctrl_c_keeps_what_has_come(weights: Weights, until) -> None:
    weights.server.serve("/w", Answer(BODY, stall_after=100_000), Answer(BODY))
    with weights.program() as stopped:
        until(weights.has_part)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=10)
    assert stopped.returncode == 130
    assert "Traceback" not in err
    assert "what has come is kept" in err
    assert 0 < weights.part.stat().st_size <= 100_000
    with weights.program() as again:
        assert again.communicate(timeout=10)[0] == f"{weights.target}\n"
    assert weights.server.ranges()[1] is not None
    assert list(weights.target.parent.iterdir()) == [weights.target]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_on_a_terminal_only(weights: Weights, monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    fetch(Remote(weights.server.serve("/w", CUT, Answer(BODY))), weights.target, what="the weights")
    assert ("the weights: " in stream.getvalue()) == is_terminal
