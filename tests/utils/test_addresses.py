"""Addresses, and above all: nothing of a password is shown, or looked up as a host."""

import re
import socket

import pytest
from loopback import Answer, Loopback
from programs import mobiledet_in_process

from mobiledet.apps.live.sources.opening import open_source
from mobiledet.apps.predict import find_inputs
from mobiledet.data.videos import read_video
from mobiledet.download.fetch import fetch_bytes
from mobiledet.errors import DownloadError, MobiledetError, SourceError
from mobiledet.utils.addresses import file_path, parse_address, without_user

STARTS = ("rtsp://me:sec", "rtsp://me:12", "http://sec:1/2")
UNCLEAR = [
    *(f"{start}{character}ret@cam/1" for start in STARTS for character in "/?#"),
    *(
        "rtsp://me:se@c/ret@cam/1",
        "rtsp://sec#ret@cam",
        "rtsp://:sec?a=ret@cam",
        "rtsp://me:12/a?b=ret@cam",
        "http://me:80/?b=ret@cam",
        "rstp://me:s/e?c#ret@cam",
    ),
]

WRONG = ["rtps://me:secret@cam/1", "http://me:secret@cam:port/1", "rtsp://me:secret@/1?secret", "rtsp:/me:secret@cam/1"]


@pytest.fixture
def nobody_asks(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"looked up: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("mobiledet.data.videos._capture", refuse)


@pytest.mark.parametrize("address", [*UNCLEAR, *WRONG])
def test_nothing_of_a_password_is_shown_or_looked_up(nobody_asks, address):
    for reader in (parse_address, open_source, lambda word: find_inputs([word]), lambda word: next(read_video(word))):
        with pytest.raises(SourceError) as caught:
            reader(address)
        assert not re.search(r"me:|sec|ret|12|cam", str(caught.value))
        assert address not in UNCLEAR or all(code in str(caught.value) for code in ("%2F", "%3F", "%23", "%40"))
    if address in UNCLEAR:
        assert without_user(address) == f"{address[:4]}://..."
        with pytest.raises(DownloadError, match="%23"):
            fetch_bytes(address)


@pytest.mark.parametrize("words", ["webcam", "check", "train --resume", "eval", "export -o a.onnx"])
@pytest.mark.parametrize("address", ["https://me:secret@host/a.onnx", "https://me:12#secret@host/a"])
def test_commands_keep_the_password_of_a_misplaced_address(words, address):
    done = mobiledet_in_process(*words.split(), address)
    assert done.status in (1, 2)
    assert not re.search("secret|me:|:12", done.stderr)
    assert "https://host/a.onnx" in done.stderr or "https://..." in done.stderr


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:s%2Fec%3Fr%23e%40t@cam/1", "rtsp://cam/1"),
        ("rtsp://me:s@e[c]r et@cam:554/1", "rtsp://cam:554/1"),
        ("rtsp://me:\u2100@[::1]:554/a@b", "rtsp://[::1]:554/..."),
        ("http://me:secret@10.0.0.7:80/a@b", "http://10.0.0.7:80/..."),
        ("http://cam/@me/clip.mp4", "http://cam/.../clip.mp4"),
        ("udp://@:1234", "udp://:1234"),
    ],
)
def test_passwords_that_are_clear(address, shown):
    parsed = parse_address(address)
    assert (parsed.url, parsed.shown) == (address, shown)
    assert f"({shown})" in parsed.explain(address)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("[tcp @ 0x1] Connection to tcp://cam:554?timeout=0 failed: Connection refused", "nothing answers at cam:554"),
        ("[OPENCV:FFMPEG:16] Failed to resolve hostname cam: Name or service not known", "there is no host 'cam'"),
        ("method DESCRIBE failed: 401 Unauthorized", "isn't accepted"),
        ("method DESCRIBE failed: 404 Stream Not Found", "no such stream"),
        ("Connection timed out", "doesn't answer"),
        ("No route to host", "can't be reached"),
        ("odd: rtsp://me:secret@cam:554/1?token=abc secret abc", "(odd: rtsp://cam:554/1?... ..."),
        ("at http://other:secret2@cam/", "(at http://cam/)"),
        ("", "no video that OpenCV can read; correct"),
    ],
)
def test_causes_are_explained_without_secrets(message, cause):
    explained = parse_address("rtsp://me:secret@cam:554/1?token=abc").explain(message)
    assert cause in explained
    assert not re.search("secret|token", explained)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://cam/user=admin_password=secret_channel=1.sdp", "rtsp://cam/..."),
        ("rtsp://cam:554/live/main;pwd=secret/1", "rtsp://cam:554/live/.../1"),
        ("rtsp://cam/me:secret@1/2", "rtsp://cam/.../2"),
    ],
)
def test_secrets_in_the_path_are_not_shown(address, shown):
    parsed = parse_address(address)
    assert (parsed.url, parsed.shown) == (address, shown)
    segment = next(part for part in address.split("/") if "secret" in part).split("?")[-1]
    for message in (f"can't open {address}", f"odd: {segment} in it"):
        assert "secret" not in parsed.explain(message)


def test_user_and_password_are_for_their_server_only():
    with Loopback() as far, Loopback() as server:
        target = far.serve("/b.png", Answer(b"image"))
        server.serve("/a.png", Answer(status=302, headers={"Location": target}))
        assert fetch_bytes(f"{server.url}/a.png".replace("//", "//me:p%40ss@")) == b"image"
    assert server.asked[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert "authorization" not in far.asked[0].headers


def test_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert file_path("~/a b.mp4") == tmp_path / "a b.mp4"
    assert str(file_path("FILE:///a%20b#1.mp4")) == "/a b#1.mp4"
    with pytest.raises(MobiledetError, match="another machine") as caught:
        file_path("file://me:secret@nas/clip.mp4")
    assert "secret" not in str(caught.value)
