"""Files that are whole or not there: atomic writing, digests, locks, space, run folders, the cache folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mobiledet.errors import DownloadError, MobiledetError, TrainingError
from mobiledet.utils.text import listing, nearest

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # bytes read at a time for a digest
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # answers of some network drives, asked for a lock


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Replace a file as a whole: yields a temporary path beside it, which gets its name at the end.

    After an exception the temporary file is removed and ``path`` is as it was. ``durable`` waits until the content is
    on the disk, so that not even a power cut leaves half a file.
    """
    # A long name plus a suffix may be longer than the file system takes.
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # folders can't be opened there
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole; its folder is made.

    Raises:
        MobiledetError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MobiledetError(f"{path}: can't be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) as a whole; raises as `write_bytes` does. What isn't text, in a name, is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace a JSON file as a whole; raises as `write_bytes` does."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file as a whole; columns are those of all rows, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def file_digest(path: Path, name: str = "sha256") -> str:
    """Checksum of a file in hexadecimal, by the algorithm that `hashlib` calls ``name``."""
    digest = hashlib.new(name, usedforsecurity=False)  # else MD5 is refused where FIPS is on
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
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


def nearby(path: Path) -> str:
    """What lies where a missing file or folder was looked for, as the end of a message."""
    folder = path.parent
    if not folder.is_dir():
        return f": there is no folder {str(folder)!r}"
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    there = f"in {str(folder)!r} there are {listing(names)}" if names else f"{str(folder)!r} is empty"
    near = nearest(path.name, names)
    return f": did you mean {str(folder / near)!r}?" if near else f"; {there}"


def refuse_existing(path: Path | None) -> None:
    """Make sure, before hours of work, that a result can be written and overwrites nothing.

    Raises:
        MobiledetError: The file exists, or its folder is not one or can't be written to.
    """
    if path is None:
        return
    if path.exists():
        raise MobiledetError(f"{path} exists already; name another file, nothing is overwritten")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "no permission to write to it" if folder.is_dir() else "it is a file"
        raise MobiledetError(f"{path}: can't be written below {str(folder)!r}: {problem}; name another file")


def create_run_folder(output: Path, name: str, *, remedy: str = "name another with train.output=FOLDER") -> Path:
    """Make the next free ``<output>/<name>/<number>``.

    Raises:
        TrainingError: The folder can't be made; ``remedy`` says what the user can do.
    """
    parent = output / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            with suppress(FileExistsError):  # another run took it a moment ago
                (parent / str(number)).mkdir()
                return parent / str(number)
            number += 1
    except OSError as error:
        raise TrainingError(f"can't make a run folder in {str(parent)!r}: {error.strerror}; {remedy}") from None


@contextmanager
def locked(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold a lock file for the length of a ``with``; it is removed at the end.

    The system releases the lock of a process that dies. On a drive without locks nothing is locked: going on alone is
    the best there is.

    Args:
        path: The lock file; its folder must exist.
        waiting: What to log, once, while another process or thread holds it; None doesn't wait.

    Raises:
        TimeoutError: Another holds it, and ``waiting`` is None.
        OSError: The file can't be made.
    """
    from filelock import FileLock

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        if waiting is None:
            raise
        logger.info("%s", waiting)
        lock.acquire(poll_interval=0.1)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        with suppress(OSError):  # before it is released, so that nobody else's is removed; Windows removes it itself
            path.unlink()
        lock.release()


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never train into it; the lock is released when the process exits.

    Raises:
        TrainingError: Another process holds it.
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
            with suppress(PermissionError):  # Windows lets nobody write to a locked file
                path.write_text(str(os.getpid()), encoding="utf-8")
            for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it was replacing a file
                leftover.unlink()
        except TimeoutError:
            raise TrainingError(f"{folder}: {_holder(path)} is training into it") from None
        except OSError as error:
            raise TrainingError(f"can't write to run folder {str(folder)!r}: {error.strerror}") from None
        yield


def _holder(lock: Path) -> str:
    try:
        return f"process {int(lock.read_text(encoding='utf-8'))}"
    except (OSError, ValueError):  # it was released or taken this very moment, or Windows lets nobody read it
        return "another process"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Make sure that ``needed`` bytes, of ``what``, fit on the disk of an existing folder.

    Raises:
        DownloadError: They don't; says how many are missing.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{what} needs {needed:,} bytes in {folder}, and its disk lacks {needed - free:,} of them; free some space "
            "or name another folder"
        )
