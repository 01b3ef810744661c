"""Where events go: a file, a broker, a web server, a program."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobiledet.apps.live.events.mqtt import MqttPublisher, parse_broker
from mobiledet.apps.live.events.outbox import Outbox, command, webhook
from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.save.json_lines import JsonLines, refuse_existing_lines
from mobiledet.errors import ConfigError, need_extra


@dataclass(frozen=True)
class EventOptions:
    """Where events are sent, as the command line's help describes it; empty for nowhere.

    ``interval`` is the shortest time between two events of a kind, line or zone and direction that ``webhook`` and
    ``command`` get, in seconds. ``number`` is that of one of several sources, for the broker's topics.
    """

    file: Path | None = None
    mqtt: str = ""
    home_assistant: bool = False
    webhook: str = ""
    command: str = ""
    interval: float = 0.0
    number: int | None = None

    def __bool__(self) -> bool:
        return bool(self.file or self.mqtt or self.webhook or self.command)

    def check(self) -> None:
        """Make sure that they can be sent there, as far as that is known before.

        Raises:
            MobiledetError: A file exists, an address isn't one, a program or package is missing.
        """
        refuse_existing_lines(self.file)
        if self.mqtt:
            need_extra("mqtt")
            parse_broker(self.mqtt)
        elif self.home_assistant:
            raise ConfigError("--homeassistant needs a broker: --mqtt mqtt://HOST")
        if self.webhook:
            webhook(self.webhook)
        if self.command:
            self.words()

    def words(self) -> list[str]:
        """The command as a list of words.

        Raises:
            ConfigError: There is no such program.
        """
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"--on-event {self.command!r}: {error}") from None
        if not words or shutil.which(words[0]) is None:
            raise ConfigError(f"--on-event {self.command!r}: there is no program {(words or [''])[0]!r}")
        return words


class EventSending:
    """Hands events on; no method waits.

    Args:
        options: Where to.
        source: Name of the source, added to each event.
        name: Of this camera, for the broker's topics; empty takes the name of this machine.
        snapshot: Makes a JPEG of a result.
    """

    def __init__(self, options: EventOptions, *, source: str, name: str, snapshot: Callable[[Result], bytes]) -> None:
        self._source, self._snapshot = source, snapshot
        self.log = JsonLines(options.file, "events") if options.file is not None else None
        self._boxes: list[Outbox] = []
        if options.webhook:
            self._boxes.append(Outbox("webhook", webhook(options.webhook), interval=options.interval))
        if options.command:
            self._boxes.append(Outbox("--on-event", command(options.words()), interval=options.interval))
        self._mqtt: MqttPublisher | None = None
        if options.mqtt:
            broker = parse_broker(options.mqtt, name, options.number)
            self._mqtt = MqttPublisher(broker, home_assistant=options.home_assistant, title=name or source)

    @property
    def parts(self) -> list[Outbox | MqttPublisher | JsonLines]:
        """What is to be closed in the end; each may raise `MobiledetError`, for events that were lost."""
        return [part for part in (*self._boxes, self._mqtt, self.log) if part is not None]

    def record(self, result: Result) -> None:
        """Send what happened in a frame."""
        for event in result.events:
            sent = {**event, "source": self._source}
            if self.log is not None:
                self.log.put(sent)
            for box in self._boxes:
                box.put(sent)
            if self._mqtt is not None:
                self._mqtt.put(sent, lambda: self._snapshot(result))
        if self._mqtt is not None and result.scene is not None:
            self._mqtt.update(result.scene, result.counts)
