"""Events, counts and snapshots for an MQTT broker, and what Home Assistant needs to show them by itself."""

from __future__ import annotations

import json
import logging
import re
import secrets
import socket
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mobiledet.apps.live.events.outbox import KEPT, LAST_CHANCE_S
from mobiledet.apps.live.scene.counting import Event
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.errors import MobiledetError, SourceError, need_extra
from mobiledet.utils.addresses import split_user
from mobiledet.utils.text import count
from mobiledet.version import __version__

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

logger = logging.getLogger(__name__)

COUNTS_S = 1.0
"""Seconds between two messages with counts; the last ones are always sent."""

SNAPSHOT_S = 5.0
"""Seconds between two snapshots."""

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_PAUSE_S = 30
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and below which topic this program writes.

    Attributes:
        shown: The address without user and password.
        host: Its host.
        port: Its port.
        tls: Whether the connection is encrypted.
        user: User and password, both empty for none.
        prefix: Beginning of all topics.
    """

    shown: str
    host: str
    port: int
    tls: bool
    user: tuple[str, str]
    prefix: str


def parse_broker(address: str, name: str = "", number: int | None = None) -> Broker:
    """A broker from ``mqtt://USER:PASSWORD@HOST:PORT/PREFIX``; ``mqtts`` is encrypted.

    Args:
        address: All but the host may be missing.
        name: Of this camera, for the prefix ``mobiledet/NAME``; empty takes the name of this machine.
        number: Of this camera among several, the prefix's last part.

    Raises:
        SourceError: It isn't such an address.
    """
    user, plain = split_user(address)
    form = "write mqtt://HOST:PORT, or mqtts:// where the connection is encrypted"
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise SourceError(f"--mqtt {plain}: not an address; {form}") from None
    if parts.scheme not in _PORTS or not host:
        raise SourceError(f"--mqtt {plain}: not the address of a broker; {form}")
    prefix = parts.path.strip("/") or f"mobiledet/{slug(name or socket.gethostname())}"
    prefix += "" if number is None else f"/{number}"
    if re.search(r"[+#?\0]", plain):
        raise SourceError(f"--mqtt {plain}: a topic may not hold +, # and ?")
    login, _, password = user.partition(":")
    return Broker(plain, host, port, parts.scheme == "mqtts", (unquote(login), unquote(password)), prefix)


def slug(name: str) -> str:
    """A name of small letters, digits and underscores, for topics and ids."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_") or "camera"


class MqttPublisher:
    """Publishes below the broker's prefix; connects and sends in a thread of its own, and no method waits for it.

    - ``status``: ``online`` or ``offline`` (retained; the broker itself says so where this program was lost),
    - ``events``: each event as JSON, delivered at least once; up to 1,000 wait while the broker is away,
    - ``counts``: counts of all lines and zones, at most once a second (retained),
    - ``snapshot``: a JPEG of an event's frame, at most every five seconds (retained).

    Args:
        broker: Where, see `parse_broker`.
        home_assistant: Whether to describe lines, zones and the snapshot to Home Assistant.
        title: Name of the device there.

    Raises:
        MissingDependencyError: The extra ``mqtt`` isn't installed.
    """

    def __init__(self, broker: Broker, *, home_assistant: bool = False, title: str = "mobiledet") -> None:
        need_extra("mqtt")
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.broker, self.home_assistant, self.title = broker, home_assistant, title
        self.dropped = 0
        """Events that were lost because too many waited."""
        self._scene = Scene()
        self._described: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, Any] | None = None
        self._sent_counts: dict[str, Any] | None = None
        self._counts_at = self._snapshot_at = float("-inf")
        self._snapshot: bytes | None = None
        self._lock = threading.Lock()
        self._pending: set[int] = set()  # numbers of the events that haven't arrived yet, and of what has since
        self._arrived: deque[int] = deque()
        self._client: Client = Client(CallbackAPIVersion.VERSION2, client_id=f"mobiledet-{secrets.token_hex(6)}")
        if any(broker.user):
            self._client.username_pw_set(*broker.user)
        if broker.tls:
            self._client.tls_set()
        self._client.will_set(f"{broker.prefix}/status", "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        self._client.max_queued_messages_set(0)  # without a limit of its own: `put` has one
        self._client.connect_timeout = _CONNECT_S
        self._client.on_connect, self._client.on_disconnect = self._connected, self._disconnected
        self._client.on_connect_fail = self._not_connected
        self._client.on_publish = lambda _client, _data, number, _reason, _properties: self._arrived.append(number)
        self._reported = self._closed = False
        self._client.connect_async(broker.host, broker.port, keepalive=20)
        self._client.loop_start()

    def put(self, event: Event, snapshot: Callable[[], bytes]) -> None:
        """Publish an event and, not too often, the frame it happened in, which ``snapshot`` encodes elsewhere."""
        if len(self._waiting()) >= KEPT:
            self.dropped += 1
        else:
            self._pending.add(self._publish("events", json.dumps(event), qos=1, retain=False).mid)
        if time.monotonic() - self._snapshot_at >= SNAPSHOT_S:
            self._snapshot_at = time.monotonic()
            threading.Thread(target=self._send_snapshot, args=(snapshot,), daemon=True).start()

    def _send_snapshot(self, snapshot: Callable[[], bytes]) -> None:
        self._snapshot = snapshot()
        self._publish("snapshot", self._snapshot)

    def update(self, scene: Scene, counts: dict[str, Any]) -> None:
        """The counts as they are now; called for every frame, sent where they changed."""
        with self._lock:
            changed = scene != self._scene
            self._scene, self._counts = scene, counts
            if changed:
                self._describe()
            due = time.monotonic() - self._counts_at >= COUNTS_S
            if counts != self._sent_counts and due:
                self._send_counts()

    def close(self) -> None:
        """Give what waits a last chance, and say goodbye. May be called twice.

        Raises:
            MobiledetError: Events were lost.
        """
        if self._closed:
            return
        self._closed = True
        with self._lock:
            if self._counts != self._sent_counts:
                self._send_counts()
        goodbye = self._publish("status", "offline", qos=1).mid
        end = time.monotonic() + LAST_CHANCE_S
        self._pending.add(goodbye)
        while self._waiting() and self._client.is_connected() and time.monotonic() < end:
            time.sleep(0.01)
        self._reported = True  # what it still notices is no news
        self._client.disconnect()
        lost = self.dropped + len(self._waiting() - {goodbye})
        if lost:
            raise MobiledetError(f"MQTT: {count(lost, 'event')} did not reach {self.broker.shown}")

    def _waiting(self) -> set[int]:
        """Numbers of the messages that the broker hasn't acknowledged."""
        # Not by Paho's own flag, which is wrong for a message that was queued while the broker was away.
        while self._arrived:
            self._pending.discard(self._arrived.popleft())
        return self._pending

    def _publish(self, topic: str, content: str | bytes, *, qos: int = 0, retain: bool = True) -> MQTTMessageInfo:
        return self._client.publish(f"{self.broker.prefix}/{topic}", content, qos=qos, retain=retain)

    def _send_counts(self) -> None:
        self._counts_at = time.monotonic()
        if self._publish("counts", json.dumps(self._counts)).rc == 0:
            self._sent_counts = self._counts

    def _describe(self) -> None:
        """Tell Home Assistant what there is now, and that what is gone is gone."""
        if not self.home_assistant:
            return
        described = discovery(self.broker.prefix, self.title, self._scene)
        for topic in self._described.keys() - described.keys():
            self._client.publish(topic, "", qos=1, retain=True)
        for topic, config in described.items():
            if self._described.get(topic) != config:
                self._client.publish(topic, json.dumps(config), qos=1, retain=True)
        self._described = described

    def _connected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._not_connected(reason=str(reason))
            return
        logger.info("MQTT: connected to %s", self.broker.shown)
        self._reported = False
        with self._lock:
            self._publish("status", "online", qos=1)
            self._described = {}  # a broker that was started anew may have forgotten what it kept
            self._describe()
            if self._counts is not None:
                self._send_counts()
            if self._snapshot is not None:
                self._publish("snapshot", self._snapshot)

    def _disconnected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._not_connected(reason="the connection was lost")

    def _not_connected(self, _client: Client | None = None, _data: Any = None, reason: str = "nobody answers") -> None:
        if not self._reported:
            logger.warning("MQTT: %s at %s; trying again", reason, self.broker.shown)
        self._reported = True


def discovery(prefix: str, title: str, scene: Scene) -> dict[str, dict[str, Any]]:
    """Home Assistant's MQTT discovery: topic and configuration of each sensor and of the camera.

    A line has a sensor for each direction, a zone one with how many are in it and one whether it is occupied.
    See https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
    """
    node = slug(prefix)
    common = {
        "availability_topic": f"{prefix}/status",
        "device": {
            "identifiers": [node],
            "name": title,
            "manufacturer": "mobiledet",
            "model": "MobileNetV1 detector",
            "sw_version": __version__,
        },
    }
    found: dict[str, dict[str, Any]] = {}

    def add(component: str, name: str, config: Mapping[str, Any]) -> None:
        number = slug(name)
        while f"homeassistant/{component}/{node}/{number}/config" in found:  # two names may be one slug
            number += "_2"
        found[f"homeassistant/{component}/{node}/{number}/config"] = {
            "name": name,
            "unique_id": f"{node}_{component}_{number}",
            **common,
            **config,
        }

    counts = {"state_topic": f"{prefix}/counts"}
    for name in scene.lines:
        for direction in ("in", "out"):
            add(
                "sensor",
                f"{name} {direction}",
                counts
                | {
                    "value_template": f"{{{{ value_json.lines[{json.dumps(name)}]['{direction}'].values() | sum }}}}",
                    "state_class": "total_increasing",
                    "icon": f"mdi:location-{'enter' if direction == 'in' else 'exit'}",
                },
            )
    for name in scene.zones:
        now = f"value_json.zones[{json.dumps(name)}].now.values() | sum"
        add("sensor", name, counts | {"value_template": f"{{{{ {now} }}}}", "state_class": "measurement"})
        add(
            "binary_sensor",
            f"{name} occupied",
            counts | {"value_template": f"{{{{ 'ON' if {now} > 0 else 'OFF' }}}}", "device_class": "occupancy"},
        )
    add("camera", "Last event", {"topic": f"{prefix}/snapshot"})
    return found
