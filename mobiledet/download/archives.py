"""Taking files out of archives without trusting the archive: no paths that lead out, no links, no surprises in size."""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from mobiledet.errors import DownloadError
from mobiledet.utils.files import check_space, replacing
from mobiledet.utils.progress import bytes_bar
from mobiledet.utils.text import listing

_BLOCK = 1 << 20  # bytes
# What the readers of archives raise for one that can't be read (NotImplementedError: a compression that Python doesn't
# know; RuntimeError: a password); OSError apart, which may be the disk's fault.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, RuntimeError, ValueError)


MOST = 1 << 40
"""Bytes that an archive may unpack to, where the caller names no other limit."""


@dataclass(frozen=True)
class _Member:
    path: str
    size: int
    is_file: bool  # no folder, link or device
    checksum: int | None  # CRC-32; tar has none
    open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        return re.split(r"[/\\]", self.path.rstrip("/"))[-1]


def extract(
    archive: Path, wanted: Mapping[str, Path] | Path, *, durable: bool = True, progress: bool = False, most: int = MOST
) -> None:
    """Write some files of an archive to given paths; each is there whole or not at all.

    The whole of a ``.tar.gz`` is read, so that damage anywhere in it is found. A file that is there already is kept if
    its size and its checksum in the archive are right (which .tar.gz has none of), and replaced otherwise.

    Args:
        archive: A ``.tar.gz``, ``.tgz`` or ``.zip`` file; its kind is recognised by its content, not its name.
        wanted: Name of a file, without the folders it is in in the archive -> where to write it; or a folder, for all
            files. Folders are made.
        durable: Wait until each file is on the disk, so that not even a power cut leaves half of it.
        progress: Show a bar, if standard error is a terminal.
        most: Bytes beyond which it is refused.

    Raises:
        DownloadError: There is no such file or more than one, it is a link, the archive is damaged, or has a member
            whose name leads out of the folder it would be unpacked to; the disk is too small, or can't be written.
    """
    try:
        with _opened(archive, most) as members:
            if isinstance(wanted, Path):
                wanted = {member.name: wanted / member.name for member in members if member.is_file}
            found = {wanted[name]: member for name, member in _find(archive, members, wanted).items()}
            missing = {path: member for path, member in found.items() if not _is_there(path, member)}
            for folder in {path.parent for path in missing}:
                folder.mkdir(parents=True, exist_ok=True)
            total = sum(member.size for member in missing.values())
            if total > most:
                raise DownloadError(f"{archive} would unpack to {total:,} bytes, more than {most:,}; delete it")
            if missing:
                check_space(next(iter(missing)).parent, total, f"unpacking {archive.name}")
            with bytes_bar(f"unpacking {archive.name}", total, show=progress) as bar:
                for path, member in missing.items():
                    # zipfile compares the checksum at the end
                    with replacing(path, durable=durable) as part, member.open() as source, part.open("wb") as stream:
                        shutil.copyfileobj(source, stream, _BLOCK)
                        if stream.tell() != member.size:
                            raise EOFError(f"{member.path!r} is truncated")
                    bar.update(member.size)
    except OSError as error:
        place = error.filename or archive
        raise DownloadError(f"{place}: {error.strerror or error}; can't unpack {archive}") from error


@contextmanager
def _opened(archive: Path, most: int) -> Iterator[list[_Member]]:
    """The members of an archive, to be read in a ``with``; damage that shows meanwhile becomes a `DownloadError`."""
    with archive.open("rb") as stream:
        magic = stream.read(4)
    try:
        if magic[:2] == b"PK":
            with zipfile.ZipFile(archive) as opened:
                yield [_zip_member(opened, info) for info in opened.infolist()]
        elif magic[:2] == b"\x1f\x8b":
            with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
                # `extractfile` gives None for what isn't a file, and only files are opened.
                members = [
                    _Member(info.name, info.size, info.isreg(), None, cast("Callable[[], IO[bytes]]", opener))
                    for info in tar.getmembers()
                    for opener in [partial(tar.extractfile, info)]
                ]
                while unzipped.read(_BLOCK):  # to the end, where gzip keeps its checksum
                    if unzipped.tell() > most:
                        raise DownloadError(f"{archive} unpacks to more than {most:,} bytes; delete it")
                yield members
        else:
            raise DownloadError(f"{archive} is not a .zip or .tar.gz file; delete it and download it again")
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(f"{archive} is damaged: {reason}; delete it and download it again") from error


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
    is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, is_file, info.CRC, partial(opened.open, info))


def _find(archive: Path, members: list[_Member], names: Mapping[str, Path]) -> dict[str, _Member]:
    """The file of each name, wherever in the archive it is."""
    found: dict[str, list[_Member]] = {}
    for member in members:
        if re.match(r"[/\\]", member.path) or re.search(r"(^|[/\\])(\.\.([/\\]|$)|[A-Za-z]:)", member.path):
            raise DownloadError(
                f"{archive} has a member {member.path!r:.200} that leads out of its folder; nothing was unpacked, "
                "get the archive from its publisher"
            )
        if member.name in names:
            found.setdefault(member.name, []).append(member)
    if missing := [name for name in names if name not in found]:
        files = [repr(member.path) for member in members if member.is_file]
        raise DownloadError(
            f"{archive} lacks {len(missing)} of the files expected: {listing(map(repr, missing), 2)}; it has "
            f"{listing(files) or 'nothing'}; delete it and download it again"
        )
    for name, places in found.items():
        if len(places) > 1 or not places[0].is_file:
            paths = listing(repr(member.path) for member in places)
            raise DownloadError(f"{archive} doesn't have {name!r} once, as a file: {paths}; unpack it by hand")
    return {name: places[0] for name, places in found.items()}


def archive_fault(archive: Path, name: str, most: int) -> str | None:
    """Why an archive isn't whole, or hasn't a file of this name once; None if it is and has."""
    try:
        with _opened(archive, most) as members:
            _find(archive, members, {name: archive})
    except DownloadError as error:
        return str(error).removeprefix(f"{archive} ")
    return None


def _is_there(path: Path, member: _Member) -> bool:
    if member.checksum is None or not path.is_file() or path.stat().st_size != member.size:
        return False
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.checksum
