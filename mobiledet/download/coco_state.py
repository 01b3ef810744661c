"""Notes in a data set's folder about what was fetched, so that a second run is quick."""

from __future__ import annotations

import json
from pathlib import Path

from mobiledet.download.coco_release import CocoSplit
from mobiledet.download.coco_unpacking import file_sizes

_STATE = ".coco-download.json"


class State:
    """Notes in the root: which splits were found complete, and which archives are ours to delete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            stored = json.loads((root / _STATE).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            stored = None
        stored = stored if isinstance(stored, dict) else {}
        complete, fetched = stored.get("complete"), stored.get("fetched")
        self._complete: dict[str, object] = complete if isinstance(complete, dict) else {}
        self._fetched: list[object] = fetched if isinstance(fetched, list) else []

    def says_complete(self, split: CocoSplit) -> bool:
        """A quick look: the json is the one that was checked, and there are as many pictures, none of them empty."""
        stamp = self._stamp(split)
        if stamp is None or self._complete.get(split.folder) != stamp:
            return False
        return sum(size > 0 for size in file_sizes(self._root / split.folder).values()) >= split.count

    def note_complete(self, split: CocoSplit) -> None:
        """Keep that a split was checked whole."""
        self._complete[split.folder] = self._stamp(split)
        self._save()

    def is_ours(self, archive: Path) -> bool:
        """Whether an archive was fetched by us, not put there by somebody."""
        return archive.name in self._fetched

    def note_ours(self, archive: Path, ours: bool) -> None:
        """Keep whether an archive is ours."""
        self._fetched = [name for name in self._fetched if name != archive.name] + [archive.name] * ours
        self._save()

    def _stamp(self, split: CocoSplit) -> list[int] | None:
        try:
            stat = (self._root / split.annotations).stat()
        except OSError:
            return None
        return [stat.st_size, stat.st_mtime_ns, split.count]

    def _save(self) -> None:
        temporary = self._root / f"{_STATE}.tmp"
        temporary.write_text(json.dumps({"complete": self._complete, "fetched": self._fetched}), "utf-8")
        temporary.replace(self._root / _STATE)
