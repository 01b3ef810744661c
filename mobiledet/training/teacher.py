"""Distillation (Hinton et al. 2015; Howard et al. 2017, section 4.5): a teacher's detections are a student's targets.

A teacher is any detector that runs here: a checkpoint of another width, input or head, an export, NanoDet-Plus.
It looks at every image once, before training, as it is; the student sees its boxes and class scores augmented as labels
are. So a large teacher costs one pass over the images, and the two networks need nothing in common but class names.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import albumentations as A
import numpy as np

from mobiledet.data.coco import CocoDataset, ImageRecord
from mobiledet.data.images import find_images, read_image
from mobiledet.detections import Detections
from mobiledet.errors import CheckpointError, ConfigError, DataError, ImageError
from mobiledet.evaluation.predictions import match_categories
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.runtime.detector import Detector
from mobiledet.structures import FloatArray, ImageArray, Target
from mobiledet.training.hooks import Hooks
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import count, listing

if TYPE_CHECKING:
    from mobiledet.config import Config

logger = logging.getLogger(__name__)

TEACHER_FILE = "teacher.npz"
"""File of a run folder: what the teacher found, which a resume reads again."""

LEAST_SCORE = 0.1
"""A box that scores less in every class isn't taught: anchors there learn what background looks like."""

SAME_IOU = 0.55
"""Boxes that overlap more, of any classes and teachers, are one object."""

BATCH = 16


@dataclass(frozen=True)
class TaughtImages:
    """The labelled images, and behind them the unlabelled ones, with the targets that labels and teacher give.

    Attributes:
        train: The labelled images.
        unlabelled: The files of the others.
        sizes: ``(height, width)`` of those.
        targets: Of all of them, with ``scores``.
    """

    train: CocoDataset
    unlabelled: Sequence[Path]
    sizes: Sequence[tuple[int, int]]
    targets: Sequence[Target]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> ImageRecord:
        """The image at ``index``; not read, only described. Unlabelled ones have ids -1, -2 and so on."""
        extra = index - len(self.train)
        if extra >= 0:
            return ImageRecord(-1 - extra, self.unlabelled[extra], *self.sizes[extra], self.targets[index], True)
        return replace(self.train[index], target=self.targets[index])

    def read(self, index: int) -> ImageArray:
        """The image at ``index``, ``(height, width, 3)`` uint8 RGB.

        Raises:
            ImageError: it can't be read any more.
        """
        extra = index - len(self.train)
        return read_image(self.unlabelled[extra]) if extra >= 0 else self.train.read(index)


def unlabelled_images(config: Config) -> list[Path]:
    """The files that ``data.unlabelled`` means.

    Raises:
        ConfigError: There is no teacher to label them.
        ImageError: The folder isn't there or holds no image.
    """
    if config.data.unlabelled is None:
        return []
    if not config.train.teacher:
        raise ConfigError("data.unlabelled needs train.teacher=CHECKPOINT, which finds what is in the images")
    return find_images([Path(config.data.unlabelled)])


def check_augmentation(config: Config, hooks: Hooks | None) -> None:
    """Make sure that a teacher's scores follow their boxes through an augmentation of one's own.

    Raises:
        ConfigError: It is a function, of whose boxes nobody knows which they were.
    """
    own = None if hooks is None else hooks.augment
    if config.train.teacher and own is not None and not isinstance(own, A.Compose | Sequence):
        raise ConfigError("an augmentation that is a function loses a teacher's scores; give it as transforms")


def ask_teacher(config: Config, train: CocoDataset) -> bytes:
    """Have the teachers look at all images; gives what they found, as `TEACHER_FILE` keeps it.

    Raises:
        ConfigError: One doesn't know a class, and there are images that it alone labels.
        MobiledetError: One can't be opened, or shares no class with the labels, or a labelled image can't be read.
    """
    started, unlabelled, teachers = time.monotonic(), unlabelled_images(config), config.train.teachers
    detectors = [Detector(name, threads=config.train.threads, score_threshold=LEAST_SCORE / 2) for name in teachers]
    columns = [
        _columns(name, list(detector.names), train, needed=bool(unlabelled))
        for name, detector in zip(teachers, detectors, strict=True)
    ]
    readers = [
        *(partial(train.read, index) for index in range(len(train))),
        *(partial(read_image, p) for p in unlabelled),
    ]
    targets: list[Target] = []
    extra: list[tuple[str, int, int, int]] = []
    broken: list[str] = []
    bar = progress_bar(range(0, len(readers), BATCH), what="asking the teacher", unit="batch")
    for start in bar:
        images: list[ImageArray] = []
        for index, read in enumerate(readers[start : start + BATCH], start=start):
            try:
                images.append(read())
            except ImageError as error:
                if index < len(train):
                    raise DataError(str(error)) from None
                broken.append(str(error))
                continue
            if index >= len(train):
                path = unlabelled[index - len(train)]
                extra.append((str(path), *images[-1].shape[:2], path.stat().st_size))
        answers = [detector(images) for detector in detectors]
        for one in zip(*answers, strict=True):
            boxes, scores = merge(one, columns, train.num_classes)
            if len(targets) < len(train):
                labels = train[len(targets)].target
                targets.append(teach(labels, boxes, scores, config.train.teacher_weight))
            else:
                targets.append(_unlabelled_target(boxes, scores))
    if broken:
        logger.warning("%s skipped: %s", count(len(broken), "unlabelled image"), listing(broken, 3, "; "))
    logger.info(
        "teacher: %s found %s in %s, %d of them unlabelled, in %.0f s",
        listing(teachers),
        count(sum(map(len, targets)), "object"),
        count(len(targets), "image"),
        len(extra),
        time.monotonic() - started,
    )
    return _packed(targets, extra)


def taught_images(train: CocoDataset, file: Path) -> TaughtImages:
    """The images with what `ask_teacher` kept in ``file``.

    Raises:
        CheckpointError: It is damaged, or unlabelled images aren't what they were.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            parts = {name: content[name] for name in content.files}
        ends = parts["ends"].tolist()
        rows = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        targets = [Target(*(parts[name][row] for name in ("boxes", "labels", "iscrowd", "scores"))) for row in rows]
        files = [Path(name) for name in parts["files"].tolist()]
        sizes = [(int(height), int(width)) for height, width in parts["sizes"]]
        changed = [path for path, size in zip(files, parts["bytes"], strict=True) if path.stat().st_size != size]
    except (OSError, ValueError, LookupError) as error:
        raise CheckpointError(f"{file}: what the teacher found can't be used any more: {error}") from None
    if changed or len(targets) != len(train) + len(files):
        what = f"{changed[0]} is another image now" if changed else "the labelled images are others"
        raise CheckpointError(f"{file}: {what}; restore what was there, or start a new run")
    return TaughtImages(train, files, sizes, targets)


def merge(
    answers: Sequence[Detections], columns: Sequence[Sequence[int]], num_classes: int
) -> tuple[FloatArray, FloatArray]:
    """What several teachers found in one image, box by box.

    Boxes that overlap the best one left are one object with it. Its box is the mean of each teacher's best, weighted
    by their scores; its score in a class is the mean of what each teacher gives it, 0 where one finds nothing.

    Args:
        answers: Each teacher's detections, in pixels of the image.
        columns: For each teacher the student's class, counted from 0, of each of its own, -1 where there is none.
        num_classes: K of the student.

    Returns:
        Boxes ``(N, 4)`` and scores ``(N, K)``, of which one at least reaches `LEAST_SCORE`.
    """
    known = [[column[label - 1] for label in one.labels] for one, column in zip(answers, columns, strict=True)]
    boxes = np.concatenate([one.boxes for one in answers])
    scores = np.concatenate([one.scores for one in answers])
    classes = np.concatenate([np.asarray(one, np.int64) for one in known])
    teacher = np.repeat(np.arange(len(answers)), [len(one) for one in answers])
    order = np.argsort(-scores, kind="stable")
    order = order[classes[order] >= 0]
    found_boxes, found_scores = [], []
    while len(order):
        best = order[0]
        same = pairwise_iou(boxes[best][None], boxes[order])[0] > SAME_IOU
        same[0] = True
        members, order = order[same], order[~same]
        vector = np.zeros((len(answers), num_classes), np.float32)
        np.maximum.at(vector, (teacher[members], classes[members]), scores[members])
        firsts = members[np.unique(teacher[members], return_index=True)[1]]  # the best of each teacher
        if (mean := vector.mean(axis=0)).max() >= LEAST_SCORE:
            found_scores.append(mean)
            found_boxes.append(np.average(boxes[firsts], axis=0, weights=scores[firsts]))
    return (
        np.asarray(found_boxes, np.float32).reshape(-1, 4),
        np.asarray(found_scores, np.float32).reshape(-1, num_classes),
    )


def teach(target: Target, boxes: FloatArray, scores: FloatArray, weight: float) -> Target:
    """Labels and what a teacher found, joined: scores are (1 - weight) times the label's plus weight times its own.

    A labelled object keeps its box, and where the teacher doesn't find it, its score of 1; what only the teacher finds
    is added with its weighted scores.

    Args:
        target: The labels.
        boxes: ``(N, 4)`` of the teacher, in the same pixels.
        scores: ``(N, K)`` of those.
        weight: Of the teacher, in 0..1.
    """
    soft = np.eye(scores.shape[1], dtype=np.float32)[target.labels - 1]
    iou = pairwise_iou(target.boxes, boxes)
    if iou.size:
        best, found = iou.argmax(axis=1), iou.max(axis=1) > SAME_IOU
        soft[found] = (1 - weight) * soft[found] + weight * scores[best[found]]
    alone = (weight * scores.max(axis=1, initial=0) >= LEAST_SCORE) & ~(iou > SAME_IOU).any(axis=0)
    labelled = Target(target.boxes, target.labels, target.iscrowd, soft)
    return Target.joined([labelled, _unlabelled_target(boxes[alone], weight * scores[alone])])


def _unlabelled_target(boxes: FloatArray, scores: FloatArray) -> Target:
    return Target(boxes, scores.argmax(axis=1).astype(np.int64) + 1, np.zeros(len(boxes), np.bool_), scores)


def _columns(teacher: str, names: Sequence[str], train: CocoDataset, *, needed: bool) -> list[int]:
    """The student's class, counted from 0, of each of a teacher's, -1 where it has none; ``needed`` are all of them."""
    numbers = {category.id: index for index, category in enumerate(train.categories)}
    columns = [-1 if key is None else numbers[key] for key in match_categories(names, train.categories)]
    missing = [own for index, own in enumerate(train.names) if index not in columns]
    if missing and needed:
        raise ConfigError(
            f"{teacher} doesn't know {listing(missing)}, so unlabelled images would teach that there are none; leave "
            "data.unlabelled out, or take a teacher that knows all classes"
        )
    return columns


def _packed(targets: Sequence[Target], extra: Sequence[tuple[str, int, int, int]]) -> bytes:
    everything, content = Target.joined(targets), io.BytesIO()
    assert everything.scores is not None
    np.savez_compressed(
        content,
        boxes=everything.boxes,
        labels=everything.labels,
        iscrowd=everything.iscrowd,
        scores=everything.scores,
        ends=np.cumsum([len(target) for target in targets]),
        files=np.array([name for name, *_ in extra], np.str_),
        sizes=np.array([size for _, *size, _ in extra], np.int64).reshape(-1, 2),
        bytes=np.array([length for *_, length in extra], np.int64),
    )
    return content.getvalue()
