"""The text of files whose encoding nobody wrote down."""

from __future__ import annotations

import codecs
import locale
from contextlib import suppress


def text_of(data: bytes) -> str:
    """The text of a file, whatever its encoding."""
    return decode(data)[0]


def decode(data: bytes) -> tuple[str, str]:
    """The text of a file, and its encoding: UTF-8, UTF-16 with its mark, or the likeliest of those of Windows."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace"), "utf-16"
    with suppress(UnicodeDecodeError):
        return data.removeprefix(codecs.BOM_UTF8).decode(), "utf-8"
    own = codecs.lookup(locale.getpreferredencoding(False)).name
    encoding = max(_WINDOWS, key=lambda name: (_likelihood(data[:_SAMPLE], name), name == own))
    return data.decode(encoding, "replace"), encoding


_SAMPLE = 1 << 16
_WINDOWS = {
    "gbk": ("gb2312", 0xB0, 0xD7),
    "cp950": ("big5", 0xA4, 0xC6),
    "cp932": ("shift_jis", 0x82, 0x97),
    "cp949": ("euc_kr", 0xB0, 0xC8),
    "cp1251": ("cp1251", 0xC0, 0xFF),
    "cp1252": ("cp1252", 0xC0, 0xFF),
}
"""Encodings, the commonest first -> in which set of characters the everyday ones have first bytes from, to."""


def _likelihood(data: bytes, encoding: str) -> float:
    """The share of everyday characters among those beyond ASCII, if a text is in an encoding; 0 if it can't be."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, len(data) < _SAMPLE)
    except UnicodeDecodeError:
        return 0
    foreign = [char for char in text if char > "\x7f"]
    plain = sum(char.isascii() and char.isalpha() for char in text)
    # Cyrillic words have no Latin letters, accents are few.
    if not foreign or (encoding in ("cp1251", "cp1252") and (plain > len(foreign)) is (encoding == "cp1251")):
        return 0
    charset, low, high = _WINDOWS[encoding]
    share = sum(low <= (char.encode(charset, "ignore") or b"\0")[0] <= high for char in foreign) / len(foreign)
    # Korean can always be read as everyday Chinese, and Chinese as Korean only where it is short.
    return share + (encoding == "cp949" and share == 1 and len(foreign) >= 10)
