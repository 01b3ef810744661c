"""Checkpoints: tensors and plain types in one file, checked when read, replaced as a whole when written.

A checkpoint contains the config and the classes, so nothing else is needed to run one, and reading it never runs code
(``weights_only=True``). Nor does it take more time or memory than the file's size explains: only what our own writing
uses is read, and tensors stay on the disk until the checksum is right.

Writing goes to a temporary file that is flushed to disk and renamed, so a crash or a full
disk leaves the old file whole; the file replaced is kept as ``<stem>.previous.pt``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import math
import os
import pickletools
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobiledet.errors import CheckpointError
from mobiledet.utils.files import replacing, sync

logger = logging.getLogger(__name__)

FORMAT = "mobiledet checkpoint"
VERSION = 1

MAX_PICKLE = 1 << 22
"""Bytes of the part that isn't tensors; that of a long run has 150,000."""

MAX_DEPTH = 32
"""Levels of dicts and lists inside each other."""

MAX_TUPLE = 500
"""Values in a tuple and in the tuples inside."""

MAX_INT_BITS = 4096
"""Of a number; longer ones take quadratic time to print."""

_NODE = 16
"""Bytes of a file that every number and list in it accounts for, when there are many."""

_TENSOR_PARTS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
_UNUSED_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}

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
        _check_parts(path)
        # Tensors stay in the file: nothing is reserved for what it only claims to hold.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PermissionError:
        raise CheckpointError(f"{path}: no permission to read it") from None
    except _ForeignError:
        raise CheckpointError(f"{path}: a PyTorch file, but not a checkpoint of mobiledet; {_REMEDY}") from None
    except Exception:  # a damaged file can make the reader stumble anywhere: IndexError, UnicodeDecodeError, ...
        raise CheckpointError(
            f"{path}: not a checkpoint, or damaged ({path.stat().st_size:,} bytes); {_REMEDY}"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a PyTorch file, but not a checkpoint of mobiledet; {_REMEDY}")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(f"{path}: written by a newer mobiledet (format {version}); update mobiledet")
    if not _is_whole(content, path.stat().st_size):
        raise CheckpointError(f"{path}: damaged, its checksum doesn't match its content; {_REMEDY}")
    _take_off_the_disk(content)
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


class _ForeignError(Exception):
    """A PyTorch file with parts that no checkpoint of ours has."""


def _check_parts(path: Path) -> None:
    """Look, without unpickling, at what the file would have PyTorch make.

    Raises:
        _ForeignError: Something else than plain data and dense tensors.
        Exception: It isn't a zip file with one pickle, stored as it is.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        (pickle,) = (entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl")
        if len({entry.filename for entry in entries}) < len(entries) or any(entry.compress_type for entry in entries):
            raise ValueError("packed otherwise than PyTorch does it")
        if pickle.file_size > MAX_PICKLE:
            raise _ForeignError
        stack: list[int | None] = []  # how much is in each tuple, 0 for anything else, None for a mark
        memo: dict[Any, int | None] = {}
        for opcode, argument, _ in pickletools.genops(archive.read(pickle)):
            name = opcode.name
            if opcode.proto > 2 or name in _UNUSED_OPCODES or (name == "GLOBAL" and not _is_known(str(argument))):
                raise _ForeignError
            if name.endswith("PUT"):
                memo[argument] = stack[-1]
            elif name.endswith("GET"):
                stack.append(memo[argument])
            else:
                content = _pop(stack, opcode.stack_before)
                size = 1 + content if "TUPLE" in name else 0
                if size > MAX_TUPLE:  # tuples of tuples can take for ever to become a key of a dict
                    raise _ForeignError
                stack += [None if item is pickletools.markobject else size for item in opcode.stack_after]


def _pop(stack: list[int | None], before: Sequence[pickletools.StackObject]) -> int:
    """Take off the stack what an operation uses; how much is in it."""
    content, count = 0, len(before)
    if pickletools.markobject in before:
        count = before.index(pickletools.markobject)
        while (size := stack.pop()) is not None:
            content += 1 + size
    return content + sum(1 + (stack.pop() or 0) for _ in range(count))


def _is_known(name: str) -> bool:
    module, _, part = name.partition(" ")
    return name in _TENSOR_PARTS or (module == "torch" and part.endswith("Storage") and part.isalnum())


def _is_whole(content: dict[str, Any], size: int) -> bool:
    """Whether the checksum, which is taken out, is that of the content, which ``size`` bytes of a file explain."""
    try:
        return bool(content.pop("digest", None) == _digest(content, 2 * size + (1 << 20)))
    except TypeError:  # contains what no checkpoint of ours does
        return False


def _digest(value: object, most: float = math.inf) -> str:
    """SHA-256 of nested plain data and tensors, by content rather than by how it is stored.

    Raises:
        TypeError: It contains something else, or more than ``most`` bytes: lists can share or contain each other.
    """
    digest = hashlib.sha256()

    def spend(count: int) -> None:
        nonlocal most
        most -= count
        if most < 0:
            raise TypeError("more content than the file has bytes")

    def feed_text(text: str) -> None:
        spend(len(text))
        digest.update(text.encode("utf-8", "surrogatepass"))

    def feed(item: object, depth: int) -> None:
        spend(_NODE)
        if depth > MAX_DEPTH:
            raise TypeError(f"more than {MAX_DEPTH} levels")
        if isinstance(item, Tensor):
            if item.layout is not torch.strided or item.is_meta or item.is_quantized:
                raise TypeError("a checkpoint's tensors are dense")
            spend(item.numel() * item.element_size())
            digest.update(f"tensor {item.dtype} {tuple(item.shape)}".encode())
            digest.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(item, Mapping):
            digest.update(b"{")
            for key, inner in item.items():
                if not isinstance(key, str | int):
                    raise TypeError(f"a checkpoint's keys are text or whole numbers, not {type(key).__name__}")
                feed_text(repr(key))
                feed(inner, depth + 1)
            digest.update(b"}")
        elif isinstance(item, list | tuple):
            digest.update(b"[")
            for inner in item:
                feed(inner, depth + 1)
            digest.update(b"]")
        elif isinstance(item, int) and item.bit_length() > MAX_INT_BITS:
            raise TypeError(f"a number of {item.bit_length()} bits")
        elif item is None or isinstance(item, str | int | float | bool):
            feed_text(repr(item))
        else:
            raise TypeError(f"a checkpoint consists of tensors and plain data, not {type(item).__name__}")

    feed(value, 0)
    return digest.hexdigest()


def _take_off_the_disk(content: Any) -> None:
    """Put copies in the place of all tensors of nested dicts and lists, so that the file isn't needed any longer."""
    for key, inner in list(content.items() if isinstance(content, dict) else enumerate(content)):
        if isinstance(inner, Tensor):
            content[key] = inner.clone()
        elif isinstance(inner, tuple) and inner:
            content[key] = inner = list(inner)
        if isinstance(inner, dict | list):
            _take_off_the_disk(inner)


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
