"""Unpacking an archive of pictures so that a folder is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from mobiledet.download.archives import DAMAGE, damaged, is_plain_file, refuse_unsafe
from mobiledet.download.bars import bytes_bar
from mobiledet.errors import DownloadError

_BLOCK = 1 << 20  # bytes


def unpack_pictures(archive: Path, folder: str, target: Path, names: Sequence[str], *, progress: bool = True) -> None:
    """Unpack the files of one folder of a zip, check that the named ones are among them, and only then name the folder.

    Files unpacked by an earlier, interrupted call are kept if their size and checksum are right.

    Args:
        archive: the zip file.
        folder: folder in the archive whose files are wanted.
        target: folder to make; may be there if it is empty.
        names: files that must be in it.
        progress: show a bar, if standard error is a terminal.

    Raises:
        DownloadError: the archive is damaged, has links or names that lead out of the folder, lacks files, or the
            disk is too small.
        OSError: a file can't be written.
    """
    partial = partial_folder(target)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened, folder)
            _check_names(archive, folder, {name: info.file_size for name, info in members.items()}, names)
            partial.mkdir(parents=True, exist_ok=True)
            _check_space(archive, sum(info.file_size for info in members.values()) - bytes_below(partial), partial)
            bar = (
                bytes_bar(f"unpacking {archive.name}", sum(i.file_size for i in members.values())) if progress else None
            )
            try:
                for name, info in members.items():
                    _unpack(opened, info, partial / name)
                    if bar is not None:
                        bar.update(info.file_size)
            finally:
                if bar is not None:
                    bar.close()
    except DAMAGE as error:
        raise damaged(archive, error) from error
    for extra in file_sizes(partial).keys() - members.keys():  # of another version of the archive
        (partial / extra).unlink()
    partial.replace(target)


def partial_folder(target: Path) -> Path:
    """Where the files of a folder lie until all of them are there."""
    return target.with_name(f".{target.name}.unpacking")


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file directly in a folder, by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def bytes_below(folder: Path) -> int:
    """Bytes of all files directly in a folder."""
    return sum(file_sizes(folder).values())


def _members(archive: Path, opened: zipfile.ZipFile, folder: str) -> dict[str, zipfile.ZipInfo]:
    """The files of the folder, by name; of the folders below it nothing."""
    members = {}
    for info in opened.infolist():
        refuse_unsafe(archive, info.filename)
        if not info.is_dir() and not is_plain_file(info):
            raise DownloadError(
                f"{archive} has a link {info.filename!r:.200} among its files; nothing was unpacked, get the archive "
                "from its publisher"
            )
        head, _, name = info.filename.rpartition("/")
        if head == folder and name:
            members[name] = info
    return members


def _check_names(archive: Path, folder: str, sizes: dict[str, int], names: Sequence[str]) -> None:
    missing = [name for name in names if not sizes.get(name)]
    if missing:
        raise DownloadError(
            f"{archive} lacks {len(missing)} of the {len(names)} pictures in its folder {folder!r} that the "
            f"annotations name (first: {missing[0]!r:.80}); it is not COCO's, delete it and get it again"
        )
    if len(sizes) != len(names):
        raise DownloadError(
            f"{archive} has {len(sizes)} pictures, the annotations have {len(names)}; it is not COCO's, delete it and "
            "get it again"
        )


def _check_space(archive: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{archive} takes {needed:,} bytes more to unpack, and the disk lacks {needed - free:,} of them; "
            "free some space and start again"
        )


def _unpack(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    if _is_done(path, info):
        return
    with opened.open(info) as source, path.open("wb") as stream:  # its end is where zipfile checks the checksum
        shutil.copyfileobj(source, stream, _BLOCK)


def _is_done(path: Path, info: zipfile.ZipInfo) -> bool:
    try:
        if path.stat().st_size != info.file_size:
            return False
    except FileNotFoundError:
        return False
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == info.CRC
