"""What a file on a server is known to be, and whether a file here is that one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mobiledet.errors import DownloadError

_BLOCK = 1 << 20  # bytes read at a time for a checksum


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        url: its address, http or https.
        size: bytes, if known.
        sha256: checksum in hexadecimal, if known.
        md5: the same, for files whose publisher gives nothing better.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether its content, not only its size, can be told from any other."""
        return self.sha256 is not None or self.md5 is not None

    @property
    def address(self) -> str:
        """The address as it may be shown: without user name, password, query and fragment, which may be secret."""
        try:
            parts = urlsplit(self.url)
        except ValueError:  # for example an IPv6 address without its bracket
            return "an address that can't be read"
        if not parts.scheme:
            return parts.path or "an empty address"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def fault(self, path: Path, tick: Callable[[int], object] | None = None) -> str | None:
        """What speaks against ``path`` being this file; None if nothing does.

        Args:
            path: a file; read whole if there is a checksum.
            tick: called with the number of bytes after each block read.

        Raises:
            DownloadError: the file can't be read.
        """
        try:
            size = path.stat().st_size
            if self.size is not None and size != self.size:
                return f"it has {size:,} bytes, not {self.size:,}"
            for name, expected in (("sha256", self.sha256), ("md5", self.md5)):
                if expected is not None and (found := _checksum(path, name, tick)) != expected.lower():
                    return f"its {name} is {found}, not {expected.lower()}"
        except OSError as error:
            raise DownloadError(f"{path} can't be read: {error.strerror}; correct that or move it away") from error
        return None


def cache_folder() -> Path:
    """Where fetched files are kept: ``$MOBILEDET_CACHE``, or ``~/.cache/mobiledet``. It need not exist yet.

    Raises:
        DownloadError: there is no home folder.
    """
    try:
        return Path(os.environ.get("MOBILEDET_CACHE") or Path.home() / ".cache" / "mobiledet")
    except RuntimeError as error:
        raise DownloadError("there is no home folder to keep fetched files in; set MOBILEDET_CACHE") from error


def is_offline() -> bool:
    """Whether ``MOBILEDET_OFFLINE`` forbids to try the network."""
    return os.environ.get("MOBILEDET_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def readable_size(count: int) -> str:
    """Bytes for people: ``"778 MiB"``; exact below a KiB."""
    if count < 1024:
        return f"{count} bytes"
    value, units = count / 1024, ["TiB", "GiB", "MiB", "KiB"]
    while value >= 1000 and len(units) > 1:
        value /= 1024
        units.pop()
    return f"{value:.3g} {units[-1]}"


def _checksum(path: Path, name: str, tick: Callable[[int], object] | None) -> str:
    digest = hashlib.new(name, usedforsecurity=False)  # else MD5 is refused where FIPS is on
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            if tick is not None:
                tick(len(block))
    return digest.hexdigest()
