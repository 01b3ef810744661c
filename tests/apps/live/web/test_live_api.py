"""What other programs ask of the view server: lines and zones, history, several cameras, frames in other pages."""

import json
import socket
import threading
from dataclasses import replace

import pytest
from view_scene import HEIGHT, NAMES, PATIENCE, WIDTH, Scene, Viewer, ask, change, make_result

import mobiledet.apps.live.web.app as web_app
from mobiledet.apps.live.frames import Newest
from mobiledet.apps.live.grid import grid_view
from mobiledet.apps.live.measure.history import History
from mobiledet.apps.live.scene import shapes
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.apps.live.web.guard import Guard
from mobiledet.apps.live.web.server import ViewServer
from mobiledet.errors import MobiledetError

GATE = {"lines": {"gate": [[0.1, 0.5], [0.9, 0.5]]}, "zones": {"porch": [[0, 0], [0.5, 0], [0.5, 1]]}}


@pytest.fixture
def scene():
    made = Scene(counting={"tracked": True})
    yield made
    made.close()


def other_view(scene, title="another"):
    settings = ViewSettings(names=NAMES)
    return View(Newest(), Painter(settings), lambda: scene.numbers, title)


# ---- lines and zones


def test_lines_and_zones_are_read_and_changed(scene, tmp_path):
    file = tmp_path / "scene.yaml"
    scene.counting["save_scene"] = lambda made: shapes.write_scene(file, made)
    scene.settings.scene = shapes.Scene({"gate": ((0, HEIGHT / 2), (WIDTH, HEIGHT / 2))})  # pixels
    server = scene.serve()
    assert ask(server, "/scene.json").status == 503
    scene.show(0)
    assert ask(server, "/scene.json").json == {"lines": {"gate": [[0, 0.5], [1, 0.5]]}, "zones": {}}
    revision = scene.settings.revision
    answer = change(server, GATE, path="/scene")
    assert (answer.status, answer.json) == (200, GATE)
    assert scene.settings.scene.plain() == GATE
    assert scene.settings.revision > revision
    assert shapes.read_scene(file).plain() == GATE
    assert ask(server, "/scene.json").json == GATE
    assert change(server, {}, path="/scene").json == {"lines": {}, "zones": {}}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        ([1], "object"),
        ({"lanes": {}}, "lanes"),
        ({"lines": {"gate": [[0, 0], [100, 0]]}}, "shares"),
        ({"lines": {"gate": [[0, 0], [-0.1, 0]]}}, "shares"),
        ({"lines": {"gate": [[0, 0]]}}, "gate"),
        ({"lines": {"gate": [[0.5, 0.5], [0.50001, 0.5]]}}, "gate"),
        ({"zones": {"porch": [[0, 0], [0, 0.5], [0, 1]]}}, "porch"),
        ({"lines": {"a/b": [[0, 0], [1, 0]]}}, "a/b"),
        ({"lines": GATE["lines"], "zones": {"gate": GATE["zones"]["porch"]}}, "gate"),
        (b'{"lines": {"gate": [[NaN, 0], [1, 0]]}}', "NaN"),
    ],
)
def test_what_is_no_scene_changes_nothing(scene, body, named):
    answer = change(scene.serve(), body, path="/scene")
    assert answer.status == 400
    assert named in answer.text
    assert answer.text.count("\n") == 1
    assert scene.settings.revision == 0


def test_without_ids_there_are_no_lines(scene):
    scene.counting = {}
    answer = change(scene.serve(), GATE, path="/scene")
    assert answer.status == 409
    assert "--track" in answer.text
    assert not scene.settings.scene


def test_a_file_that_cannot_be_written_is_reported_but_counting_goes_on(scene):
    def fail(_):
        raise MobiledetError("the disk is full")

    scene.counting["save_scene"] = fail
    answer = change(scene.serve(), GATE, path="/scene")
    assert answer.status == 500
    assert "the disk is full" in answer.text
    assert scene.settings.scene.plain() == GATE


def test_other_pages_cannot_move_the_lines(scene):
    server = scene.serve()
    assert change(server, GATE, path="/scene", Origin="http://evil.example").status == 403
    assert change(server, GATE, path="/scene", Content_Type="text/plain").status == 415


# ---- counts and history


def counted(index, *directions, now=0):
    events = [{"event": "line_crossed", "line": "gate", "direction": each} for each in directions]
    counts = {
        "lines": {"gate": {"in": {"person": 2}, "out": {}}},
        "zones": {"porch": {"now": {"person": now}, "entered": 1, "mean_dwell_s": None}},
    }
    return replace(make_result(index), events=[*events, {"event": "zone_entered", "zone": "porch"}], counts=counts)


def test_counts_are_with_the_numbers(scene):
    scene.results.put(counted(0, now=3))
    assert ask(scene.serve(), "/numbers").json["counts"] == counted(0, now=3).counts


def test_without_lines_there_are_no_counts(scene):
    server = scene.serve()
    assert ask(server, "/numbers").json["counts"] is None
    assert ask(server, "/history.json").json["minutes"] == []


def test_history_has_an_entry_for_each_minute(scene):
    seconds = [600_000.0]
    scene.counting["history"] = history = History(lambda: seconds[0])
    server = scene.serve()
    for number, (moment, directions, now) in enumerate(
        [(600_000, ["in"], 1), (600_059, ["in", "out"], 3), (600_059.9, [], 2), (600_180, [], 0)]
    ):
        seconds[0] = moment
        history.add(counted(number, *directions, now=now))
    assert ask(server, "/history.json").json["minutes"] == [
        {"time": 600_000, "lines": {"gate": {"in": 2, "out": 1}}, "zones": {"porch": 3}},
        {"time": 600_180, "lines": {}, "zones": {}},
    ]


def test_history_is_bounded():
    seconds = [0.0]
    history = History(lambda: seconds[0])
    for minute in range(2000):
        seconds[0] = 60 * minute
        history.add(counted(minute, "in"))
    assert [entry["time"] // 60 for entry in history.plain()] == list(range(560, 2000))
    for number in range(200):  # names that somebody makes up all the time
        line = {"event": "line_crossed", "line": str(number), "direction": "in"}
        history.add(replace(counted(0), events=[line]))
    assert len(history.plain()[-1]["lines"]) == shapes.MOST_SHAPES
    seconds[0] += 12 * 3600
    assert len(history.plain()) == 720


def test_history_counts_all_threads():
    history = History(lambda: 0.0)
    threads = [threading.Thread(target=lambda: [history.add(counted(0, "in")) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert history.plain()[0]["lines"]["gate"]["in"] == 2000


# ---- several cameras


def test_each_camera_has_its_own_answers(scene):
    scene.others = [other_view(scene)]
    server = scene.serve()
    scene.show(3)
    scene.others[0].results.put(make_result(7))
    assert ask(server, "/about.json").json["cameras"] == [
        {"title": "model <i> on clip.mp4", "tracked": True},
        {"title": "another", "tracked": False},
    ]
    for query, index in (("", 3), ("?camera=1", 3), ("?camera=2", 7)):
        assert ask(server, f"/numbers{query}").json["picture"]["index"] == index
        assert ask(server, f"/detections.json{query}").json["index"] == index
        with Viewer(server, query) as viewer:
            assert viewer.next()[0] == index
    assert ask(server, "/snapshot.jpg?camera=2").status == 200
    assert change(server, GATE, path="/scene?camera=2").status == 409


@pytest.mark.parametrize("camera", ["0", "3", "-1", "01", "", "x", "9" * 5000, "%C2%B2"])
def test_a_camera_that_is_not_there(scene, camera):
    scene.others = [other_view(scene)]
    server = scene.serve()
    for path in ("/stream.mjpg", "/snapshot.jpg", "/numbers", "/detections.json", "/scene.json", "/history.json"):
        answer = ask(server, f"{path}?camera={camera}")
        assert answer.status == 404
        assert "1 to 2" in answer.text
    assert change(server, {"paused": True}, path=f"/settings?camera={camera}").status == 404


def test_all_cameras_in_one_image(scene):
    first, second = other_view(scene), other_view(scene, "more")
    server = ViewServer([first, second], grid=grid_view([first, second]), port=0)
    server.start()
    scene.servers.append(server)
    for index, view in enumerate((first, second)):
        view.results.put(make_result(index))
    about = ask(server, "/about.json").json
    assert (about["grid"], about["title"], len(about["cameras"])) == (True, "another on 2 cameras", 2)
    with Viewer(server, "?camera=0") as viewer:
        image = viewer.next()[1]
    assert image.shape[1] > 2 * WIDTH
    answer = ask(server, "/numbers?camera=0").json
    assert answer["picture"]["size"] == list(image.shape[:2])
    assert (answer["counts"], ask(server, "/scene.json?camera=0").json) == (None, {"lines": {}, "zones": {}})
    change(server, {"paused": True}, path="/settings?camera=0")
    assert first.settings.paused
    assert second.settings.paused


def test_settings_are_of_all_cameras_or_of_one(scene):
    scene.others = [other_view(scene)]
    server, second = scene.serve(), scene.others[0].settings
    change(server, {"threshold": 0.7})
    assert (scene.settings.threshold, second.threshold) == (0.7, 0.7)
    assert change(server, {"threshold": 0.2}, path="/settings?camera=2").json["threshold"] == 0.2
    assert (scene.settings.threshold, second.threshold) == (0.7, 0.2)


# ---- for programs


def test_the_description_names_every_route_and_no_other(scene):
    server = scene.serve()
    described = ask(server, "/openapi.json").json
    assert described["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    app = web_app.WebApp([scene.view], Guard(host="localhost", port=1, token=None))
    routes = {(route.method, route.path.replace(r"{name:openapi\.json}", "openapi.json")) for route in app.routes}
    assert listed == routes
    # Every reference leads somewhere.
    for place in set(json.dumps(described).split('"$ref": "#/')[1:]):
        found = described
        for part in place.partition('"')[0].split("/"):
            found = found[part]


def test_head_is_answered_for_whatever_can_be_got(scene):
    server = scene.serve()
    scene.show(0)
    described = ask(server, "/openapi.json").json["paths"]
    paths = [path.replace("{name}", "app.js") for path, methods in described.items() if "get" in methods]
    assert len(paths) > 8
    for path in paths:
        answer = ask(server, path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        if path != "/stream.mjpg":
            assert answer.headers["content-type"] == ask(server, path).headers["content-type"]
    assert ask(server, "/stream.mjpg", method="HEAD").headers["content-type"].startswith("multipart/x-mixed-replace")
    assert ask(server, "/settings", method="HEAD").status == 405
    assert ask(server, "/numbers").json["viewers"] == 0
    assert ask(server, "/", method="HEAD", headers={"Sec-Fetch-Site": "cross-site"}).status == 200


# ---- who may show it, and by which name


def test_pages_that_may_show_it_in_a_frame(scene):
    origins = ["http://homeassistant.local:8123", "https://home.example.org"]
    server = scene.serve(token="my_own-token_0123", allow_frames=origins)
    page = ask(server, "/?token=my_own-token_0123")
    assert page.headers["content-security-policy"].endswith(f"frame-ancestors {' '.join(origins)}")
    assert "x-frame-options" not in page.headers
    assert "access-control-allow-origin" not in page.headers
    # There the cookie isn't sent, and the page's own files are asked for without a token.
    assert ask(server, "/static/app.js").status == 200
    assert ask(server, "/numbers").status == 403
    plain = ask(scene.serve(), "/").headers
    assert plain["content-security-policy"].endswith("frame-ancestors 'none'")
    assert plain["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "homeassistant.local",
        "ftp://a.example",
        "http://a.example/",
        "http://a.example/path",
        "http://a.example:port",
        "http://*.example",
        "http://a.example; script-src *",
        "http://a.example http://b.example",
        "http://me@a.example",
        "http://a.example\n",
        "'self'",
        "",
    ],
)
def test_what_is_no_origin_is_refused(scene, origin):
    with pytest.raises(MobiledetError, match="--allow-frame"):
        scene.serve(allow_frames=[origin])


def test_a_proxys_name_is_accepted(scene):
    server = scene.serve(allow_hosts=["Cam.Example.org"])
    for host, status in (("cam.example.org", 200), ("CAM.example.org:443", 200), ("x.cam.example.org", 403)):
        assert ask(server, "/numbers", headers={"Host": host}).status == status
    here = {"Host": "cam.example.org", "Origin": "https://cam.example.org"}
    assert change(server, {"paused": True}, **here).status == 200
    for name in ("cam.example.org:80", "*", "http://cam.example.org", ""):
        with pytest.raises(MobiledetError, match="--allow-host"):
            scene.serve(allow_hosts=[name])


# ---- idle connections


def connect(server, sent=b""):
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    sock.sendall(sent)
    return sock


def test_idle_connections_shut_nobody_out(scene):
    server = scene.serve()
    scene.show(0)
    kept = []
    try:
        with Viewer(server) as viewer:  # the oldest, but busy
            viewer.next()
            for number in range(web_app.MOST_CONNECTIONS + 20):
                kept.append(connect(server, b"GET /numbers HTTP/1.1\r\nHost: loc" if number % 2 else b""))
            for _ in range(5):
                assert ask(server, "/numbers").status == 200
            scene.show(1)
            while viewer.next()[0] != 1:
                pass
            # The oldest had to go, the newest are still there.
            assert kept[0].recv(1) == b""
            kept[-1].sendall(b"alhost\r\n\r\n")
            assert kept[-1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for sock in kept:
            sock.close()


def test_nobody_who_is_being_answered_is_sent_away(scene, monkeypatch):
    monkeypatch.setattr(web_app, "MOST_CONNECTIONS", 2)
    server = scene.serve()
    scene.show(0)
    with Viewer(server) as first, Viewer(server) as second:
        assert {first.next()[0], second.next()[0]} == {0}
        with pytest.raises(ConnectionError):
            ask(server, "/numbers")
        scene.show(1)
        for viewer in (first, second):
            while viewer.next()[0] != 1:
                pass
