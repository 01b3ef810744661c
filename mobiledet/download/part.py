"""The part of a file that has come so far, and the notes that say what it is a part of."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from mobiledet.download.remote import Remote
from mobiledet.errors import DownloadError


class Part:
    """``<target>.part`` with its notes ``<target>.part.json``.

    Attributes:
        target: the name the file gets once it is whole.
        path: the part.
        validator: what the server calls this version of its file (ETag or date of change), for ``If-Range``.
        total: bytes of the whole file as the server said; None if it didn't.
    """

    def __init__(self, target: Path, remote: Remote) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.validator: str | None = None
        self.total: int | None = None
        self._notes = target.with_name(f"{target.name}.part.json")
        self._url = hashlib.sha256(
            remote.url.encode("utf-8", "surrogatepass")
        ).hexdigest()  # not as it is: it may hold secrets
        self._content = remote.sha256 or remote.md5
        self._load()

    def length(self) -> int:
        """Bytes that have come."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def refuse_foreign(self) -> None:
        """Make sure that nobody else's file is overwritten: browsers call theirs ``.part``, too.

        Raises:
            DownloadError: the part has no notes, so it isn't ours.
        """
        if os.path.lexists(self.path) and not (self.path.is_file() and self._notes.is_file()):
            raise DownloadError(f"{self.path} is in the way and was not left by an earlier call; move it away")

    def start(self, validator: str | None, total: int | None) -> None:
        """Begin an empty part of a certain version of the file."""
        self.discard()
        self.validator, self.total = validator, total
        notes = {"url": self._url, "content": self._content, "validator": validator, "total": total}
        temporary = self._notes.with_name(f"{self._notes.name}.tmp")
        temporary.write_text(json.dumps(notes), "utf-8")
        temporary.replace(self._notes)  # the notes come first: a part without them is somebody else's
        self.path.touch()

    def discard(self) -> None:
        """Throw the part and its notes away."""
        self.validator, self.total = None, None
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the part its name, for good: flushed to the disk first.

        Raises:
            DownloadError: meanwhile something else has that name.
        """
        with self.path.open("r+b") as stream:
            os.fsync(stream.fileno())
        if os.path.lexists(self.target):
            raise DownloadError(f"{self.target} has come up while it was being fetched; move it away and start again")
        self.path.replace(self.target)
        with suppress(OSError):  # a name that isn't flushed is at worst fetched again
            handle = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        self._notes.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take up an earlier call's part; if it can't be continued it counts as not there."""
        try:
            notes = json.loads(self._notes.read_text("utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError):
            notes = None
        notes = notes if isinstance(notes, dict) else {}
        validator, total = notes.get("validator"), notes.get("total")
        same_server = notes.get("url") == self._url
        if self._content is not None:
            usable = notes.get("content") == self._content  # of whatever server: the checksum will tell
        else:
            usable = notes.get("content", "") is None and same_server and isinstance(validator, str)
        if not usable:
            with suppress(OSError):  # `start` will say what is wrong
                self.discard()
            return
        self.validator = validator if same_server and isinstance(validator, str) else None
        self.total = total if type(total) is int else None
