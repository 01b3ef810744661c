"""Lines and zones in a real browser: drawn and moved with the mouse, counted, and shown over a day."""

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import Browser, find_chromium
from live_parts import wait_until
from view_scene import NAMES, Scene, ask, make_result

from mobiledet.apps.live.frames import Newest
from mobiledet.apps.live.measure.history import History
from mobiledet.apps.live.scene import shapes
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.errors import MobiledetError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium; install one to try the page in it"),
]
GATE = shapes.Scene({"gate": ((0.1, 0.5), (0.9, 0.5))})
REFUSED = "document.getElementById('refused').textContent"


@pytest.fixture
def scene(tmp_path):
    file = tmp_path / "scene.yaml"
    made = Scene(counting={"tracked": True, "save_scene": lambda given: shapes.write_scene(file, given)})
    made.file = file
    yield made
    made.close()


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "browser") as opened:
        yield opened


def open_page(browser, server):
    browser.open(server.url)
    browser.wait_for("document.getElementById('picture').naturalWidth > 0 && layer.viewBox.baseVal.width > 0")


def at(browser, x, y):
    """Where a place of the frame, in shares of it, is in the window; the image may have bars beside it."""
    left, top, width, height = browser.place("#picture")
    wide, tall = browser.evaluate("[picture.naturalWidth, picture.naturalHeight]")
    scale = min(width / wide, height / tall)
    return (
        left + (width - wide * scale) / 2 + x * wide * scale,
        top + (height - tall * scale) / 2 + y * tall * scale,
    )


def click(browser, x, y, count=1):
    for number in range(1, count + 1):
        browser.mouse("mousePressed", *at(browser, x, y), count=number)
        browser.mouse("mouseReleased", *at(browser, x, y), count=number)


def drag(browser, start, end):
    browser.mouse("mousePressed", *at(browser, *start))
    browser.mouse("mouseMoved", *at(browser, *end))
    browser.mouse("mouseReleased", *at(browser, *end))


def near(points):
    return [pytest.approx(point, abs=0.02) for point in points]


def test_a_line_and_a_zone_are_drawn_and_saved(scene, browser):
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    browser.click("#new-line")
    browser.wait_for("drawing")
    click(browser, 0.2, 0.5)
    browser.mouse("mouseMoved", *at(browser, 0.5, 0.6))
    click(browser, 0.8, 0.5)
    browser.wait_for("!drawing")
    browser.evaluate("document.getElementById('shape-name').select()")
    browser.write("front door")
    browser.click("#new-zone")
    for x, y in ((0.1, 0.1), (0.4, 0.1), (0.4, 0.4)):
        click(browser, x, y)
    click(browser, 0.1, 0.4, count=2)
    browser.wait_for("!drawing")
    browser.click("#new-zone")
    for x, y in ((0.6, 0.6), (0.9, 0.6), (0.9, 0.9)):
        click(browser, x, y)
    browser.press("Enter", 13)
    browser.wait_for("!drawing")
    assert not scene.settings.scene
    browser.click("#save")
    wait_until(lambda: scene.settings.scene)
    made = scene.settings.scene
    assert {name: near(points) for name, points in made.lines.items()} == {"front door": [(0.2, 0.5), (0.8, 0.5)]}
    assert list(made.zones["zone 1"]) == near([(0.1, 0.1), (0.4, 0.1), (0.4, 0.4), (0.1, 0.4)])
    assert list(made.zones["zone 2"]) == near([(0.6, 0.6), (0.9, 0.6), (0.9, 0.9)])
    wait_until(scene.file.exists)
    assert shapes.read_scene(scene.file) == made
    browser.wait_for("document.getElementById('editing').hidden")
    assert browser.problems == []


def test_points_and_edges_are_moved_in_a_frame_with_bars_beside_it(scene, browser):
    scene.settings.scene = GATE
    server = scene.serve()
    browser.device(1280, 500)  # too low for the whole width
    scene.show(0)
    open_page(browser, server)
    assert at(browser, 0, 0)[0] > browser.place("#picture")[0] + 50
    browser.click("#edit")
    browser.wait_for("shapes !== null")
    drag(browser, (0.9, 0.5), (0.8, 0.7))
    drag(browser, (0.45, 0.6), (0.45, 0.4))
    assert scene.settings.scene is GATE
    browser.click("#save")
    wait_until(lambda: scene.settings.scene is not GATE)
    assert list(scene.settings.scene.lines["gate"]) == near([(0.1, 0.3), (0.8, 0.5)])
    browser.wait_for("shapes === null")
    browser.click("#edit")
    browser.wait_for("shapes !== null")
    browser.click("#turn")
    drag(browser, (0.1, 0.3), (-0.5, 0.3))  # stays in the frame
    browser.click("#save")
    wait_until(lambda: scene.settings.scene.lines["gate"][1][0] == 0)
    assert list(scene.settings.scene.lines["gate"]) == near([(0.8, 0.5), (0, 0.3)])
    assert browser.problems == []


def test_escape_drops_what_is_drawn_and_then_all_changes(scene, browser):
    scene.settings.scene = GATE
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    browser.click("#new-zone")
    browser.wait_for("drawing")
    click(browser, 0.2, 0.2)
    browser.press("Escape", 27)
    browser.wait_for("!drawing")
    assert browser.evaluate("shapes.map((shape) => shape.name).join()") == "gate"
    browser.click("#delete")
    browser.press("Escape", 27)
    browser.wait_for("shapes === null")
    browser.click("#edit")
    browser.wait_for("shapes !== null && shapes.length === 1")
    browser.click("#delete")
    browser.click("#save")
    wait_until(lambda: not scene.settings.scene)


def test_a_line_is_dragged_and_a_zone_ends_at_its_first_corner(scene, browser):
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    browser.click("#new-line")
    browser.wait_for("drawing")
    drag(browser, (0.9, 0.2), (0.9, 0.8))
    browser.wait_for("!drawing")
    browser.click("#new-zone")
    for x, y in ((0.1, 0.1), (0.5, 0.1), (0.3, 0.8), (0.1, 0.1)):
        click(browser, x, y)
    browser.wait_for("!drawing")
    browser.click("#save")
    wait_until(lambda: scene.settings.scene)
    assert list(scene.settings.scene.lines["line 1"]) == near([(0.9, 0.2), (0.9, 0.8)])
    assert list(scene.settings.scene.zones["zone 1"]) == near([(0.1, 0.1), (0.5, 0.1), (0.3, 0.8)])
    assert browser.problems == []


def test_what_cannot_be_saved_is_said(scene, browser):
    scene.settings.scene = GATE
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    browser.click("#edit")
    browser.wait_for("shapes !== null")
    browser.evaluate("document.getElementById('shape-name').select()")
    browser.write("a/b")
    browser.click("#save")
    browser.wait_for(f"{REFUSED}.includes('a/b')")
    assert browser.evaluate("shapes !== null")
    assert scene.settings.scene is GATE

    def fail(_):
        raise MobiledetError("the disk is full")

    scene.close()
    scene.counting["save_scene"] = fail
    scene.serve(port=server.port)
    browser.wait_for("shapes === null")  # it noticed the restart
    browser.click("#edit")
    browser.wait_for("shapes !== null")
    browser.click("#save")
    browser.wait_for(f"{REFUSED}.includes('the disk is full')")
    assert scene.settings.scene is not GATE


def test_without_ids_nothing_can_be_drawn(scene, browser):
    scene.counting = {}
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    assert browser.evaluate("document.getElementById('scene-tools').hidden")
    assert browser.evaluate("document.getElementById('scene-counts').hidden")


def test_counts_and_the_day(scene, browser):
    history = History(lambda: time.time() - 3600)
    scene.counting["history"] = history
    counts = {
        "lines": {"gate": {"in": {"person": 2, "car": 1}, "out": {"person": 1}}},
        "zones": {"<b>": {"now": {"person": 2}, "entered": 5, "mean_dwell_s": 3.0}},
    }
    crossed = [{"event": "line_crossed", "line": "gate", "direction": side} for side in ("in", "in", "in", "out")]
    result = replace(make_result(0), counts=counts, events=crossed)
    history.add(result)
    scene.results.put(result)
    open_page(browser, scene.serve())
    text = "document.getElementById('scene-list').innerText"
    browser.wait_for(f"{text} !== ''")
    assert browser.evaluate(text).split("\n") == ["gate", "in 3, out 1", "<b>", "2 now, 5 entered"]
    browser.wait_for("document.querySelectorAll('#day rect').length === 2")
    assert browser.evaluate("document.querySelector('#day title').textContent").endswith(": in 3, out 1")
    browser.evaluate("const o = byId('day-of'); o.value = 'zone:<b>'; o.dispatchEvent(new Event('change'))")
    browser.wait_for("document.querySelectorAll('#day rect').length === 1")
    assert browser.evaluate("document.querySelector('#day title').textContent").endswith(": at once 2")
    assert browser.problems == []


def test_one_of_several_cameras_is_chosen(scene, browser):
    settings = ViewSettings(names=NAMES)
    other = View(Newest(), Painter(settings), lambda: scene.numbers, "model on garden.mp4")
    scene.others = [other]
    server = scene.serve()
    scene.show(0)
    other.results.put(make_result(1, size=(100, 100)))
    open_page(browser, server)
    assert browser.evaluate("[...byId('camera').options].map((o) => o.text).join()") == "1: clip.mp4,2: garden.mp4"
    browser.evaluate("byId('camera').value = '2'; byId('camera').dispatchEvent(new Event('change'))")
    browser.wait_for("document.getElementById('picture').naturalWidth === 100")
    browser.wait_for("document.title.startsWith('model on garden.mp4')")
    assert browser.evaluate("document.getElementById('scene-tools').hidden")
    browser.click("#labels")  # of all
    wait_until(lambda: not settings.labels and not scene.settings.labels)
    assert browser.problems == []


def test_all_and_none_are_of_what_the_search_finds(scene, browser):
    server = scene.serve()
    scene.show(0)
    open_page(browser, server)
    browser.click("#search")
    browser.write("car")
    browser.click("#none")
    wait_until(lambda: scene.settings.classes == {1, 3})
    browser.click("#all")
    wait_until(lambda: scene.settings.classes is None)


def test_in_a_frame_of_another_page_the_token_of_the_address_is_enough(scene, browser):
    token, html = "my_own-token_0123", []

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html[0].encode() if self.path == "/" else b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as dashboard, ExitStack() as stack:
        stack.callback(dashboard.shutdown)
        threading.Thread(target=dashboard.serve_forever, daemon=True).start()
        server = scene.serve(token=token, allow_frames=[f"http://127.0.0.1:{dashboard.server_port}"])
        scene.show(0)
        html.append(f'<iframe src="http://localhost:{server.port}/?token={token}"></iframe>')
        browser.open(f"http://127.0.0.1:{dashboard.server_port}")
        # Its script runs, and gets the stream.
        wait_until(lambda: ask(server, f"/numbers?token={token}").json["viewers"] == 1)
        assert browser.problems == []
