"""Opening the data a config names, by the readers that check and convert use, COCO folders strictly by default."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mobiledet.data.coco import CocoDataset, load_coco, locate_split, split_names
from mobiledet.data.formats.choose import ImportedDataset, Recognised, read_dataset, recognise
from mobiledet.data.formats.coco import COCO
from mobiledet.data.formats.root import find_root
from mobiledet.data.formats.tree import Tree, split_name
from mobiledet.data.holdout import hold_out
from mobiledet.errors import DataError
from mobiledet.utils.addresses import is_address, without_user
from mobiledet.utils.settings import ReadingConfig

if TYPE_CHECKING:
    from mobiledet.config.schema import DataConfig

logger = logging.getLogger(__name__)


class Splits(NamedTuple):
    """What to train on, and what to score on, if anything."""

    train: CocoDataset
    val: CocoDataset | None


def open_data(config: DataConfig, *, seed: int = 0) -> Splits:
    """The training and validation splits, checked image by image; every fault is reported before training.

    A folder in COCO layout is read strictly: what can't be repaired without guessing is refused. Pascal VOC, YOLO and
    unusual COCO folders are read where they lie; what can't be used of them is skipped and reported. With
    ``data.reading.strict`` all are read strictly, or none.

    The seed decides which images are held out, where the config wants that.

    Raises:
        DataError: they can't be used, or name different classes.
    """
    if is_address(config.root):
        raise DataError(f"{without_user(config.root)} is an address; download the data, and name its folder")
    named = config.train_annotations is not None or config.train_images is not None
    if not named:
        root = find_root(Path(config.root), (config.train_split, config.val_split))
        config = config.model_copy(update={"root": str(root)})
    named = named or config.val_annotations is not None or config.val_images is not None
    splits = (config.train_split, config.val_split or config.train_split)
    found = None if named else _recognise(Path(config.root), splits, config.reading)
    train, val = _as_it_is(config, found) if found is not None else _by_file(config)
    for dataset in (train, val):
        # Repairs of an import are in its own log.
        if dataset is not None and (summary := dataset.report.summary(repairs=found is None)):
            logger.info("in %s:\n%s", dataset.report.source, summary)
    return complete_splits(config, Splits(train, val), seed=seed)


def complete_splits(config: DataConfig, splits: Splits, *, seed: int = 0) -> Splits:
    """The splits with images held out and left out as the config says.

    Raises:
        DataError: nothing is left to train on.
    """
    train, val = splits
    if val is None and config.val_split is not None and config.hold_out is not None:
        train, val = _hold_out_val(config, train, config.hold_out, seed)
    if config.limit is not None:
        train, val = train.first(config.limit), val.first(config.limit) if val is not None else None
    if not len(train.objects()):
        limited = "" if config.limit is None else f"with data.limit={config.limit}, "
        raise DataError(f"{limited}{train.annotation_file} has no boxes; training needs some")
    for role, dataset in (("train", train), ("val", val)):
        if dataset is None:
            logger.info("val: none; the last weights are kept as best.pt")
        else:
            logger.info("%s", dataset.describe(role))
    return Splits(train, val)


def open_split(
    root: Path,
    split: str,
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    reading: ReadingConfig | None = None,
) -> CocoDataset:
    """One split, to be scored, read as `open_data` reads it.

    Raises:
        DataError: it isn't there or can't be used.
    """
    found = None
    if annotations is None and images is None:
        root = find_root(root, (split,))
        found = _recognise(root, (split,), reading)
    if found is None:
        return load_coco(root, split, annotations=annotations, images=images, progress=True, reading=reading)
    return _split(read_dataset(found, progress=True), split)


def open_recorded_split(settings: Mapping[str, Any], split: str) -> CocoDataset:
    """One split of the data a model was trained on, images that its run held out included.

    Args:
        settings: its config, as plain data; empty for a model that records none.
        split: name of the split.

    Raises:
        DataError: it isn't there or can't be used.
    """
    from mobiledet.config import config_from_plain  # loads torch, which other data of an exported model do without

    if not settings:
        raise DataError("the model doesn't say what it was trained on; name a data set with --data")
    config = config_from_plain(settings)
    if config.data.hold_out is not None and split == config.data.val_split:
        val = open_data(config.data, seed=config.seed).val
        if val is not None:
            return val
    return open_split(Path(config.data.root), split, reading=config.data.reading)


def _recognise(root: Path, splits: Sequence[str], reading: ReadingConfig | None) -> Recognised | None:
    """What a folder is, the first of some splits being there; None where `load_coco` is to read it, or to explain.

    It does for splits of other names, and for folders that no format fits.
    """
    if reading is not None and reading.classes_of == "images":
        return recognise(root, reading=reading)
    if _has_split(root, splits[0]):
        if any(split_name(split) != split for split in splits):
            return None
        reading = reading or ReadingConfig()
        strict = reading.model_copy(update={"strict": reading.strict is not False})
        return Recognised(COCO(splits), Tree(root, strict))
    try:
        found = recognise(root, reading=reading)
    except DataError:
        return None
    # A split misspelt in a folder of COCO's layout is a mistake, not another layout.
    mistake = found.format.reads_layout and any(name.startswith(("train", "val", "test")) for name in split_names(root))
    return None if mistake else found


def _split(imported: ImportedDataset, split: str) -> CocoDataset:
    if split not in imported.splits:
        there = ", ".join(imported.splits)
        raise DataError(f"{imported.root} ({imported.format}) has no split {split!r}; it has {there}")
    return imported.splits[split]


def _has_split(root: Path, split: str) -> bool:
    try:
        locate_split(root, split)
    except DataError:
        return False
    return True


def _by_file(config: DataConfig) -> Splits:
    root = Path(config.root)
    train = load_coco(
        root,
        config.train_split,
        annotations=config.train_annotations,
        images=config.train_images,
        require_boxes=True,
        progress=True,
        reading=config.reading,
    )
    if config.val_split is None:
        return Splits(train, None)
    named = config.val_annotations is not None or config.val_images is not None
    if config.hold_out is not None and not named and not _has_split(root, config.val_split):
        return Splits(train, None)
    val = load_coco(
        root,
        config.val_split,
        annotations=config.val_annotations,
        images=config.val_images,
        progress=True,
        reading=config.reading,
    )
    if train.categories != val.categories:
        raise DataError(
            f"{train.annotation_file} and {val.annotation_file} list different categories: "
            f"{', '.join(sorted(set(train.names) ^ set(val.names))) or 'same names, other ids'}; "
            "give both the same list, or convert them: mobiledet convert"
        )
    return Splits(train, val)


def _as_it_is(config: DataConfig, found: Recognised) -> Splits:
    root = Path(config.root)
    imported = read_dataset(found, progress=True)
    for line in imported.log.lines():
        logger.info("%s", line)
    train, val = _split(imported, config.train_split), imported.splits.get(config.val_split or "")
    if config.val_split is not None and val is None and config.hold_out is None:
        raise DataError(
            f"{root} ({imported.format}) has no split {config.val_split!r}, it has {', '.join(imported.splits)}; "
            "keep images apart for it with data.hold_out=0.15, or train without scoring: data.val_split=none"
        )
    return Splits(train, val)


def _hold_out_val(config: DataConfig, train: CocoDataset, share: float, seed: int) -> Splits:
    """The training images divided; all of them to train on where none can be spared."""
    try:
        rest, val = hold_out(train, share, seed)
    except DataError as error:
        logger.warning("%s", error)
        return Splits(train, None)
    logger.info("no split %r: %d of %d training images are held out for it", config.val_split, len(val), len(train))
    return Splits(rest, val)
