"""What a broker gets: live and after it was away, and what Home Assistant is told."""

import json
import threading
import time

import pytest
from broker import Broker
from live_parts import wait_until

from mobiledet.apps.live.events import mqtt
from mobiledet.apps.live.events.mqtt import MqttPublisher, discovery, parse_broker
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.errors import MobiledetError, SourceError

SCENE = Scene({"gate": ((0, 0.5), (1, 0.5))}, {"porch": ((0, 0), (1, 0), (1, 1))})
COUNTS = {
    "lines": {"gate": {"in": {"person": 2, "dog": 1}, "out": {}}},
    "zones": {"porch": {"now": {"person": 1}, "entered": 4, "mean_dwell_s": 2.5}},
}


@pytest.fixture
def broker():
    made = Broker()
    yield made
    made.hold.set()
    made.close()


def publisher(broker, **more):
    return MqttPublisher(parse_broker(f"mqtt://127.0.0.1:{broker.port}/home/cam"), **more)


def event(number):
    return {"event": "line_crossed", "line": "gate", "number": number}


def test_addresses():
    broker = parse_broker("mqtts://me:p%2Fw%40d@[::1]:99/a/b")
    assert (broker.host, broker.port, broker.tls, broker.user, broker.prefix) == (
        "::1",
        99,
        True,
        ("me", "p/w@d"),
        "a/b",
    )
    assert "p%2F" not in broker.shown
    assert parse_broker("mqtt://host", "Front Door!").prefix == "mobiledet/front_door"
    assert parse_broker("mqtt://host", "Tür").prefix == "mobiledet/tur"
    assert parse_broker("mqtt://host/cam", "Tür", 2).prefix == "cam/2"
    assert parse_broker("mqtt://host").port == 1883
    assert parse_broker("mqtts://host").port == 8883


@pytest.mark.parametrize(
    "address", ["host", "http://host", "mqtt://", "mqtt://host:x", "mqtt://host/a/#", "mqtt://u:p@ss@host/x@y"]
)
def test_what_is_no_broker(address):
    with pytest.raises(SourceError):
        parse_broker(address)


def test_events_counts_and_snapshot(broker):
    made = publisher(broker)
    for number in range(10):
        made.put(event(number), lambda: b"jpeg")
    made.update(SCENE, COUNTS)
    wait_until(lambda: broker.topics("/snapshot") and broker.topics("/counts"))
    made.close()
    assert broker.will == ("home/cam/status", b"offline")
    assert sorted(json.loads(payload)["number"] for payload in broker.topics("/events")) == list(range(10))
    assert json.loads(broker.topics("/counts")[-1]) == COUNTS
    # One in five seconds, and the last again for a broker that has just accepted.
    assert set(broker.topics("/snapshot")) == {b"jpeg"}
    assert len(broker.topics("/snapshot")) <= 2
    assert broker.topics("/status") == [b"online", b"offline"]
    assert {topic: retain for topic, _, retain in broker.messages} == {
        f"home/cam/{name}": name != "events" for name in ("status", "events", "counts", "snapshot")
    }


def test_counts_are_not_sent_for_every_frame(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "COUNTS_S", 60)
    made = publisher(broker)
    wait_until(lambda: broker.topics("/status"))
    for number in range(200):
        made.update(SCENE, {**COUNTS, "number": number})
        time.sleep(0.001)
    made.close()
    sent = [json.loads(payload)["number"] for payload in broker.topics("/counts")]
    assert len(sent) <= 3
    assert sent[-1] == 199


def test_a_broker_that_is_killed_and_comes_back(broker, monkeypatch, caplog):
    monkeypatch.setattr(mqtt, "_LONGEST_PAUSE_S", 1)
    made = publisher(broker, home_assistant=True)
    made.update(SCENE, COUNTS)
    wait_until(lambda: broker.topics("/counts"))
    broker.close()
    for number in range(300):
        made.put(event(number), lambda: b"jpeg")
    again = Broker(broker.port)
    wait_until(lambda: len(again.topics("/events")) >= 300 and again.topics("/counts") and again.topics("/config"))
    made.close()
    assert sorted({json.loads(payload)["number"] for payload in again.topics("/events")}) == list(range(300))
    assert caplog.text.count("trying again") == 1
    again.close()


def test_a_broker_that_hangs_makes_nobody_wait(broker):
    made = publisher(broker)
    wait_until(lambda: broker.topics("/status"))
    broker.hold.clear()
    start = time.monotonic()
    for number in range(500):
        made.put(event(number), lambda: bytes(1_000_000))
        made.update(SCENE, {**COUNTS, "number": number})
    assert time.monotonic() - start < 10
    with pytest.raises(MobiledetError, match="events did not reach"):
        made.close()
    assert time.monotonic() - start < 10


def test_more_events_than_are_kept(monkeypatch):
    monkeypatch.setattr(mqtt, "KEPT", 10)
    made = MqttPublisher(parse_broker("mqtt://127.0.0.1:9"))
    for number in range(30):
        made.put(event(number), lambda: b"")
    assert made.dropped == 20
    with pytest.raises(MobiledetError, match="30 events"):
        made.close()


def test_nothing_goes_on_after_the_end():
    before = set(threading.enumerate())
    for number in range(50):  # closed before, during and after the first attempt
        made = MqttPublisher(parse_broker("mqtt://127.0.0.1:9"))
        time.sleep(number * 1e-4)
        made.close()
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_a_password_is_sent_and_not_shown(caplog):
    broker = Broker(refuse=True)
    made = MqttPublisher(parse_broker(f"mqtt://me:secret@127.0.0.1:{broker.port}"))
    wait_until(lambda: f"{broker.port}; trying again" in caplog.text)
    assert broker.user == ("me", "secret")
    assert "secret" not in caplog.text
    made.close()
    broker.close()


def test_home_assistant_is_told(broker):
    made = publisher(broker, home_assistant=True, title="Front door")
    made.update(SCENE, COUNTS)
    wait_until(lambda: len(broker.topics("/config")) >= 5)
    made.update(Scene({"gate": SCENE.lines["gate"]}), {"lines": COUNTS["lines"], "zones": {}})
    wait_until(lambda: b"" in broker.topics("/config"))
    made.close()
    last = {topic: payload for topic, payload, _ in broker.messages if topic.startswith("homeassistant/")}
    gone = {topic for topic, payload in last.items() if not payload}
    assert gone == {
        "homeassistant/sensor/home_cam/porch/config",
        "homeassistant/binary_sensor/home_cam/porch_occupied/config",
    }


def test_templates_of_the_sensors():
    jinja2 = pytest.importorskip("jinja2")
    scene = Scene({'a "b"': SCENE.lines["gate"], "in": SCENE.lines["gate"]}, {"ä-1": SCENE.zones["porch"]})
    counts = {
        "lines": {'a "b"': {"in": {"person": 2, "dog": 1}, "out": {}}, "in": {"in": {}, "out": {"dog": 7}}},
        "zones": {"ä-1": {"now": {"person": 1}}},
    }
    configs = discovery("home/cam", "Front door", scene)
    assert len({config["unique_id"] for config in configs.values()}) == len(configs) == 7
    shown = {
        config["name"]: jinja2.Template(config["value_template"]).render(value_json=counts)
        for config in configs.values()
        if "value_template" in config
    }
    assert shown == {'a "b" in': "3", 'a "b" out': "0", "in in": "0", "in out": "7", "ä-1": "1", "ä-1 occupied": "ON"}
