"""COCO 2017: what it consists of, and the steps from nothing to a complete folder.

Each step is skipped where its result is there, so whatever is interrupted continues at the next call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mobiledet.download.archives import extract
from mobiledet.download.fetch import Remote, fetch
from mobiledet.errors import DownloadError
from mobiledet.utils.files import check_space, locked
from mobiledet.utils.text import listing

logger = logging.getLogger(__name__)

_WORK = ".coco-download"
"""Folder for what is not whole yet: archives that are ours to delete, images while they are unpacked."""

_HOST = "http://images.cocodataset.org"  # https has a certificate for another name; the checksums make up for it


@dataclass(frozen=True)
class CocoSplit:
    """One split of a release.

    Attributes:
        name: "train" or "val".
        folder: Name of its folder, in the archive and in the data set.
        images: The archive of images.
        count: How many there are.
        annotations_size: Bytes of its json.
    """

    name: str
    folder: str
    images: Remote
    count: int
    annotations_size: int

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

    Archives are deleted once they are unpacked; those that the user put into ``root`` are used and kept.

    Args:
        root: The folder; made if need be. What else is in it is left alone.
        splits: Names of the splits.
        release: What to fetch.
        keep_archives: Delete no archive but move it to ``root``.
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
        if not any(_missing(root, wanted)):
            return False
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".coco-download.lock", f"{root}: another process is downloading into it; waiting"):
            without_json, without_images = _missing(root, wanted)  # another process may have done everything
            if not without_json and not without_images:
                return False
            _check_space(root, release, without_json, without_images, keep_archives)
            for folder in (root / _WORK, *(root / _WORK / split.folder for split in wanted)):
                if folder.is_symlink():
                    raise DownloadError(f"{folder} is a link, which mobiledet doesn't make; remove it")
            (root / _WORK).mkdir(exist_ok=True)
            options = {"by_hand": "then start again", "progress": progress, "timeout": timeout}
            if without_json:
                jsons = {Path(split.annotations).name: root / split.annotations for split in without_json}
                what = f"{release.name} annotations"
                with _fetched(root, release.annotations, keep_archives, what=what, **options) as archive:
                    extract(archive, jsons)
            for split in without_images:
                what = f"{release.name} {split.name} images"
                with _fetched(root, split.images, keep_archives, what=what, **options) as archive:
                    _unpack(archive, root, split, progress)
            with suppress(OSError):
                (root / _WORK).rmdir()
            return True
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DownloadError(f"{error.filename or root}: {reason}; correct that, or name another folder") from error


def _missing(root: Path, splits: list[CocoSplit]) -> tuple[list[CocoSplit], list[CocoSplit]]:
    """The splits without their json, and those without their images.

    Raises:
        DownloadError: There is something else in their place, or not all of the images: that isn't ours to repair.
    """
    without_json, without_images = [], []
    for split in splits:
        json, folder = root / split.annotations, root / split.folder
        if not os.path.lexists(json):
            without_json.append(split)
        elif (size := json.stat().st_size) != split.annotations_size:
            raise DownloadError(
                f"{json} is not the release's: it has {size:,} bytes, not {split.annotations_size:,}; move it away to "
                "have it fetched, or name another folder"
            )
        count = sum(size > 0 for size in _sizes(folder))
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            without_images.append(split)
        elif count < split.count:
            raise DownloadError(
                f"{folder} has {count} of {split.count} images, not counting empty files; move it away to have it "
                "fetched again, or put the others there"
            )
    return without_json, without_images


@contextmanager
def _fetched(root: Path, remote: Remote, keep: bool, **options: Any) -> Iterator[Path]:
    """An archive: the user's, which is left alone, or ours, which is deleted afterwards unless it is to be kept."""
    kept = root / remote.file_name
    if os.path.lexists(kept):
        yield fetch(remote, kept, **options)
        return
    logger.info("fetching %s", remote.address)
    archive = fetch(remote, root / _WORK / remote.file_name, **options)
    yield archive
    if keep:
        archive.replace(kept)
    else:
        archive.unlink()


def _unpack(archive: Path, root: Path, split: CocoSplit, progress: bool) -> None:
    """Unpack all images of a split, and only then give their folder its name."""
    partial = root / _WORK / split.folder
    extract(archive, partial, durable=False, progress=progress)
    for leftover in partial.glob(".*.tmp"):  # of a process that was killed
        leftover.unlink()
    if (count := sum(size > 0 for size in _sizes(partial))) != split.count:
        raise DownloadError(
            f"{archive} has {count} images, not counting empty ones, and not {split.count}; it is not the release's, "
            "delete it and download it again"
        )
    partial.replace(root / split.folder)


def _check_space(
    root: Path, release: CocoRelease, without_json: list[CocoSplit], without_images: list[CocoSplit], keep: bool
) -> None:
    """Make sure that the fullest moment fits: all that is unpacked, and the largest archive, or all that are kept."""
    needed = sum(split.annotations_size for split in without_json)
    remotes = [release.annotations] if without_json else []
    for split in without_images:
        needed += (split.images.size or 0) - sum(_sizes(root / _WORK / split.folder))  # zip gains nothing on JPEG
        remotes.append(split.images)
    archives = [remote.size or 0 for remote in remotes if not (root / remote.file_name).exists()]
    needed += (sum(archives) if keep else max(archives, default=0)) - sum(_sizes(root / _WORK))
    smaller = " (with --split val 2 GB are enough)" if len(without_images) > 1 else ""
    check_space(root, max(0, needed), f"{release.name}, archives and images together,{smaller}")


def _sizes(folder: Path) -> list[int]:
    """Bytes of each file directly in a folder; none if there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.stat().st_size for entry in entries if entry.is_file()]
