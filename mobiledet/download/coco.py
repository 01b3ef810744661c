"""COCO 2017: what it consists of, and the steps from nothing to a complete folder.

Each step is skipped where its result is there, so whatever is interrupted continues at the next call.
"""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mobiledet.download.archives import extract
from mobiledet.download.fetch import Remote, fetch
from mobiledet.errors import DownloadError
from mobiledet.utils.files import check_space, locked, replacing
from mobiledet.utils.text import listing

logger = logging.getLogger(__name__)

_STATE = ".coco-download.json"
_HOST = "http://images.cocodataset.org"  # https has a certificate for another name; the checksums make up for it


@dataclass(frozen=True)
class CocoSplit:
    """One split of a release.

    Attributes:
        name: "train" or "val".
        folder: Name of its folder, in the archive and in the data set.
        images: The archive of images.
        count: How many there are.
        annotations_size: Bytes of its json, if known.
    """

    name: str
    folder: str
    images: Remote
    count: int
    annotations_size: int = 0

    @property
    def annotations(self) -> str:
        """Where its json lies, in the archive and in the data set."""
        return f"annotations/instances_{self.folder}.json"


@dataclass(frozen=True)
class CocoRelease:
    """What is to be fetched: one archive of annotations for all splits, one of images for each.

    Attributes:
        name: What to call it in messages.
        annotations: The archive of annotations.
        splits: Its splits, in the order they are fetched.
    """

    name: str
    annotations: Remote
    splits: tuple[CocoSplit, ...]

    def at(self, base_url: str) -> CocoRelease:
        """The same files, with the same checksums, on another server that has them under the same paths."""

        def moved(remote: Remote) -> Remote:
            return replace(remote, url=base_url.rstrip("/") + urlsplit(remote.url).path)

        splits = tuple(replace(split, images=moved(split.images)) for split in self.splits)
        return replace(self, annotations=moved(self.annotations), splits=splits)


COCO_2017 = CocoRelease(
    name="COCO 2017",
    annotations=Remote(
        f"{_HOST}/annotations/annotations_trainval2017.zip", 252_907_541, md5="f4bbac642086de4f52a3fdda2de5fa2c"
    ),
    splits=(
        CocoSplit(
            name="val",
            folder="val2017",
            images=Remote(f"{_HOST}/zips/val2017.zip", 815_585_330, md5="442b8da7639aecaf257c1dceb8ba8c80"),
            count=5_000,
            annotations_size=19_987_840,
        ),
        CocoSplit(
            name="train",
            folder="train2017",
            images=Remote(f"{_HOST}/zips/train2017.zip", 19_336_861_798, md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
            count=118_287,
            annotations_size=469_785_474,
        ),
    ),
)


def download_coco(
    root: Path,
    splits: Sequence[str] = ("val", "train"),
    *,
    release: CocoRelease = COCO_2017,
    keep_archives: bool = False,
    progress: bool = True,
    timeout: float = 20.0,
) -> bool:
    """Make splits of COCO complete in a folder.

    Archives are fetched into ``root`` and deleted once they are unpacked; those that were there before are used and
    kept.

    Args:
        root: The folder; made if need be. What else is in it is left alone.
        splits: Names of the splits.
        release: What to fetch.
        keep_archives: Delete no archive.
        progress: Show bars, if standard error is a terminal.
        timeout: Seconds to wait for a server.

    Returns:
        Whether there was anything to do.

    Raises:
        DownloadError: Something can't be fetched or unpacked, isn't what it should be, doesn't fit on the disk, or
            something else is in its place.
        MissingDependencyError: requests isn't installed.
    """
    known = [split.name for split in release.splits]
    if unknown := [name for name in splits if name not in known]:
        raise DownloadError(f"{release.name} has no split {unknown[0]!r}; it has {listing(known)}")
    wanted = [split for split in release.splits if split.name in splits]
    try:
        if all(_Download(root, release).is_complete(split) for split in wanted):
            return False
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".coco-download.lock", f"{root}: another process is downloading into it; waiting"):
            options = {"progress": progress, "timeout": timeout}
            return _Download(root, release).run(wanted, keep_archives, options)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DownloadError(f"{error.filename or root}: {reason}; correct that, or name another folder") from error


class _Download:
    """The steps, and the notes in the root: which splits were complete, which archives are ours to delete."""

    def __init__(self, root: Path, release: CocoRelease) -> None:
        self.root = root
        self.release = release
        try:
            stored = json.loads((root / _STATE).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            stored = None
        stored = stored if isinstance(stored, dict) else {}
        complete, fetched = stored.get("complete"), stored.get("fetched")
        self._complete: dict[str, object] = complete if isinstance(complete, dict) else {}
        self._ours: list[object] = fetched if isinstance(fetched, list) else []

    def is_complete(self, split: CocoSplit) -> bool:
        """A quick look: the json is the one that was checked, and there are as many images, none of them empty."""
        stamp = self._stamp(split)
        if stamp is None or self._complete.get(split.folder) != stamp:
            return False
        return sum(size > 0 for size in _file_sizes(self.root / split.folder).values()) >= split.count

    def run(self, splits: list[CocoSplit], keep_archives: bool, options: dict[str, Any]) -> bool:
        """Do what is missing; False if that was nothing. ``options`` are for `fetch`."""
        splits = [split for split in splits if not self.is_complete(split)]
        names = {split.name: self._names(split) for split in splits if os.path.lexists(self.root / split.annotations)}
        without_images = [split for split in splits if not self._has_images(split, names.get(split.name))]
        without_json = [split for split in splits if split.name not in names]
        self._check_space(without_json, without_images, keep_archives)
        if without_json:
            jsons = {Path(split.annotations).name: self.root / split.annotations for split in without_json}
            with self._fetched(self.release.annotations, "annotations", keep_archives, options) as archive:
                extract(archive, jsons)
                names |= {split.name: self._names(split) for split in without_json}
        for split in splits:
            # A folder that was there before its json can only be checked now.
            if not self._has_images(split, names[split.name]):
                with self._fetched(split.images, f"{split.name} images", keep_archives, options) as archive:
                    self._unpack(archive, split, names[split.name], options["progress"])
            self._complete[split.folder] = self._stamp(split)
            self._save()
        return bool(without_json or without_images)

    @contextmanager
    def _fetched(self, remote: Remote, what: str, keep: bool, options: dict[str, Any]) -> Iterator[Path]:
        """An archive, which is deleted afterwards unless it was there before or is to be kept."""
        archive = self._archive(remote)
        was_there = os.path.lexists(archive)
        if not was_there:
            logger.info("fetching %s", remote.address)
        fetch(remote, archive, what=f"{self.release.name} {what}", by_hand="then start again", **options)
        if not was_there:  # one that somebody put there is not ours to delete
            self._ours.append(archive.name)
            self._save()
        yield archive
        if archive.name in self._ours:
            if not keep:
                archive.unlink()
            self._ours = [name for name in self._ours if name != archive.name]
            self._save()

    def _unpack(self, archive: Path, split: CocoSplit, names: list[str], progress: bool) -> None:
        """Unpack all images of a split, and only then give their folder its name."""
        folder = self.root / split.folder
        partial = _partial(folder)
        extract(archive, {name: partial / name for name in names}, durable=False, progress=progress)
        if missing := _missing(partial, names):
            raise DownloadError(
                f"{archive}: {len(missing)} of its images are empty (first: {missing[0]!r:.80}); it is not COCO's, "
                "delete it and get it again"
            )
        for extra in _file_sizes(partial).keys() - set(names):  # of another version, or of a process that was killed
            (partial / extra).unlink()
        partial.replace(folder)

    def _archive(self, remote: Remote) -> Path:
        return self.root / urlsplit(remote.url).path.rpartition("/")[2]

    def _stamp(self, split: CocoSplit) -> list[int] | None:
        try:
            stat = (self.root / split.annotations).stat()
        except OSError:
            return None
        return [stat.st_size, stat.st_mtime_ns, split.count]

    def _save(self) -> None:
        with replacing(self.root / _STATE) as temporary:
            temporary.write_text(json.dumps({"complete": self._complete, "fetched": self._ours}), "utf-8")

    def _names(self, split: CocoSplit) -> list[str]:
        """File names of all images, from a json that is checked to be COCO's."""
        path = self.root / split.annotations
        remedy = "move it away to have it fetched, or name another folder"
        names = _file_names(path)
        if names is None:
            raise DownloadError(f"{path} is not a COCO annotation file; {remedy}")
        if len(names) != split.count:
            raise DownloadError(f"{path} has {len(names)} images where {self.release.name} has {split.count}; {remedy}")
        return names

    def _has_images(self, split: CocoSplit, names: list[str] | None) -> bool:
        """Whether the images are there.

        Raises:
            DownloadError: There is something, but not all of them: that isn't ours to repair.
        """
        folder = self.root / split.folder
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return False
        if not folder.is_dir():
            raise DownloadError(f"{folder} is in the way of a folder of images; move it away")
        if missing := _missing(folder, names or []):
            raise DownloadError(
                f"{folder} exists, but {len(missing)} of {split.count} images are missing or empty in it (first: "
                f"{missing[0]!r:.80}); move it away to have it fetched again, or put them there"
            )
        return True

    def _check_space(self, without_json: list[CocoSplit], without_images: list[CocoSplit], keep: bool) -> None:
        """Make sure that the fullest moment fits: an archive and what comes out of it, on top of what came before."""
        steps: list[tuple[Remote, int]] = []
        if without_json:
            steps.append((self.release.annotations, sum(split.annotations_size for split in without_json)))
        for split in without_images:
            unpacked = split.images.size or 0  # zip gains nothing on JPEG
            done = sum(_file_sizes(_partial(self.root / split.folder)).values())
            steps.append((split.images, max(0, unpacked - done)))
        level = peak = 0
        for remote, unpacked in steps:
            archive, size = self._archive(remote), remote.size or 0
            was_there = archive.exists() and archive.name not in self._ours
            level += unpacked + max(0, size - _size(archive) - _size(archive.with_name(f"{archive.name}.part")))
            peak = max(peak, level)
            level -= 0 if was_there or keep else size
        smaller = " (with --split val 2 GB are enough)" if len(without_images) > 1 else ""
        check_space(self.root, peak, f"{self.release.name}, archives and images together,{smaller}")


def _partial(folder: Path) -> Path:
    """Where the files of a folder are until all of them are there."""
    return folder.with_name(f".{folder.name}.unpacking")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file directly in a folder, by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _missing(folder: Path, names: list[str]) -> list[str]:
    """Which of the files are not in a folder, or empty."""
    sizes = _file_sizes(folder)
    return [name for name in names if not sizes.get(name)]


def _file_names(path: Path) -> list[str] | None:
    """File names of the images of a COCO file; None if it isn't one.

    Everything else is dropped while it is read: COCO's training annotations would take gigabytes.
    """

    def reduce(entry: dict[str, object]) -> object:
        return entry if "images" in entry else entry.get("file_name")

    was_enabled = gc.isenabled()
    gc.disable()  # it would walk the growing list over and over
    try:
        parsed = json.loads(path.read_text("utf-8"), object_hook=reduce)
    except (ValueError, RecursionError):
        return None
    finally:
        if was_enabled:
            gc.enable()
    images = parsed.get("images") if isinstance(parsed, dict) else None
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        return None
    return images
