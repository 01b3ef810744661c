"""Taking files out of archives without trusting the archive: no paths that lead out, no links, no surprises in size."""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # a kind of zip compression that Python doesn't know
    RuntimeError,  # a zip member with a password
    ValueError,
    OverflowError,
)
"""What the readers of archives raise for one that can't be read; `OSError` apart, which may be the disk's fault."""


def extract(archive: Path, wanted: Mapping[str, Path], *, durable: bool = True, progress: bool = False) -> None:
    """Write some files of an archive to given paths; each is there whole or not at all.

    The whole of a ``.tar.gz`` is read, so that damage anywhere in it is found. A file that is there already is kept if
    its size and its checksum in the archive are right (which .tar.gz has none of), and replaced otherwise.

    Args:
        archive: A ``.tar.gz``, ``.tgz`` or ``.zip`` file; its kind is recognised by its content, not its name.
        wanted: Name of a file, without the folders it is in in the archive -> where to write it. Folders are made.
        durable: Wait until each file is on the disk, so that not even a power cut leaves half of it.
        progress: Show a bar, if standard error is a terminal.

    Raises:
        DownloadError: There is no such file or more than one, it is a link, the archive is damaged, or has a member
            whose name leads out of the folder it would be unpacked to; the disk is too small, or can't be written.
    """
    try:
        with _opened(archive) as members:
            found = _find(archive, members, wanted)
            missing = {name: member for name, member in found.items() if not _is_there(wanted[name], member)}
            for folder in {wanted[name].parent for name in missing}:
                folder.mkdir(parents=True, exist_ok=True)
                needed = sum(member.size for name, member in missing.items() if wanted[name].parent == folder)
                check_space(folder, needed, f"unpacking {archive.name}")
            total = sum(member.size for member in missing.values())
            with bytes_bar(f"unpacking {archive.name}", total, show=progress) as bar:
                for name, member in missing.items():
                    with replacing(wanted[name], durable=durable) as temporary:
                        _copy(member, temporary)
                    bar.update(member.size)
    except OSError as error:
        place = error.filename or archive
        raise DownloadError(f"{place}: {error.strerror or error}; can't unpack {archive}") from error


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool  # no folder, link or device
    checksum: int | None  # CRC-32; tar has none
    open: Callable[[], IO[bytes]]


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """The members of an archive, to be read in a ``with``; damage that shows meanwhile becomes a `DownloadError`."""
    with archive.open("rb") as stream:
        magic = stream.read(4)
    try:
        if magic[:2] == b"PK":
            with zipfile.ZipFile(archive) as opened:
                yield [_zip_member(opened, info) for info in opened.infolist()]
        elif magic[:2] == b"\x1f\x8b":
            with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
                members = [_tar_member(tar, info) for info in tar.getmembers()]
                while unzipped.read(_BLOCK):  # to the end, where gzip keeps its checksum
                    pass
                yield members
        else:
            raise DownloadError(
                f"{archive} is neither a .zip nor a .tar.gz file (it begins with {magic!r}); delete it and get it again"
            )
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(
            f"{archive} can't be unpacked: {reason}; it is damaged, delete it and get it again"
        ) from error


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
    is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, is_file, info.CRC, partial(opened.open, info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    # `extractfile` gives None for what isn't a file, and only files are opened.
    open_ = cast("Callable[[], IO[bytes]]", partial(tar.extractfile, info))
    return _Member(info.name, info.size, info.isreg(), None, open_)


def _find(archive: Path, members: list[_Member], names: Iterable[str]) -> dict[str, _Member]:
    """The file of each name, wherever in the archive it is."""
    by_name: dict[str, list[_Member]] = {}
    for member in members:
        parts = re.split(r"[/\\]", member.name.rstrip("/"))
        if parts[0] == "" or ".." in parts or any(re.match(r"[A-Za-z]:", part) for part in parts):
            raise DownloadError(
                f"{archive} has a member {member.name!r:.200} that leads out of its folder; nothing was unpacked, "
                "get the archive from its publisher"
            )
        by_name.setdefault(parts[-1], []).append(member)
    if missing := [name for name in names if name not in by_name]:
        files = [repr(member.name) for member in members if member.is_file]
        raise DownloadError(
            f"{archive} lacks {len(missing)} of the files expected: {listing(map(repr, missing), 2)}; it has "
            f"{listing(files) or 'nothing'}; delete it and get it again"
        )
    for name in names:
        if len(by_name[name]) > 1:
            places = listing(repr(member.name) for member in by_name[name])
            raise DownloadError(f"{archive} has {name!r} {len(by_name[name])} times: {places}; unpack it by hand")
        if not by_name[name][0].is_file:
            raise DownloadError(f"{archive}: {name!r} is a link or a folder, not a file; unpack it by hand")
    return {name: by_name[name][0] for name in names}


def _copy(member: _Member, path: Path) -> None:
    with member.open() as source, path.open("wb") as stream:  # zipfile compares the checksum at the end
        shutil.copyfileobj(source, stream, _BLOCK)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} is truncated")


def _is_there(path: Path, member: _Member) -> bool:
    if member.checksum is None or not path.is_file() or path.stat().st_size != member.size:
        return False
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.checksum
