"""The server of the browser view: its stream, its numbers, its settings, and how it starts and ends."""

import logging
import re
import select
import socket
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_parts import wait_until
from view_scene import (
    HEIGHT,
    NAMES,
    PATIENCE,
    WIDTH,
    Feeder,
    Scene,
    Viewer,
    ask,
    change,
    deaf_viewer,
    make_numbers,
)

import mobiledet.apps.live.web.app as web_app
import mobiledet.apps.live.web.streams as web_streams
from mobiledet.apps.live.view import Painter, View
from mobiledet.apps.live.web.server import ViewServer, is_loopback
from mobiledet.errors import MissingDependencyError, MobiledetError, install_extra

PAGE = Path(web_app.__file__).parent / "page"


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


@pytest.fixture
def server(scene):
    return scene.serve()


def viewers(server):
    return ask(server, "/numbers").json["viewers"]


# ---- the page


def test_the_page_and_all_its_files_are_served(server):
    page = ask(server, "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    linked = set(re.findall(r'(?:src|href)="static/([^"]+)"', page.text))
    assert linked | {"index.html", "openapi.json"} == {file.name for file in PAGE.iterdir()}
    for name, kind in {"style.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}.items():
        answer = ask(server, f"/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.body == (PAGE / name).read_bytes()


def test_the_page_needs_nothing_from_elsewhere():
    for file in PAGE.iterdir():
        addresses = re.findall(r"https?://[^\s\"']+", file.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    # The policy forbids these; they would only fail in the browser.
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|style=|\son\w+=", page)


def test_every_answer_carries_the_protecting_headers(server):
    for path in ("/", "/static/app.js", "/numbers", "/nothing", "/snapshot.jpg"):
        headers = ask(server, path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
    assert ask(server, "/", headers={"Host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/static/..%2fserver.py", "/static/%2e%2e/server.py", "/static/", "/static/x", "/x"])
def test_nothing_else_is_served(scene, path):
    assert ask(scene.serve(), path).status == 404


# ---- the stream


def test_a_viewer_gets_the_newest_frame_with_its_boxes(scene, server):
    scene.show(3)
    scene.show(4)
    with Viewer(server) as viewer:
        kind = viewer.response.getheader("Content-Type")
        index, image = viewer.next()
        assert kind == "multipart/x-mixed-replace; boundary=picture"
        assert (index, image.shape) == (4, (HEIGHT, WIDTH, 3))
        plain = np.full_like(image, 8 * 4)
        assert np.abs(image.astype(int) - plain).max() > 60  # the boxes
        for number in range(5, 9):
            scene.show(number)
            while index != number:
                index, _ = viewer.next()


def test_a_stream_waits_for_the_first_frame(scene, server):
    with Viewer(server) as viewer:
        assert viewer.status == 200
        wait_until(lambda: viewers(server) == 1)
        scene.show(0)
        assert viewer.next()[0] == 0


def test_colors_arrive_as_they_were(scene, server):
    scene.show(0, items=())
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 200
    result = scene.results.get()[1]
    result.frame.image[:] = red
    with Viewer(server) as viewer:
        _, image = viewer.next()
    blue_green_red = image[20, 100]
    assert blue_green_red[2] > 180
    assert max(blue_green_red[:2]) < 20


def test_a_frame_is_made_once_for_all_and_only_while_somebody_watches(scene, monkeypatch):
    encoded = []
    encode = web_streams.jpeg_bytes
    monkeypatch.setattr(web_streams, "jpeg_bytes", lambda *given: encoded.append(1) or encode(*given))
    server = scene.serve()
    for number in range(5):
        scene.show(number)
    time.sleep(0.3)
    assert (len(scene.drawn), len(encoded)) == (0, 0)
    watching = [Viewer(server) for _ in range(5)]
    for viewer in watching:
        assert viewer.next()[0] == 4
    scene.show(5)
    for viewer in watching:
        while viewer.next()[0] != 5:
            pass
    assert (len(scene.drawn), len(encoded)) == (2, 2)
    for viewer in watching:
        viewer.close()
    wait_until(lambda: viewers(server) == 0)
    time.sleep(0.5)  # a wait that had begun ends
    scene.show(6)
    time.sleep(0.3)
    assert len(encoded) == 2


def test_the_last_frame_is_repeated_so_that_the_stream_stays_alive(scene, server):
    scene.show(8)
    with Viewer(server) as viewer:
        assert [viewer.next()[0] for _ in range(3)] == [8, 8, 8]
    assert len(scene.drawn) == 1


def test_changed_settings_show_at_once_even_when_no_frame_comes(scene, server):
    scene.show(0)
    with Viewer(server) as viewer:
        _, before = viewer.next()
        scene.settings.threshold = 0.95  # nothing scores that much
        deadline = time.monotonic() + 20
        while np.abs((after := viewer.next()[1]).astype(int)).max() > 20:
            assert time.monotonic() < deadline
    assert np.abs(before.astype(int) - after).max() > 60


def test_viewers_that_never_read_delay_no_one_and_are_let_go(scene, monkeypatch):
    monkeypatch.setattr(web_app, "PATIENCE", 1.5)
    server = scene.serve()
    deaf = [deaf_viewer(server) for _ in range(3)]
    try:
        with Feeder(scene, size=(240, 400), noise=True, items=()) as feeder, Viewer(server) as viewer:
            seen = {viewer.next()[0] for _ in range(30)}
            assert len(seen) == 30
            # What it gets is new, however much the others left lying.
            assert feeder.count - viewer.next()[0] < 200
            wait_until(lambda: viewer.next() and viewers(server) == 1)
    finally:
        for sock in deaf:
            sock.close()


def test_a_slow_viewer_misses_frames_instead_of_lagging(scene, server):
    with Feeder(scene, size=(240, 400), noise=True, items=()) as feeder, Viewer(server) as viewer:
        for _ in range(4):
            viewer.next()
            time.sleep(0.5)
        begun = feeder.count
        # What lay in the system's buffers comes first, and that isn't much.
        late = next(count for count in range(100) if viewer.next()[0] >= begun)
        assert late < 20


def test_who_comes_while_a_newer_frame_is_drawn_waits_for_that(scene):
    begun, go = threading.Event(), threading.Event()

    class Slow(Painter):
        def paint(self, result):
            if result.frame.index == 1:
                begun.set()
                go.wait(20)
            return super().paint(result)

    scene.painter = Slow(scene.settings)
    server = scene.serve()
    scene.show(0)
    with Viewer(server) as first:
        first.next()
        scene.show(1)
        assert begun.wait(20)
        with Viewer(server) as second:
            threading.Timer(0.3, go.set).start()
            assert second.next()[0] == 1


def test_gone_viewers_are_forgotten_even_before_the_first_frame(server):
    viewer = Viewer(server, "?viewer=me")
    wait_until(lambda: ask(server, "/numbers?viewer=me").json["watching"])
    assert not ask(server, "/numbers?viewer=you").json["watching"]
    viewer.close()
    wait_until(lambda: viewers(server) == 0)
    assert not ask(server, "/numbers?viewer=me").json["watching"]


def test_viewers_beyond_the_limit_are_refused(scene, monkeypatch):
    monkeypatch.setattr(web_app, "MOST_VIEWERS", 2)
    server = scene.serve()
    scene.show(0)
    with Viewer(server) as first, Viewer(server):
        with Viewer(server) as third:
            assert third.status == 503
            assert "2 viewers" in third.response.read().decode()
        first.close()
        wait_until(lambda: viewers(server) == 1)
        with Viewer(server) as fourth:
            assert fourth.next()[0] == 0


def test_a_frame_that_cannot_be_drawn_is_left_out(scene, caplog):
    class Faulty(Painter):
        def paint(self, result):
            if result.frame.index in (1, 2):
                raise cv2.error("no such frame")
            return super().paint(result)

    scene.painter = Faulty(scene.settings)
    server = scene.serve()
    with Viewer(server) as viewer, caplog.at_level(logging.WARNING):
        scene.show(0)
        scene.show(1)
        wait_until(lambda: caplog.records)
        scene.show(2)
        time.sleep(0.2)
        scene.show(3)
        index = 0
        while index != 3:
            index = viewer.next()[0]
            assert index in (0, 3)
    assert len(caplog.records) == 1
    assert "frame 1 " in caplog.text


def test_after_the_end_the_last_frame_stays_and_nothing_spins(scene, server):
    scene.show(0)
    with Viewer(server) as viewer:
        viewer.next()
        scene.results.close()
        looks, get = [], scene.results.get
        scene.results.get = lambda *given: looks.append(1) or get(*given)
        assert [viewer.next()[0] for _ in range(2)] == [0, 0]
    assert len(looks) < 60
    assert ask(server, "/numbers").json["ended"] is True


# ---- numbers, detections, snapshot


def test_numbers_are_plain_json(scene):
    scene.numbers = make_numbers(fps=float("nan"), age_p95_ms=float("inf"), throttled=("under-voltage",))
    server = scene.serve()
    answer = ask(server, "/numbers").json
    assert answer["picture"] is None
    scene.show(5)
    time.sleep(0.3)
    answer = ask(server, "/numbers").json
    assert (answer["numbers"]["fps"], answer["numbers"]["age_p95_ms"]) == (None, None)
    assert answer["numbers"]["throttled"] == ["under-voltage"]
    assert answer["numbers"]["source"]["size"] == [HEIGHT, WIDTH]
    assert answer["picture"]["index"] == 5
    assert answer["picture"]["size"] == [HEIGHT, WIDTH]
    assert answer["picture"]["counts"] == {"1": 1, "2": 1}  # the second person scores 0.1
    assert answer["settings"] == {"revision": 0, "threshold": 0.5, "classes": None, "labels": True, "paused": False}
    about = ask(server, "/about.json").json
    assert (about["run"], about["names"], about["lowest"]) == (answer["run"], list(NAMES), 0.05)
    assert about["title"] == "model <i> on clip.mp4"
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in about["colors"])


def test_slow_numbers_do_not_hold_up_the_stream(scene):
    hold = threading.Event()
    scene.ask_numbers = lambda: hold.wait(20) and make_numbers()
    server = scene.serve()
    asking = threading.Thread(target=ask, args=(server, "/numbers"))
    asking.start()
    try:
        with Viewer(server) as viewer:
            for number in range(5):
                scene.show(number)
                while viewer.next()[0] != number:
                    pass
    finally:
        hold.set()
        asking.join()


def test_many_who_ask_for_numbers_share_an_answer(scene):
    asked = []
    scene.ask_numbers = lambda: asked.append(time.monotonic()) or make_numbers()
    server = scene.serve()
    for _ in range(30):
        ask(server, "/numbers")
    assert min(np.diff(asked), default=1) > 0.09


def test_detections_are_those_shown(scene, server):
    assert ask(server, "/detections.json").status == 503
    scene.show(6)
    scene.settings.classes = [2]
    answer = ask(server, "/detections.json").json
    assert (answer["index"], answer["name"], answer["size"]) == (6, "6.jpg", [HEIGHT, WIDTH])
    car = {"name": "car", "category_id": None, "label": 2, "score": 0.5, "box": [4.0, 2.0, 24.0, 12.0]}
    assert answer["detections"] == [car]
    assert answer["seconds_ago"] > 0


def test_a_snapshot_is_whole_and_has_a_name(scene, server):
    assert ask(server, "/snapshot.jpg").status == 503
    scene.show(0)
    answer = ask(server, "/snapshot.jpg")
    image = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert answer.headers["content-type"] == "image/jpeg"
    name = r'attachment; filename="mobiledet_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.jpg"'
    assert re.fullmatch(name, answer.headers["content-disposition"])


# ---- settings


def test_settings_are_changed(scene, server):
    answer = change(server, {"threshold": 0.6, "classes": [2, 1, 2], "labels": False, "paused": True})
    assert answer.status == 200
    assert answer.json == {"revision": 4, "threshold": 0.6, "classes": [1, 2], "labels": False, "paused": True}
    settings = scene.settings
    assert (settings.threshold, settings.classes, settings.labels, settings.paused) == (0.6, {1, 2}, False, True)
    assert change(server, {"classes": None, "threshold": 1}).json["classes"] is None
    assert change(server, {"classes": []}).json["classes"] == []
    assert change(server, {}).status == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"{", "JSON"),
        (b"[" * 50_000, "JSON"),
        (b'{"threshold": NaN}', "NaN"),
        (b'{"threshold": 1e999}', "threshold"),
        (b'{"threshold": 1' + b"0" * 400 + b"}", "threshold"),
        (b'{"threshold": 1' + b"0" * 9000 + b"}", "400: "),
        (b"[1]", "object"),
        (b"null", "object"),
        ({"threshold": True}, "true"),
        ({"threshold": "0.5"}, '"0.5"'),
        ({"threshold": None}, "null"),
        ({"threshold": 0.01}, "0.01"),
        ({"threshold": -1}, "-1"),
        ({"classes": "all"}, '"all"'),
        ({"classes": [0]}, "labels, whole numbers from 1 to 3, not [0]"),
        ({"classes": [4]}, "4"),
        ({"classes": [1.0]}, "1.0"),
        ({"classes": [True]}, "true"),
        ({"classes": [[1]]}, "[1]"),
        ({"classes": {"1": 1}}, "list"),
        ({"labels": 1}, "labels"),
        ({"paused": "yes"}, "paused"),
        ({"names": ["x"]}, "threshold, classes, labels, paused"),
        ({"revision": 1}, "'revision'"),
    ],
)
def test_settings_that_are_not_valid_change_nothing(scene, body, named):
    answer = change(scene.serve(), body)
    assert answer.status == 400
    assert named in answer.text
    assert answer.text.count("\n") == 1
    assert len(answer.text) < 200
    assert scene.settings.revision == 0


def test_all_of_a_change_or_nothing(scene):
    assert change(scene.serve(), {"threshold": 0.7, "labels": False, "classes": [9]}).status == 400
    assert (scene.settings.threshold, scene.settings.labels, scene.settings.revision) == (0.5, True, 0)


def test_changes_from_other_pages_and_other_kinds_are_refused(scene, server):
    here = f"127.0.0.1:{server.port}"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Origin": f"http://{here}.evil.example"},
        {"Origin": f"file://{here}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert change(server, {"paused": True}, **headers).status == 403
    assert change(server, {"paused": True}, Content_Type="text/plain").status == 415
    assert change(server, b" " * 70_000).status == 413
    assert ask(server, "/settings").status == 405
    assert scene.settings.revision == 0
    assert change(server, {"paused": True}, Origin=f"http://{here}", Sec_Fetch_Site="same-origin").status == 200


# ---- who is let in


def test_other_pages_may_link_to_the_page_but_not_use_its_parts(scene, server):
    scene.show(0)
    far = {"Sec-Fetch-Site": "cross-site"}
    assert ask(server, "/", headers=far).status == 200
    for path in ("/snapshot.jpg", "/stream.mjpg", "/numbers", "/detections.json", "/static/app.js"):
        assert ask(server, path, headers=far).status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.0.7", "", "["]
)
def test_foreign_names_are_refused_on_loopback(scene, host):
    answer = ask(scene.serve(), "/numbers", headers={"Host": host})
    assert answer.status == 403
    assert "http://localhost" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:9000", "[::1]:8080", "[::1]"])
def test_own_names_are_welcome_through_any_port(scene, host):
    assert ask(scene.serve(), "/numbers", headers={"Host": host}).status == 200


def test_a_token_is_asked_of_every_request(scene):
    server = scene.serve(host="0.0.0.0")
    secret = server.token
    scene.show(0)
    for path in ("/", "/static/app.js", "/stream.mjpg", "/numbers", "/about.json", "/snapshot.jpg", "/nothing"):
        for wrong in ("", "?token=", "?token=wrong", f"?token={secret}x", "?token=%C3%A4%FF"):
            answer = ask(server, path + wrong)
            assert answer.status == 403
            assert "token" in answer.text
            assert "set-cookie" not in answer.headers
    assert change(server, {"paused": True}).status == 403
    first = ask(server, f"/?token={secret}", headers={"Host": "pi.local"})
    assert first.status == 200
    cookie = first.headers["set-cookie"]
    assert re.fullmatch(rf"mobiledet_{server.port}={secret}; HttpOnly; Path=/; SameSite=Strict", cookie)
    carried = {"Cookie": cookie.partition(";")[0], "Host": "pi.local"}
    assert ask(server, "/numbers", headers=carried).status == 200
    with Viewer(server, headers=carried) as viewer:
        assert viewer.next()[0] == 0
    assert ask(server, "/numbers", headers={"Cookie": f"mobiledet_{server.port}=wrong"}).status == 403
    assert ask(server, f"/numbers?token={secret}").status == 200
    assert secret not in first.text


def test_a_token_of_ones_own(scene):
    token = "my_own-token_0123"
    for host in ("0.0.0.0", "127.0.0.1"):
        server = scene.serve(host=host, token=token)
        assert server.url.endswith(f"/?token={token}")
        assert (ask(server, "/numbers").status, ask(server, f"/numbers?token={token}").status) == (403, 200)
    for unfit in ("short", "x" * 129, "white space 0123456", "slash/0123456789", "ümlaut0123456789"):
        with pytest.raises(MobiledetError, match="16 to 128 letters") as caught:
            scene.serve(token=unfit)
        assert unfit not in str(caught.value)


def test_the_address_to_open(scene, server):
    assert server.url == f"http://127.0.0.1:{server.port}/"
    open_server = scene.serve(host="0.0.0.0")
    assert re.fullmatch(rf"http://[^/\[\]]+:{open_server.port}/\?token={open_server.token}", open_server.url)
    assert "0.0.0.0" not in open_server.url


def test_tokens_are_long_and_never_the_same(scene):
    view = View(scene.results, scene.painter, make_numbers, "")
    tokens = {ViewServer([view], host="0.0.0.0").token for _ in range(50)}
    assert len(tokens) == 50
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_which_hosts_are_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.2.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "pi.local", "", "127.0.0.1.example")))


# ---- start and end


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("", "127.0.0.1"),
        ("192.0.2.55", "'192.0.2.55'"),
        ("no such host", "'no such host'"),
        ("a" * 70, "aaaa"),
    ],
)
def test_where_it_cannot_serve_it_says_why(scene, host, complaint):
    with pytest.raises(MobiledetError) as caught:
        scene.serve(host=host)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_taken_port_is_named_with_a_free_one(scene):
    first = scene.serve()
    with pytest.raises(MobiledetError, match=str(first.port)) as caught:
        scene.serve(port=first.port)
    other = int(re.search(r"such as (\d+)", str(caught.value))[1])
    assert scene.serve(port=other).port == other


def test_without_aiohttp_the_remedy_is_named(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependencyError, match=re.escape(install_extra("serve"))):
        scene.serve()


def test_it_closes_within_a_second_whoever_is_watching(scene):
    before = set(threading.enumerate())
    server = scene.serve()
    waiting = Viewer(server)  # since before the first frame
    with Feeder(scene, size=(240, 400), noise=True, items=()):
        reading, deaf = Viewer(server), deaf_viewer(server)
        reading.next()
        wait_until(lambda: viewers(server) == 3)
        time.sleep(0.5)
        begun = time.monotonic()
        server.close()
        took = time.monotonic() - begun
    assert took < 1.5  # with room for a busy machine
    wait_until(lambda: set(threading.enumerate()) <= before)
    for viewer in (waiting, reading, deaf):
        viewer.close()
    server.close()
    with pytest.raises(ConnectionError):
        ask(server, "/")
    assert scene.serve(port=server.port).port == server.port


def test_closing_before_the_start_is_harmless(scene):
    ViewServer([View(scene.results, scene.painter, make_numbers, "")]).close()


def test_a_missing_page_is_reported_and_leaves_the_port_free(scene, monkeypatch):
    monkeypatch.setattr(web_app, "PAGE", Path("/nowhere"))
    with pytest.raises(MobiledetError, match="nowhere"):
        scene.serve()


def test_noise_at_the_port_is_not_logged(scene, caplog, server):
    with caplog.at_level(logging.WARNING):
        for noise in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET /" + b"x" * 20_000,
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
                sock.sendall(noise)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        assert ask(server, "/numbers").status == 200
    assert caplog.records == []


# ---- who sends too much, too little, or nothing


def is_open(sock):
    return not select.select([sock], [], [], 0)[0]


def test_silent_connections_use_up_no_files(scene, monkeypatch):
    monkeypatch.setattr(web_app, "MOST_CONNECTIONS", 10)
    server = scene.serve()
    opened = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(80)]
    try:
        wait_until(lambda: sum(map(is_open, opened)) <= 10 + web_app._AT_ONCE)
        assert sum(map(is_open, opened)) >= 9
        assert answers(server)
    finally:
        for sock in opened:
            sock.close()


def answers(server):
    try:
        return ask(server, "/numbers").status == 200
    except OSError:
        return False


def half_a_request(server, body=b'{"thresh'):
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    head = "POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock


def test_a_request_that_does_not_end_is_given_up(scene, monkeypatch):
    monkeypatch.setattr(web_app, "BODY_TIME", 0.2)
    with half_a_request(scene.serve()) as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 408")
    assert scene.settings.revision == 0


def test_whoever_hangs_up_in_the_middle_is_no_fault_of_ours(scene, caplog, server):
    for body in (b"", b'{"thresh'):
        half_a_request(server, body).close()
    damaged = ask(
        server,
        "/settings",
        method="POST",
        body=b"no gzip",
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert damaged.status == 400
    time.sleep(0.2)
    assert ask(server, "/numbers").status == 200
    assert not caplog.records
