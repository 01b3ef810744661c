"""The steps from nothing to a complete folder; whatever is interrupted goes on at the next call."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mobiledet.download.archives import extract_member
from mobiledet.download.coco_release import COCO_2017, CocoRelease, CocoSplit
from mobiledet.download.coco_state import State
from mobiledet.download.coco_unpacking import bytes_below, file_sizes, partial_folder, unpack_pictures
from mobiledet.download.fetch import fetch
from mobiledet.download.locks import locked
from mobiledet.download.remote import Remote
from mobiledet.errors import DownloadError

logger = logging.getLogger(__name__)


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
        root: the folder; made if need be. What else is in it is left alone.
        splits: names of the splits.
        release: what to fetch.
        keep_archives: delete no archive.
        progress: show bars, if standard error is a terminal.
        timeout: seconds to wait for a server.

    Returns:
        Whether there was anything to do.

    Raises:
        DownloadError: something can't be fetched or unpacked, isn't what it should be, doesn't fit on the disk, or
            something else is in its place.
        MissingDependencyError: requests isn't installed.
    """
    known = [split.name for split in release.splits]
    if unknown := [name for name in splits if name not in known]:
        raise DownloadError(f"{release.name} has no split {unknown[0]!r}; it has {', '.join(known)}")
    wanted = [split for split in release.splits if split.name in splits]
    root = Path(root)
    try:
        if all(State(root).says_complete(split) for split in wanted):
            return False
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".coco-download.lock", f"{root}: another process is at it; waiting"):
            work = _Work(root, release, keep_archives=keep_archives, progress=progress, timeout=timeout)
            return work.complete(wanted)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DownloadError(f"{error.filename or root}: {reason}; correct that, or name another folder") from error


class _Work:
    """The steps from nothing to a complete folder; each one is skipped where its result is there."""

    def __init__(
        self, root: Path, release: CocoRelease, *, keep_archives: bool, progress: bool, timeout: float
    ) -> None:
        self.root = root
        self.release = release
        self.state = State(root)
        self.keep_archives = keep_archives
        self.progress = progress
        self.timeout = timeout

    def complete(self, splits: list[CocoSplit]) -> bool:
        """Do what is missing; False if that was nothing."""
        splits = [split for split in splits if not self.state.says_complete(split)]
        names = {split.name: self._names(split) for split in splits if os.path.lexists(self.root / split.annotations)}
        without_pictures = [split for split in splits if not self._has_pictures(split, names.get(split.name))]
        without_json = [split for split in splits if split.name not in names]
        self._check_space(without_json, without_pictures)
        if without_json:
            archive = self._fetch(self.release.annotations, "annotations")
            for split in without_json:
                target = self.root / split.annotations
                extract_member(archive, split.annotations, target)
                names[split.name] = self._names(split)
            self._clear(archive)
        for split in splits:
            # A folder that was there before its json did can only be judged now.
            if not self._has_pictures(split, names[split.name]):
                archive = self._fetch(split.pictures, f"{split.name} pictures")
                unpack_pictures(
                    archive, split.folder, self.root / split.folder, names[split.name], progress=self.progress
                )
                self._clear(archive)
            self.state.note_complete(split)
        return bool(without_json or without_pictures)

    def _fetch(self, remote: Remote, what: str) -> Path:
        archive = self._archive(remote)
        was_there = os.path.lexists(archive)
        if not was_there:
            logger.info("fetching %s", remote.address)
        fetch(
            remote,
            archive,
            what=f"{self.release.name} {what}",
            by_hand="then start again",
            timeout=self.timeout,
            progress=self.progress,
        )
        if not was_there:  # one that somebody put there is not ours to delete
            self.state.note_ours(archive, True)
        return archive

    def _archive(self, remote: Remote) -> Path:
        return self.root / urlsplit(remote.url).path.rpartition("/")[2]

    def _clear(self, archive: Path) -> None:
        if self.state.is_ours(archive):
            if not self.keep_archives:
                archive.unlink()
            self.state.note_ours(archive, False)

    def _names(self, split: CocoSplit) -> list[str]:
        """File names of all pictures, from a json that is checked to be COCO's."""
        path = self.root / split.annotations
        remedy = "move it away to have it fetched, or name another folder"
        names = _file_names(path)
        if names is None:
            raise DownloadError(f"{path} is not a COCO annotation file; {remedy}")
        if len(names) != split.count:
            raise DownloadError(
                f"{path} has {len(names)} pictures where {self.release.name} has {split.count}; {remedy}"
            )
        return names

    def _has_pictures(self, split: CocoSplit, names: list[str] | None) -> bool:
        """Whether the pictures are there.

        Raises:
            DownloadError: there is something, but not all of them: that isn't ours to mend.
        """
        folder = self.root / split.folder
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return False
        if not folder.is_dir():
            raise DownloadError(f"{folder} is in the way of a folder of pictures; move it away")
        if names is None:
            return True
        sizes = file_sizes(folder)
        missing = [name for name in names if not sizes.get(name)]
        if missing:
            raise DownloadError(
                f"{folder} is there, but {len(missing)} of the {len(names)} pictures are missing or empty in it "
                f"(first: {missing[0]!r:.80}); move it away to have it fetched anew, or put them there"
            )
        return True

    def _check_space(self, without_json: list[CocoSplit], without_pictures: list[CocoSplit]) -> None:
        """Make sure that the fullest moment fits: an archive and what comes out of it, on top of what came before."""
        steps: list[tuple[Remote, int]] = []
        if without_json:
            steps.append((self.release.annotations, sum(split.annotations_size or 0 for split in without_json)))
        for split in without_pictures:
            unpacked = split.pictures.size or 0  # zip gains nothing on JPEG
            steps.append((split.pictures, max(0, unpacked - bytes_below(partial_folder(self.root / split.folder)))))
        level = peak = 0
        for remote, unpacked in steps:
            archive, size = self._archive(remote), remote.size or 0
            was_there = archive.exists() and not self.state.is_ours(archive)
            level += unpacked + max(0, size - _size(archive) - _size(archive.with_name(f"{archive.name}.part")))
            peak = max(peak, level)
            level -= 0 if was_there or self.keep_archives else size
        free = shutil.disk_usage(self.root).free
        if peak > free:
            smaller = "; --split val alone takes 2 GB" if len(without_pictures) > 1 else ""
            raise DownloadError(
                f"{self.release.name} takes {peak:,} bytes more in {self.root}, archives and pictures together, and "
                f"the disk lacks {peak - free:,} of them; free some space or name another folder{smaller}"
            )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _file_names(path: Path) -> list[str] | None:
    """File names of the images of a COCO file; None if it is none.

    Everything else is let go while it is read: COCO's training annotations would take gigabytes.
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
