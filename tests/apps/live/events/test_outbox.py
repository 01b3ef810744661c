"""Events for a web server and for a program, which may be slow, away or broken."""

import http.server
import json
import sys
import threading
import time

import pytest
from live_parts import wait_until

from mobiledet.apps.live.events import outbox
from mobiledet.apps.live.events.outbox import NotAccepted, Outbox, command, webhook
from mobiledet.errors import MobiledetError, SourceError

CROSSED = {"event": "line_crossed", "line": "gate", "direction": "in", "class": "person"}


@pytest.fixture
def server():
    """A web server that answers with the statuses it is given, then 200, and remembers what it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.got.append((self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.got, made.statuses = [], []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Try again after a hundredth of the usual time."""
    wait = threading.Event.wait
    monkeypatch.setattr(
        outbox.threading.Event, "wait", lambda self, timeout=None: wait(self, timeout and timeout / 100)
    )


def test_a_webhook_gets_every_event_in_order(server):
    box = Outbox("webhook", webhook(f"http://me:p%40ss@127.0.0.1:{server.server_port}/hook"))
    for number in range(20):
        box.put({**CROSSED, "track_id": number})
    box.close()
    assert [body["track_id"] for _, body in server.got] == list(range(20))
    headers, body = server.got[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"].startswith("Basic ")
    assert body == {**CROSSED, "track_id": 0}
    assert box.sent == 20


def test_a_server_in_trouble_is_asked_again(server):
    server.statuses[:] = [503, 500, 429]
    box = Outbox("webhook", webhook(f"http://127.0.0.1:{server.server_port}"))
    box.put(CROSSED)
    wait_until(lambda: box.sent == 1)
    assert len(server.got) == 4
    box.close()


def test_a_server_that_refuses_is_not(server, caplog):
    server.statuses[:] = [404]
    box = Outbox("webhook", webhook(f"http://127.0.0.1:{server.server_port}"))
    box.put(CROSSED)
    box.put(CROSSED)
    with pytest.raises(MobiledetError, match="1 event "):
        box.close()
    assert (box.sent, box.refused) == (1, 1)
    assert "404" in caplog.text


def test_nobody_answers(monkeypatch, caplog):
    monkeypatch.setattr(outbox, "LAST_CHANCE_S", 0.2)
    box = Outbox("webhook", webhook("http://me:secret@127.0.0.1:9/"))
    start = time.monotonic()
    for _ in range(50):
        box.put(CROSSED)
    assert time.monotonic() - start < 2, "the frames never wait"
    with pytest.raises(MobiledetError, match="50 events"):
        box.close()
    assert time.monotonic() - start < 10
    assert caplog.text.count("trying again") == 1
    assert "secret" not in caplog.text


def test_too_many_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(outbox, "KEPT", 5)
    going = threading.Event()
    box = Outbox("slow", lambda event: going.wait(5) and None)
    for _ in range(20):
        box.put(CROSSED)
    going.set()
    with pytest.raises(MobiledetError):
        box.close()
    assert box.dropped >= 14
    assert box.sent + box.dropped == 20


def test_a_rate_for_each_kind():
    sent = []
    box = Outbox("some", sent.append, interval=60)
    for _ in range(5):
        box.put(CROSSED)
        box.put({**CROSSED, "direction": "out"})
    box.close()
    assert [event["direction"] for event in sent] == ["in", "out"]
    assert box.left_out == 8


@pytest.mark.parametrize("address", ["ftp://host/x", "mqtt://host", "http://", "http:/host", "host"])
def test_what_is_no_address_of_a_web_server(address):
    with pytest.raises(SourceError):
        webhook(address)


def test_a_command_gets_the_event_at_its_input(tmp_path):
    file = tmp_path / "got; touch oops"  # no shell looks at it
    box = Outbox(
        "command", command([sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write(input())", str(file)])
    )
    box.put(CROSSED)
    wait_until(lambda: box.sent)
    box.close()
    assert json.loads(file.read_text()) == CROSSED
    assert not (tmp_path / "oops").exists()


def test_a_command_that_fails():
    with pytest.raises(NotAccepted, match="3"):
        command([sys.executable, "-c", "raise SystemExit(3)"])(CROSSED)
    with pytest.raises(NotAccepted):
        command(["/nothing/there"])(CROSSED)
