"""A checksum inside a file, so that damaged weights are noticed when it is opened, not in the detections."""

from __future__ import annotations

import zlib
from pathlib import Path

MARK = b"mobiledet-crc32:"
BLANK = b"--------"


def seal(content: bytes) -> bytes:
    """``content`` with the checksum written behind its mark, which must be in it exactly once."""
    start = _digits(content)
    if start is None:
        raise ValueError("the content has no mark for a checksum")
    return content[:start] + _checksum(content, start) + content[start + len(BLANK) :]


def is_whole(content: bytes) -> bool | None:
    """Whether the checksum is that of the content; None where there is none."""
    start = _digits(content)
    return None if start is None else content[start : start + len(BLANK)] == _checksum(content, start)


def file_checksum(path: Path) -> str:
    """CRC-32 of a file, 8 hexadecimal digits."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def _digits(content: bytes) -> int | None:
    at = content.rfind(MARK)
    return None if at < 0 or at + len(MARK) + len(BLANK) > len(content) else at + len(MARK)


def _checksum(content: bytes, start: int) -> bytes:
    view = memoryview(content)
    crc = zlib.crc32(view[start + len(BLANK) :], zlib.crc32(BLANK, zlib.crc32(view[:start])))
    return f"{crc:08x}".encode()
