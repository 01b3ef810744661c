"""Class names as people and tools write them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from mobiledet.data.formats.base import Account, clean_name


class ClassNames:
    """Collects the names of classes while boxes are read; they are numbered in alphabetical order."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._cleaned: dict[str, str] = {}

    def take(self, raw: str | None, where: str) -> str | None:
        """The name without stray spaces; None, and an entry in the account, where there is none."""
        name = self._cleaned.get(raw or "")
        if name is not None:
            return name
        name = clean_name(raw or "")
        if not name:
            self._account.add("objects without a class name", where, repr(raw))
            return None
        if name != raw:
            self._account.add("class names with stray spaces", where, f"{raw!r} is {name!r}")
        self._cleaned[raw or ""] = name
        return name

    def numbered(self) -> dict[str, int]:
        """Class name -> COCO id ``1..K``; names that differ only in case or in the spelling of a letter are noted."""
        names = sorted(set(self._cleaned.values()))
        note_alike(names, self._account)
        return {name: number for number, name in enumerate(names, 1)}


def note_alike(names: Iterable[str], account: Account) -> None:
    """Take down names that differ only in case, underscores or the spelling of a letter: often a slip."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        alike["".join(letter for letter in key if letter not in " _-") or key].append(name)
    for group in alike.values():
        if len(group) > 1:
            account.add("class names that are alike", " and ".join(map(repr, group)), "kept apart")
