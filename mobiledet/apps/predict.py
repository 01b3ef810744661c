"""Detections of images and videos, on disk: drawn copies, one JSON of all, and what else was asked for."""

from __future__ import annotations

import contextlib
import glob
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2

from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.data.images import files_below, load_image
from mobiledet.data.videos import VIDEO_EXTENSIONS, read_video
from mobiledet.detections import Detections
from mobiledet.draw.boxes import draw_detections, write_image
from mobiledet.errors import DownloadError, ImageError, ImageFault, MobiledetError, SourceError
from mobiledet.structures import ImageArray
from mobiledet.utils.addresses import file_path, is_address, parse_address, split_user
from mobiledet.utils.files import nearby, refuse_existing, write_json, write_text
from mobiledet.utils.text import safe_file_name

logger = logging.getLogger(__name__)

_VIDEO_FPS = 25.0
"""Frames a second of a drawn video."""


@dataclass(frozen=True)
class Input:
    """One image or video.

    Attributes:
        text: Its path or address, as the user may see it.
        source: What opens it.
        is_video: Whether it has many frames.
    """

    text: str
    source: str | Path
    is_video: bool

    @property
    def name(self) -> str:
        """A file name for what is made of it, without ending."""
        stem = Path(urlsplit(self.text).path if "://" in self.text else self.text).stem
        return safe_file_name(stem) or "stream"


@dataclass(frozen=True)
class PredictOptions:
    """What is written.

    Attributes:
        threshold: Minimum score of what is drawn and written.
        classes: Names of the classes wanted; none for all.
        draw: Write drawn copies.
        labels: Write names and scores beside the boxes.
        line_width: Of the boxes, in pixels; None chooses it by the size of the image.
        crops: Write each object as an image of its own, ``crops/<class>/<image>_<number>.jpg``.
        txt: Write YOLO rows (class from 0, centre, width and height as fractions), ``labels/<image>.txt``.
        results: File for the detections as COCO results.
    """

    threshold: float
    classes: tuple[str, ...] = ()
    draw: bool = True
    labels: bool = True
    line_width: int | None = None
    crops: bool = False
    txt: bool = False
    results: Path | None = None


@dataclass
class PredictionSummary:
    """How many images (or frames) were read, how many detections they have, and what couldn't be read."""

    images: int = 0
    detections: int = 0
    problems: list[str] = field(default_factory=list)


def find_inputs(words: Sequence[str]) -> list[Input]:
    """The images and videos meant by paths, folders, patterns and addresses.

    Args:
        words: Files are taken as they are; folders are searched, with their subfolders, in sorted order; ``*``, ``?``
            and ``**`` are filled in where no file is called so.

    Raises:
        ImageError: A path doesn't exist, a pattern fits nothing, or a folder holds no image and no video.
        SourceError: An address is wrong.
    """
    found: list[Input] = []
    for word in words:
        if is_address(word):
            parse_address(word)  # a wrong one is reported before hours of work on the others
            shown = split_user(word)[1]
            is_image = shown.startswith(("http://", "https://")) and not _is_video(urlsplit(shown).path)
            found.append(Input(shown, word, not is_image))
            continue
        path = file_path(word)
        if path.is_dir():
            inside = files_below(path)
            files = [p for p in inside if p.suffix.lower() in EXTENSIONS | VIDEO_EXTENSIONS]
            if not files:
                raise ImageError(f"{path} holds no image and no video; {len(inside)} other files", ImageFault.MISSING)
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(word, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
            if not files and glob.has_magic(word):
                raise ImageError(f"no file fits {word!r}; correct the pattern", ImageFault.MISSING)
            if not files:
                raise ImageError(f"{path} doesn't exist{nearby(path)}", ImageFault.MISSING)
        found += [Input(str(file), file, _is_video(file)) for file in files]
    return found


def _is_video(path: str | Path) -> bool:
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def write_predictions(
    detect: Callable[[ImageArray], Detections], inputs: Sequence[Input], output: Path, options: PredictOptions
) -> PredictionSummary:
    """Detect objects in every image and frame and write the results.

    Where it ends early, by Ctrl-C or a full disk, ``detections.json`` holds what was found until then.

    Args:
        detect: RGB image to detections.
        inputs: The images and videos.
        output: Folder for all that is written except ``options.results``; made if missing.
        options: What is written.

    Raises:
        MobiledetError: The folder can't be written, or already holds something that would be overwritten.
    """
    refuse_existing(options.results)
    targets = _output_names(inputs, output)
    for path in [output / "detections.json", output / "crops", output / "labels", *targets]:
        if path.exists():
            raise MobiledetError(f"{path} exists already; name another folder with -o, nothing is overwritten")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobiledetError(f"can't make folder {str(output)!r}: {error.strerror}; name another with -o") from None
    writer = _Writer(detect, output, options, _image_ids(inputs))
    try:
        for item, target in zip(inputs, targets, strict=True):
            try:
                writer.write(item, target)
            except (ImageError, SourceError, DownloadError) as error:  # the others are still done
                writer.summary.problems.append(str(error))
    except BaseException:
        # Ctrl-C or a full disk after an hour: what was found until then is the user's.
        if writer.records:
            with contextlib.suppress(MobiledetError):
                writer.finish()
                logger.warning("what was found in %d images until then is in %s", len(writer.records), output)
        raise
    writer.finish()
    return writer.summary


class _Writer:
    """Writes what is found, image by image."""

    def __init__(
        self,
        detect: Callable[[ImageArray], Detections],
        output: Path,
        options: PredictOptions,
        image_ids: Iterator[int],
    ) -> None:
        self.summary = PredictionSummary()
        self.records: list[dict[str, Any]] = []
        self._detect, self._output, self._options, self._image_ids = detect, output, options, image_ids
        self._results: list[dict[str, Any]] = []

    def write(self, item: Input, target: Path) -> None:
        """One image, or every frame of a video."""
        if not item.is_video:
            image_id = next(self._image_ids)
            image = load_image(item.source)
            found = self._record(image, image_id, target.stem, {"file": item.text}, target)
            if self._options.draw:
                write_image(target, self._draw(image, found))
            return
        video: cv2.VideoWriter | None = None
        first_id = next(self._image_ids)
        try:
            for number, (_, frame) in enumerate(read_video(item.source)):
                name = f"{target.stem}_{number:06d}"
                about = {"file": item.text, "frame": number}
                found = self._record(frame, first_id + number, name, about, target)
                if self._options.draw:
                    video = video or _open_video(target, frame)
                    video.write(cv2.cvtColor(self._draw(frame, found), cv2.COLOR_RGB2BGR))
        finally:
            if video is not None:
                video.release()

    def _draw(self, image: ImageArray, found: Detections) -> ImageArray:
        return draw_detections(image, found, labels=self._options.labels, line_width=self._options.line_width)

    def _record(self, image: ImageArray, image_id: int, name: str, about: dict[str, Any], target: Path) -> Detections:
        """Detect, and write everything but the drawn copy."""
        options, (height, width) = self._options, image.shape[:2]
        found = self._detect(image).above(options.threshold)
        if options.classes:
            found = found.of_classes(options.classes)
        self.records.append(
            {
                **about,
                **({"drawn": str(target)} if options.draw else {}),
                "image_id": image_id,
                "height": height,
                "width": width,
                "detections": found.to_json(),
            }
        )
        if options.results is not None:
            self._results += found.to_coco(image_id)
        if options.crops:
            for index, (x1, y1, x2, y2) in enumerate(found.boxes.round().astype(int).tolist()):
                crop = image[max(0, y1) : max(y2, y1 + 1), max(0, x1) : max(x2, x1 + 1)]
                if crop.size:
                    folder = self._output / "crops" / safe_file_name(found.name(index))
                    write_image(folder / f"{name}_{index + 1}.jpg", crop)
        if options.txt:
            rows = [
                f"{label - 1} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
                for (x1, y1, x2, y2), label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
            ]
            write_text(self._output / "labels" / f"{name}.txt", "".join(rows))
        self.summary.images += 1
        self.summary.detections += len(found)
        return found

    def finish(self) -> None:
        """Write the files about all images."""
        write_json(self._output / "detections.json", self.records)
        if self._options.results is not None:
            write_json(self._options.results, self._results)


def _open_video(path: Path, frame: ImageArray) -> cv2.VideoWriter:
    height, width = frame.shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), _VIDEO_FPS, (width, height))
    if not video.isOpened():
        raise MobiledetError(f"{path}: a video can't be written; is there space on the disk?")
    return video


def _image_ids(inputs: Sequence[Input]) -> Iterator[int]:
    """The number in a name, as COCO has it (000000000139.jpg is image 139); others are counted on from there.

    The frames of each video are numbered from a million of its own on.
    """
    numbers = [int(item.name) if item.name.isdecimal() and not item.is_video else None for item in inputs]
    taken = [number for number in numbers if number is not None]
    if len(set(taken)) < len(taken):
        numbers, taken = [None] * len(inputs), []
    free = count(max(taken, default=0) + 1)
    ids = [
        next(free) if number is None and not item.is_video else number
        for number, item in zip(numbers, inputs, strict=True)
    ]
    millions = count(max((number or 0 for number in ids), default=0) // 1_000_000 + 1)
    return iter([next(millions) * 1_000_000 if number is None else number for number in ids])


def _output_names(inputs: Sequence[Input], output: Path) -> list[Path]:
    """A name in ``output`` for each input; images of one name from several folders are numbered."""
    taken: set[Path] = set()
    names = []
    for item in inputs:
        suffix = Path(item.text).suffix
        if item.is_video:
            suffix = ".mp4"
        elif suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp", ".bmp"):
            suffix = ".png"
        candidate, number = output / f"{item.name}{suffix}", 2
        while candidate in taken:
            candidate, number = output / f"{item.name}_{number}{suffix}", number + 1
        taken.add(candidate)
        names.append(candidate)
    return names
