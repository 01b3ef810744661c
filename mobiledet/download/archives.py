"""Taking files out of archives without trusting the archive."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import secrets
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mobiledet.errors import DownloadError

DAMAGE = (
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

_BLOCK = 1 << 20  # bytes
_SHOWN = 8  # members that a message lists


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool
    open: Callable[[], IO[bytes]]


def extract_member(archive: Path, suffix: str, target: Path) -> Path:
    """Write the one member of an archive whose name ends in ``suffix`` to a file.

    The whole of a ``.tar.gz`` is read, so that damage anywhere in it is found. A target that is there already and has
    the same content is left as it is.

    Args:
        archive: a ``.tar.gz``, ``.tgz`` or ``.zip`` file; what it is shows in its content, not its name.
        suffix: end of the member's name, for example ``"detect.tflite"``.
        target: the file to write; its folder is made.

    Returns:
        ``target``.

    Raises:
        DownloadError: there is no such member or more than one, it is a link, the archive is damaged, or has a member
            whose name leads out of the folder it would be unpacked to; ``target`` is there with other content, or
            can't be written.
    """
    archive, target = Path(archive), Path(target)
    try:
        with _opened(archive) as members:
            member = _the_one(archive, suffix, members)
            _copy(archive, member, target)
    except DAMAGE as error:
        raise damaged(archive, error) from error
    except OSError as error:
        place = error.filename or target
        raise DownloadError(f"{place}: {error.strerror or error}; can't take {suffix!r} out of {archive}") from error
    return target


def refuse_unsafe(archive: Path, name: str) -> None:
    """Make sure that a member's name stays inside the folder it is unpacked to.

    Raises:
        DownloadError: it is absolute, has ``..`` in it, or a drive or backslashes as on Windows.
    """
    if not name or name[0] in "/\\" or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise DownloadError(
            f"{archive} has a member {name!r:.200} that leads out of its folder; nothing was unpacked, "
            "get the archive from its publisher"
        )


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    with archive.open("rb") as stream:
        magic = stream.read(4)
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


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    return _Member(info.filename, info.file_size, is_plain_file(info), lambda: opened.open(info))


def is_plain_file(info: zipfile.ZipInfo) -> bool:
    """Whether a zip's member is a file: no folder, link or device."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
    return not info.is_dir() and kind in (0, stat.S_IFREG)


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    def open_() -> IO[bytes]:
        stream = tar.extractfile(info)
        assert stream is not None  # `_the_one` lets only files through
        return stream

    return _Member(info.name, info.size, info.isreg(), open_)


def _the_one(archive: Path, suffix: str, members: list[_Member]) -> _Member:
    for member in members:
        refuse_unsafe(archive, member.name)
    matching = [member for member in members if member.name.rstrip("/").endswith(suffix)]
    found = [member for member in matching if member.is_file]
    if len(found) == 1:
        return found[0]
    if matching and not found:
        raise DownloadError(f"{archive}: {matching[0].name!r} is a link or a folder, not a file; unpack it by hand")
    listed = found or [member for member in members if member.is_file]
    names = ", ".join(repr(member.name) for member in listed[:_SHOWN])
    names += f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    if found:
        raise DownloadError(
            f"{archive} has {len(found)} members that end in {suffix!r}: {names}; name one more exactly"
        )
    raise DownloadError(f"{archive} has no member that ends in {suffix!r}; it has {names or 'nothing'}")


def _copy(archive: Path, member: _Member, target: Path) -> None:
    if os.path.lexists(target):
        if not _has_content(target, member):
            raise DownloadError(f"{target} is there with other content than in {archive}; move it away")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if member.size > free:
        raise DownloadError(
            f"{target}: it takes {member.size:,} bytes, and the disk lacks {member.size - free:,} of them; "
            "free some space"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with member.open() as source, temporary.open("xb") as stream:
            shutil.copyfileobj(source, stream, _BLOCK)
            stream.flush()
            os.fsync(stream.fileno())
        if temporary.stat().st_size != member.size:
            raise EOFError(f"{member.name!r} is cut short")
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _has_content(target: Path, member: _Member) -> bool:
    if not target.is_file() or target.stat().st_size != member.size:
        return False
    with member.open() as source, target.open("rb") as stream:
        return _digest(source) == _digest(stream)


def _digest(stream: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.digest()


def damaged(archive: Path, error: BaseException) -> DownloadError:
    """The one line for an archive whose reader raised one of `DAMAGE`."""
    reason = str(error) or type(error).__name__
    return DownloadError(f"{archive} can't be unpacked: {reason}; it is damaged, delete it and get it again")
