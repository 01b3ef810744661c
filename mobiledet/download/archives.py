"""Taking files out of archives without trusting the archive: no paths that lead out, no links, no surprises in size."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
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
_SHOWN = 8  # members that a message lists
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


def extract_member(archive: Path, suffix: str, target: Path) -> Path:
    """Write the one member of an archive whose name ends in ``suffix`` to a file.

    The whole of a ``.tar.gz`` is read, so that damage anywhere in it is found. A target that exists and has the same
    content is left as it is.

    Args:
        archive: A ``.tar.gz``, ``.tgz`` or ``.zip`` file; its kind is recognised by its content, not its name.
        suffix: End of the member's name, for example ``"detect.tflite"``.
        target: The file to write; its folder is made.

    Returns:
        ``target``.

    Raises:
        DownloadError: There is no such member or more than one, it is a link, the archive is damaged, or has a member
            whose name leads out of the folder it would be unpacked to; ``target`` exists with other content, or
            can't be written.
    """
    try:
        with _opened(archive) as members:
            member = _only(archive, suffix, members)
            if os.path.lexists(target):
                if not _has_content(target, member):
                    raise DownloadError(f"{target} exists with other content than in {archive}; move it away")
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            check_space(target.parent, member.size, f"{member.name} of {archive.name}")
            with replacing(target, durable=True) as temporary:
                _copy(member, temporary)
    except OSError as error:
        place = error.filename or target
        raise DownloadError(f"{place}: {error.strerror or error}; can't take {suffix!r} out of {archive}") from error
    return target


def extract_folder(archive: Path, folder: str, target: Path, names: Sequence[str], *, progress: bool = True) -> None:
    """Unpack the files of one folder of a zip: the target has all of them or doesn't exist.

    Files unpacked by an earlier, interrupted call are kept if their size and checksum are right.

    Args:
        archive: The zip file.
        folder: Folder in the archive whose files are wanted, without the folders below it.
        target: Folder to make; may exist if it is empty.
        names: Exactly the files that must be in it.
        progress: Show a bar, if standard error is a terminal.

    Raises:
        DownloadError: The archive is damaged, has links or names that lead out of the folder, has other files, or the
            disk is too small.
        OSError: A file can't be written.
    """
    unfinished = partial_folder(target)
    with _opened(archive) as members:
        wanted = _files_of(archive, folder, members, names)
        total = sum(member.size for member in wanted.values())
        unfinished.mkdir(parents=True, exist_ok=True)
        check_space(unfinished, total - sum(file_sizes(unfinished).values()), f"unpacking {archive.name}")
        with bytes_bar(f"unpacking {archive.name}", total, show=progress) as bar:
            for name, member in wanted.items():
                if not _is_unpacked(unfinished / name, member):
                    _copy(member, unfinished / name)
                bar.update(member.size)
    for extra in file_sizes(unfinished).keys() - wanted.keys():  # of another version of the archive
        (unfinished / extra).unlink()
    unfinished.replace(target)


def partial_folder(target: Path) -> Path:
    """Where the files of a folder are until all of them are there."""
    return target.with_name(f".{target.name}.unpacking")


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file directly in a folder, by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_file: bool  # neither a folder nor a link or a device
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
                yield _safe(archive, [_zip_member(opened, info) for info in opened.infolist()])
        elif magic[:2] == b"\x1f\x8b":
            with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
                members = [_tar_member(tar, info) for info in tar.getmembers()]
                while unzipped.read(_BLOCK):  # to the end, where gzip keeps its checksum
                    pass
                yield _safe(archive, members)
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
    return _Member(info.filename, info.file_size, info.is_dir(), is_file, info.CRC, partial(opened.open, info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    # `extractfile` gives None for what isn't a file, and only files are opened.
    open_ = cast("Callable[[], IO[bytes]]", partial(tar.extractfile, info))
    return _Member(info.name, info.size, info.isdir(), info.isreg(), None, open_)


def _safe(archive: Path, members: list[_Member]) -> list[_Member]:
    """The members, if each name stays inside the folder that the archive is unpacked to.

    Raises:
        DownloadError: One is absolute, has ``..`` in it, or a drive or backslashes as on Windows.
    """
    for name in (member.name for member in members):
        if not name or name[0] in "/\\" or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
            raise DownloadError(
                f"{archive} has a member {name!r:.200} that leads out of its folder; nothing was unpacked, "
                "get the archive from its publisher"
            )
    return members


def _only(archive: Path, suffix: str, members: list[_Member]) -> _Member:
    matching = [member for member in members if member.name.rstrip("/").endswith(suffix)]
    found = [member for member in matching if member.is_file]
    if len(found) == 1:
        return found[0]
    if matching and not found:
        raise DownloadError(f"{archive}: {matching[0].name!r} is a link or a folder, not a file; unpack it by hand")
    names = listing([repr(member.name) for member in found or members if member.is_file], _SHOWN)
    if found:
        raise DownloadError(
            f"{archive} has {len(found)} members that end in {suffix!r}: {names}; name one more exactly"
        )
    raise DownloadError(f"{archive} has no member that ends in {suffix!r}; it has {names or 'nothing'}")


def _files_of(archive: Path, folder: str, members: list[_Member], names: Sequence[str]) -> dict[str, _Member]:
    """The files of a folder by name, if they are the ones expected."""
    for member in members:
        if not member.is_folder and not member.is_file:
            raise DownloadError(
                f"{archive} has a link {member.name!r:.200} among its files; nothing was unpacked, get the archive "
                "from its publisher"
            )
    split = [(*member.name.rpartition("/")[::2], member) for member in members]
    files = {name: member for head, name, member in split if head == folder and name}
    missing = [name for name in names if name not in files or not files[name].size]
    if missing:
        raise DownloadError(
            f"{archive} lacks {len(missing)} of the {len(names)} files expected in its folder {folder!r} "
            f"(first: {missing[0]!r:.80}); delete it and get it again"
        )
    if len(files) != len(names):
        raise DownloadError(
            f"{archive} has {len(files)} files in its folder {folder!r}, expected are {len(names)}; delete it and get "
            "it again"
        )
    return files


def _copy(member: _Member, path: Path) -> None:
    with member.open() as source, path.open("wb") as stream:  # zipfile compares the checksum at the end
        shutil.copyfileobj(source, stream, _BLOCK)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} is truncated")


def _has_content(target: Path, member: _Member) -> bool:
    if not target.is_file() or target.stat().st_size != member.size:
        return False
    with member.open() as source, target.open("rb") as stream:
        while block := source.read(_BLOCK):
            if stream.read(len(block)) != block:
                return False
    return True


def _is_unpacked(path: Path, member: _Member) -> bool:
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.checksum
