"""Words and tables for people."""

from __future__ import annotations

import difflib
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path


def count(number: int, what: str, plural: str = "") -> str:
    """A number and its noun: 1 box, 2 boxes, 1,234 images."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def listing(items: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """The first ``most`` items, and how many more there are: ``"a, b and 3 more"``."""
    items = list(items)
    shown = separator.join(map(str, items[:most]))
    return f"{shown} and {len(items) - most:,} more" if len(items) > most else shown


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice that was probably meant by ``word``, upper and lower case being alike; None if none is near.

    ``cutoff`` is the smallest similarity that counts, 0..1.
    """
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.6, otherwise: str = "") -> str:
    """``"did you mean 'x'?"``, or ``otherwise`` where nothing is near."""
    near = nearest(word, choices, cutoff)
    return f"did you mean {near!r}?" if near else otherwise


def alike_key(name: str) -> str:
    """What class names agree in that differ only in case, spaces, underscores, hyphens or the form of a letter."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter not in " _-") or folded


def printable(text: str) -> str:
    """Text of foreign origin that can be shown on one line: control characters and lone surrogates are escaped."""
    return text if text.isprintable() else text.encode("unicode_escape", "surrogatepass").decode()


def safe_file_name(text: str) -> str:
    """A file name for what is called ``text``: what a name may not hold, here or elsewhere, is an underscore."""
    writable = text.encode(sys.getfilesystemencoding(), "replace").decode(sys.getfilesystemencoding(), "replace")
    return re.sub(r"[^\w. ()+@-]", "_", writable)


def visible(text: str) -> str:
    """A name of foreign origin without what a terminal would obey, or no file could hold.

    Gone are control characters, such as the escape that begins a command, lone surrogates, and marks that turn the
    direction of writing around; line ends and tabs become spaces. Marks that belong to a script stay.
    """
    if text.isprintable():
        return text
    return "".join(
        " " if char.isspace() else char
        for char in text
        if char.isspace() or not (unicodedata.category(char) in ("Cc", "Cs") or char in _TURNING)
    )


def clean_name(text: str) -> str:
    """A class name without spaces at its ends, with single ones inside, and without what can't be shown."""
    return " ".join(visible(text).split())


_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shorten(text: str, length: int) -> str:
    """Text on one line of at most ``length`` characters; what is too much is cut from its middle."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[: length - 3 - half]}...{text[-half:]}"


def readable_ms(value: float | None) -> str:
    """Milliseconds for people, in as many digits as mean something: ``"84.2"``; ``"-"`` for None."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def table(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> list[str]:
    """Lines of a table, columns two spaces apart.

    Args:
        rows: Cells, all rows of the same length; the first row usually holds the headings.
        left: Indices of the columns that are aligned to the left; the others, numbers, to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = set(left)
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, more of it where two are alike, and a number where that doesn't help."""
    names = [Path(path).name or path for path in paths]
    for parts in (2, 3):
        different = set(zip(names, map(Path, paths), strict=True))
        twice = {name for name, count in Counter(name for name, _ in different).items() if count > 1}
        names = [
            "/".join(Path(path).parts[-parts:]) if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered


SIDES = (("left", "right"), ("links", "rechts"), ("gauche", "droite"), ("izquierda", "derecha"), ("l", "r"))
"""Words for the two sides; the single letters count as whole words only."""


def mirrored_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in left and right alone: each is the other in a mirror.

    ``"turn-left"`` and ``"Turn right"``, ``"arrowLeft"`` and ``"arrowRight"``, ``"shoe_l"`` and ``"shoe_r"``. ``"L"``
    and ``"R"`` by themselves only where no other class is a single letter, as in an alphabet.
    """
    words = [re.sub(r"[\W_]+", " ", name).strip().casefold() for name in names]
    letters = sum(len(word) == 1 for word in words)
    pairs = []
    for left, right in SIDES:
        pattern = rf"\b{left}\b" if len(left) == 1 else left
        for place, name in enumerate(words):
            other = re.sub(pattern, right, name)
            if other != name and other in words and (len(name) > 1 or letters == 2):
                pairs.append((names[place], names[words.index(other)]))
    return pairs
