"""Files that are whole or not there: atomic writing, digests, locks, run folders, the cache folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mobiledet.errors import MobiledetError, TrainingError

_BLOCK = 1 << 20
"""Bytes read at a time for a digest."""


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Replace a file as a whole: yields a temporary path beside it, which gets its name at the end.

    After an exception the temporary file is removed and ``path`` is as it was.

    Args:
        path: The file; its folder must exist.
        durable: Wait until the content is on the disk, so that not even a power cut leaves half a file.

    Raises:
        OSError: It can't be written.
    """
    # A long name plus a suffix may be longer than the file system takes.
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable and os.name != "nt":
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole.

    Raises:
        MobiledetError: It can't be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MobiledetError(f"{path}: can't be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) as a whole.

    Raises:
        MobiledetError: It can't be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace a JSON file as a whole.

    Raises:
        MobiledetError: It can't be written.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file as a whole; columns are those of all rows, in order of first appearance.

    Raises:
        MobiledetError: It can't be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def file_digest(path: Path, name: str = "sha256", on_block: Callable[[int], object] | None = None) -> str:
    """Checksum of a file in hexadecimal.

    Args:
        path: The file.
        name: Algorithm, as `hashlib` calls it.
        on_block: Called with the number of bytes after each block read.

    Raises:
        OSError: It can't be read.
    """
    digest = hashlib.new(name, usedforsecurity=False)  # else MD5 is refused where FIPS is on
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            if on_block is not None:
                on_block(len(block))
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where fetched and computed files are kept: ``$MOBILEDET_CACHE``, or ``~/.cache/mobiledet``; may not exist yet.

    Raises:
        MobiledetError: There is no home folder.
    """
    try:
        return Path(os.environ.get("MOBILEDET_CACHE") or Path.home() / ".cache" / "mobiledet")
    except RuntimeError as error:
        raise MobiledetError("there is no home folder for the cache; set MOBILEDET_CACHE to a folder") from error


def refuse_existing(path: Path | None) -> None:
    """Make sure, before hours of work, that a result can be written and overwrites nothing.

    Raises:
        MobiledetError: The file exists, or its folder doesn't.
    """
    if path is None:
        return
    if path.exists():
        raise MobiledetError(f"{path} exists already; name another file, nothing is overwritten")
    if not path.parent.is_dir():
        raise MobiledetError(f"{path}: there is no folder {str(path.parent)!r}; make it, or name another file")
    if not os.access(path.parent, os.W_OK):
        raise MobiledetError(f"{path}: no permission to write to {str(path.parent)!r}; name another file")


def create_run_folder(output: Path, name: str, *, remedy: str = "name another with train.output=FOLDER") -> Path:
    """Make the next free ``<output>/<name>/<number>``.

    Args:
        output: Where runs are kept.
        name: Of this kind of run.
        remedy: What the user can do where it can't be made.

    Raises:
        TrainingError: The folder can't be made.
    """
    parent = output / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            folder = parent / str(number)
            try:
                folder.mkdir()
            except FileExistsError:  # another run took it a moment ago
                number += 1
                continue
            return folder
    except OSError as error:
        raise TrainingError(f"can't make a run folder in {str(parent)!r}: {error.strerror}; {remedy}") from None


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never train into it; the lock is released when the process exits.

    Raises:
        TrainingError: Another process holds it.
    """
    # The process's number stands in a file of its own: whoever tries to take a lock empties the lock's file.
    lock, holder = FileLock(folder / ".lock"), folder / ".pid"
    try:
        lock.acquire(timeout=0)
        holder.write_text(str(os.getpid()), encoding="utf-8")
    except Timeout:
        number = holder.read_text(encoding="utf-8") if holder.is_file() else "?"
        raise TrainingError(f"{folder}: process {number} is training into it") from None
    except (NotImplementedError, OSError) as error:
        # On a network drive without locks, going on alone is the best there is.
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise TrainingError(f"can't write to run folder {str(folder)!r}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
