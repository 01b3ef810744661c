"""From a path or a name to a checkpoint on this machine: found, or fetched and converted once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mobiledet.download.archives import archive_fault, extract
from mobiledet.download.fetch import Remote, fetch
from mobiledet.errors import CheckpointError, DownloadError, MissingDependencyError, MobiledetError
from mobiledet.utils.files import cache_folder, file_digest
from mobiledet.weights.catalogue import PretrainedSource, find_source, suggest_name

logger = logging.getLogger(__name__)

IMPORTED = (".tflite", ".pb", ".safetensors")
"""Endings of the files that :mod:`mobiledet.weights.importing` reads."""

WEIGHTS_VARIABLE = "MOBILEDET_WEIGHTS"
"""Folders (separated like PATH) in which weights files are looked for before anything is fetched."""

MAX_HEADER = 1 << 24
"""Bytes of the header of a safetensors file."""

_CONVERSION = 3
"""Raised when the importers give other weights or settings for the same file, so that old conversions aren't used."""


def resolve_weights(path_or_name: str | Path) -> Path:
    """The checkpoint to use: a file, a run folder (its ``best.pt``), or pretrained weights by name.

    What exists as a file comes first; a name is fetched once and kept.

    Raises:
        CheckpointError: There is no such file and no such name.
        DownloadError: The weights aren't here and can't be fetched.
    """
    from mobiledet.weights.checkpoint import checkpoint_file

    text = str(path_or_name)
    path = checkpoint_file(text)
    if path.exists():
        if path.suffix in IMPORTED:
            raise CheckpointError(
                f"{path}: not a checkpoint yet; convert it first: mobiledet weights import {path} -o weights.pt"
            )
        return path
    source = find_source(text)
    if source is not None:
        return pretrained_checkpoint(source)
    suggestion = suggest_name(text)
    if suggestion and path.suffix == "" and not path.parent.name:
        raise CheckpointError(f"no checkpoint and no pretrained weights {text!r}: {suggestion}")
    return path  # reading it reports what is missing and what is nearby


def pretrained_checkpoint(source: PretrainedSource) -> Path:
    """The converted weights of a source, made on first use.

    Raises:
        MobiledetError: They can't be fetched, read or kept.
    """
    from mobiledet.weights.checkpoint import save_checkpoint  # both load torch, which listing weights doesn't need
    from mobiledet.weights.importing import import_weights

    original = fetch_weights(source)
    digest = file_digest(original)
    folder = cache_folder() / "weights"
    checkpoint = folder / f"{source.name}-{digest[:12]}-{_CONVERSION}.pt"
    if checkpoint.exists():
        return checkpoint
    if source.sha256 is not None and digest != source.sha256:
        logger.warning(
            "%s: %s is not, byte for byte, the file whose score is listed (sha256 %s...)",
            source.name,
            original,
            source.sha256[:12],
        )
    content = import_weights(original, name=source.name)
    content["source"] |= {"name": source.name, "url": source.url, "licence": source.licence}
    content["threshold"] = source.threshold
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobiledetError(
            f"can't keep weights in {str(folder)!r}: {error.strerror}; set MOBILEDET_CACHE to a folder you can write to"
        ) from None
    save_checkpoint(checkpoint, content)
    return checkpoint


def fetch_weights(source: PretrainedSource) -> Path:
    """The publisher's own file: found where the user or an earlier fetch put it, else downloaded.

    Raises:
        DownloadError: It isn't here and can't be fetched.
    """
    found = local_file(source)
    if found is not None:
        return found
    target = cache_folder() / "weights" / source.file_name
    by_hand = f"or set {WEIGHTS_VARIABLE} to a folder with it"
    remote = Remote(source.url, most=source.most_bytes)
    member = source.archive_member
    if member is None:
        return fetch(remote, target, what=source.name, by_hand=by_hand, check=weights_fault)
    archive = target.with_name(source.url.rpartition("/")[2])
    placed_by_hand = archive.exists()
    unpacked = 4 * source.most_bytes
    fetch(remote, archive, what=source.name, by_hand=by_hand, check=lambda path: archive_fault(path, member, unpacked))
    extract(archive, {member: target}, most=unpacked)
    if not placed_by_hand:
        archive.unlink()
    return target


def weights_fault(path: Path) -> str | None:
    """Why a file without a checksum isn't a whole ``.safetensors`` or ``.tflite`` file; None if it may be one."""
    with path.open("rb") as file:
        start = file.read(8)
        if start[4:] == b"TFL3":
            return _tflite_fault(path)
        length = int.from_bytes(start, "little")
        try:
            header = json.loads(file.read(length)) if len(start) == 8 and length < MAX_HEADER else {}
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            ends = []
    if not ends:
        return "it is neither a .safetensors nor a .tflite file"
    whole, size = 8 + length + max(ends), path.stat().st_size
    return None if size == whole else f"it has {size:,} bytes, and by its header {whole:,}"


def _tflite_fault(path: Path) -> str | None:
    from mobiledet.weights.tflite.contents import read_contents
    from mobiledet.weights.tflite.graph import read_tflite

    try:
        read_contents(path.read_bytes())
        read_tflite(path)
    except CheckpointError as error:
        return str(error).removeprefix(f"{path}: ")
    except MissingDependencyError:  # only converting needs it
        pass
    return None


def local_file(source: PretrainedSource) -> Path | None:
    """The publisher's file if it is on this machine: by its name, or for files we know by what is in them."""
    own = [name for name in (source.file_name, source.second_best) if name is not None]
    kept = [cache_folder() / "weights" / name for name in own]
    if (found := next((path for path in kept if path.is_file()), None)) is not None:
        return found
    for folder in _named_folders():
        for name in (*own, source.url.rpartition("/")[2]):
            candidate = folder / name
            if candidate.is_file() and candidate.suffix in IMPORTED:
                return candidate
        if source.sha256 is not None:
            for candidate in sorted(folder.glob("*.tflite")):
                if file_digest(candidate) == source.sha256:
                    return candidate
    return None


def _named_folders() -> Iterator[Path]:
    for text in os.environ.get(WEIGHTS_VARIABLE, "").split(os.pathsep):
        if text:
            folder = Path(text).expanduser()
            if not folder.is_dir():
                raise DownloadError(f"{WEIGHTS_VARIABLE} names {text!r}, which is not a folder; correct or unset it")
            yield folder
