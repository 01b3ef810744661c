"""The page in a real browser: what it shows, what its controls do, and how it comes back."""

import time

import cv2
import numpy as np
import pytest
from browser import Browser, find_chromium
from live_parts import wait_until
from view_scene import HEIGHT, WIDTH, Feeder, Scene, ask, make_numbers

from mobiledet.apps.live.sources.base import SourceState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium; install one to try the page in it"),
]
BANNER = "document.getElementById('banner').textContent"


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


@pytest.fixture
def server(scene):
    return scene.serve()


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "browser") as opened:
        yield opened


def wait_for_picture(browser):
    browser.wait_for("document.getElementById('picture').naturalWidth > 0")
    browser.wait_for(f"{BANNER} === ''")


def colors(png):
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return int((image.max(-1) - image.min(-1)).max())


def test_the_frame_lives_and_the_numbers_are_there(scene, browser, server):
    browser.open(server.url)
    browser.wait_for(f"{BANNER} === 'Waiting for the first frame'")
    with Feeder(scene, pause=0.05):
        wait_for_picture(browser)
        assert browser.evaluate("document.getElementById('picture').naturalWidth") == WIDTH
        first = browser.screenshot("#frame")
        wait_until(lambda: browser.screenshot("#frame") != first)
        assert browser.evaluate("document.getElementById('fps').textContent") == "12.5"
        assert browser.evaluate("document.getElementById('age').textContent") == "30 ms"
        browser.wait_for("document.querySelector('#fps-chart path').getAttribute('d').includes('L')")
        # Text of others is text: nothing in it becomes an element.
        assert browser.evaluate("document.getElementById('title').textContent") == "model <i> on clip.mp4"
        assert browser.evaluate("document.querySelectorAll('#classes .name')[2].textContent") == "tree <b>"
        width, height = browser.place("#frame")[2:]
        assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.02)
    assert browser.problems == []


def test_the_controls_change_what_is_drawn(scene, browser, server):
    scene.show(0)
    browser.open(server.url)
    wait_for_picture(browser)
    wait_until(lambda: colors(browser.screenshot("#frame")) > 60)  # boxes are coloured, the frame is grey
    browser.drag("#threshold", 0.26, 0.97)
    wait_until(lambda: scene.settings.threshold > 0.92)
    wait_until(lambda: colors(browser.screenshot("#picture")) < 20)
    assert (
        browser.evaluate("document.getElementById('threshold-value').textContent") == f"{scene.settings.threshold:.2f}"
    )
    browser.evaluate("document.getElementById('threshold').focus()")
    browser.press("Home", 36)
    wait_until(lambda: scene.settings.threshold == 0.05)
    scene.settings.threshold = 0.42  # somebody else
    browser.wait_for("document.getElementById('threshold').value === '0.42'")

    browser.click("#none")
    wait_until(lambda: scene.settings.classes == frozenset())
    browser.click("#search")
    browser.write("CA")
    browser.wait_for("document.querySelectorAll('#classes li:not([hidden])').length === 1")
    browser.wait_for("!document.querySelector('#classes li:not([hidden]) input').checked")
    browser.click("#classes li:not([hidden]) input")
    wait_until(lambda: scene.settings.classes == {2})
    browser.evaluate("byId('search').value = ''; search()")
    browser.click("#all")
    wait_until(lambda: scene.settings.classes is None)
    browser.click("#labels")
    wait_until(lambda: not scene.settings.labels)
    browser.click("#pause")
    wait_until(lambda: scene.settings.paused)
    browser.wait_for(f"{BANNER} === 'Paused'")
    browser.click("#pause")
    wait_until(lambda: not scene.settings.paused)
    assert browser.problems == []


def test_a_snapshot_is_downloaded(scene, browser, server):
    scene.show(0)
    browser.open(server.url)
    browser.wait_for("document.getElementById('snapshot').getAttribute('aria-disabled') === 'false'")
    browser.click("#snapshot")
    wait_until(lambda: any(browser.downloads.glob("mobiledet_*.jpg")))
    file = next(browser.downloads.glob("mobiledet_*.jpg"))
    wait_until(lambda: file.stat().st_size > 0)
    assert cv2.imread(str(file)).shape == (HEIGHT, WIDTH, 3)


def test_a_lost_source_and_a_lost_server_are_reported_and_both_come_back(scene, browser, server):
    with Feeder(scene, pause=0.05):
        browser.open(server.url)
        wait_for_picture(browser)
        scene.numbers = make_numbers(
            source=SourceState(connected=False, message="camera 0 is gone; <b>again</b> in 2 s")
        )
        browser.wait_for(f"{BANNER} === 'camera 0 is gone; <b>again</b> in 2 s'")
        scene.numbers = make_numbers()
        browser.wait_for(f"{BANNER} === ''")
        server.close()
        browser.wait_for(f'{BANNER}.startsWith("The program doesn\'t answer")')
        assert browser.evaluate("document.getElementById('frame').classList.contains('stale')")
        again = scene.serve(port=server.port)
        browser.wait_for(f"{BANNER} === ''")
        wait_until(lambda: ask(again, "/numbers").json["viewers"] == 1)
        browser.rest(0.5)
        first = browser.screenshot("#frame")
        wait_until(lambda: browser.screenshot("#frame") != first)


def test_a_stream_that_broke_off_is_opened_again(scene, browser, monkeypatch, server):
    scene.show(0)
    browser.open(server.url)
    wait_for_picture(browser)
    begun = browser.evaluate("viewer")
    with monkeypatch.context() as patch:

        async def drop(*_):
            raise ConnectionError

        patch.setattr("mobiledet.apps.live.web.app._send", drop)
        wait_until(lambda: not ask(server, f"/numbers?viewer={begun}").json["watching"])
    browser.wait_for(f"viewer !== '{begun}'")
    wait_until(lambda: ask(server, "/numbers").json["viewers"] == 1)


def test_a_hidden_page_costs_nothing(scene, browser, server):
    scene.show(0)
    browser.open(server.url)
    wait_for_picture(browser)
    hide = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}});"
    change = "document.dispatchEvent(new Event('visibilitychange'))"
    browser.evaluate(hide.format("true") + change)
    wait_until(lambda: ask(server, "/numbers").json["viewers"] == 0)
    browser.evaluate(hide.format("false") + change)
    wait_until(lambda: ask(server, "/numbers").json["viewers"] == 1)


def test_a_phone_and_the_dark(scene, browser, server):
    scene.show(0)
    browser.device(390, 844, phone=True)
    browser.open(server.url)
    wait_for_picture(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    assert browser.place("#frame")[2] > 350
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.dark(True)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert browser.problems == []


def test_the_token_goes_on_by_cookie_and_an_old_one_is_refused(scene, browser):
    server = scene.serve(host="0.0.0.0")
    with Feeder(scene, pause=0.05):
        browser.open(f"http://127.0.0.1:{server.port}/?token={server.token}")
        wait_for_picture(browser)
        assert browser.evaluate("document.cookie") == ""  # scripts don't see it
        assert browser.problems == []
        server.close()
        scene.serve(host="0.0.0.0", port=server.port)
        browser.wait_for(f"{BANNER}.startsWith('This address is no longer valid')")
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait_for("document.body.innerText.startsWith('403: the token is missing')")


def test_two_browsers_windows_share_their_settings(scene, browser, server):
    scene.show(0)
    browser.open(server.url)
    wait_for_picture(browser)
    begun = time.monotonic()
    body = b'{"classes": [2]}'
    ask(server, "/settings", method="POST", body=body, headers={"Content-Type": "application/json"})
    browser.wait_for(
        "[...document.querySelectorAll('#classes input')].map(e => e.checked).join() === 'false,true,false'"
    )
    assert time.monotonic() - begun < 10
