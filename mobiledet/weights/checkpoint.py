"""Checkpoints: tensors and plain types in one file, checked when read, replaced as a whole when written.

A checkpoint contains the config and the classes, so nothing else is needed to run one, and reading it never runs code
(``weights_only=True``). Writing goes to a temporary file that is flushed to disk and renamed, so a crash or a full
disk leaves the old file whole; the file replaced is kept as ``<stem>.previous.pt``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobiledet.errors import CheckpointError
from mobiledet.utils.files import replacing, sync

logger = logging.getLogger(__name__)

FORMAT = "mobiledet checkpoint"
VERSION = 1

_REMEDY = "copy it again, or name one that mobiledet train wrote, such as best.pt"


def previous_path(path: Path) -> Path:
    """Where the checkpoint that ``path`` replaced is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, payload: Mapping[str, Any], *, keep_previous: bool = False) -> None:
    """Write a checkpoint, all of it or nothing.

    Args:
        path: Where to. Its folder must exist.
        payload: Tensors, numbers, strings, None, and lists and dicts of them.
        keep_previous: Keep the file that is replaced, under :func:`previous_path`.

    Raises:
        CheckpointError: It can't be written; what was there before is untouched.
    """
    content = {"format": FORMAT, "version": VERSION, **payload}
    content["digest"] = _digest(content)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with replacing(path, durable=True) as temporary:
            with buffer.getbuffer() as data:
                temporary.write_bytes(data)
            sync(temporary)  # before the previous file is touched: a full disk may show only here
            if keep_previous and path.exists():
                _keep(path, previous_path(path))
    except OSError as error:
        raise CheckpointError(_why_not_written(path, buffer.tell(), error)) from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU and check it.

    Args:
        path: The file, or a run folder, which stands for its ``best.pt``.

    Raises:
        CheckpointError: It is missing, damaged, foreign, or written by a newer version.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {str(path)!r}{_nearby(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of foreign files, which are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise CheckpointError(f"{path}: no permission to read it") from None
    except Exception:  # a damaged file can make the reader stumble anywhere: IndexError, UnicodeDecodeError, ...
        raise CheckpointError(
            f"{path}: not a checkpoint, or damaged ({path.stat().st_size:,} bytes); {_REMEDY}"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a PyTorch file, but not a checkpoint of mobiledet; {_REMEDY}")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(f"{path}: written by a newer mobiledet (format {version}); update mobiledet")
    if not _is_whole(content):
        raise CheckpointError(f"{path}: damaged, its checksum doesn't match its content; {_REMEDY}")
    return content


def checkpoint_file(path: str | Path) -> Path:
    """The file meant: itself, or the ``best.pt`` of a run folder."""
    path = Path(path)
    return path / "best.pt" if path.is_dir() else path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run folder: ``last.pt``, else the one before it; None when there is none.

    Raises:
        CheckpointError: There are checkpoints but none of them is whole.
    """
    last = folder / "last.pt"
    found = [path for path in (last, previous_path(last)) if path.exists()]
    problems = []
    for path in found:
        try:
            content = load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
            logger.warning("%s", error)
            continue
        if problems:
            logger.warning("continuing from %s", path)
        return content
    if problems:
        raise CheckpointError("no whole checkpoint to resume from: " + "; ".join(problems))
    return None


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether the checksum, which is taken out, is that of the content."""
    try:
        return bool(content.pop("digest", None) == _digest(content))
    except TypeError:  # contains what no checkpoint of ours does
        return False


def _digest(value: object) -> str:
    """SHA-256 of nested plain data and tensors, by content rather than by how it is stored."""
    digest = hashlib.sha256()

    def feed(item: object) -> None:
        if isinstance(item, Tensor):
            digest.update(f"tensor {item.dtype} {tuple(item.shape)}".encode())
            digest.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(item, Mapping):
            digest.update(b"{")
            for key, inner in item.items():
                digest.update(repr(key).encode())
                feed(inner)
            digest.update(b"}")
        elif isinstance(item, list | tuple):
            digest.update(b"[")
            for inner in item:
                feed(inner)
            digest.update(b"]")
        elif item is None or isinstance(item, str | int | float | bool):
            digest.update(repr(item).encode())
        else:
            raise TypeError(f"a checkpoint consists of tensors and plain data, not {type(item).__name__}")

    feed(value)
    return digest.hexdigest()


def _keep(path: Path, previous: Path) -> None:
    """Give ``path`` a second name, so that there is never a moment without a whole file under the first."""
    with replacing(previous) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)  # file systems without hard links


def _why_not_written(path: Path, needed: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        missing = f", {needed - free:,} bytes missing" if free < needed else " (a quota?)"
        kept = "; the checkpoint before it is untouched" if path.exists() else ""
        return f"{path}: the disk is full: {needed:,} bytes needed, {free:,} free{missing}{kept}"
    return f"{path}: can't be written: {error.strerror or error}"


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (no folder {str(folder)!r})"
    names = sorted(p.name for p in folder.glob("*.pt")) or sorted(
        str(p.relative_to(folder)) for p in folder.glob("*/best.pt")
    )
    return f"; in {str(folder)!r} there are {', '.join(names)}" if names else f"; {str(folder)!r} has no checkpoint"
