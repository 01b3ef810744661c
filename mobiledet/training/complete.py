"""From a recipe to the settings of one run: what weights and data decide is filled in, once, by one function.

What the user set, in the file or by an override, is known from pydantic's ``model_fields_set``, never guessed from the
value: a setting that equals its default is as explicit as any other.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel

from mobiledet.config import AugmentConfig, Config, ModelConfig, ScheduleConfig
from mobiledet.data.coco import CocoDataset
from mobiledet.errors import ConfigError
from mobiledet.training.teacher import unlabelled_images
from mobiledet.utils.text import mirrored_names
from mobiledet.weights.checkpoint import load_checkpoint
from mobiledet.weights.store import resolve_weights
from mobiledet.weights.transfer import InitialWeights, check_content, read_initial_weights

logger = logging.getLogger(__name__)

LEAST_EPOCHS, MOST_EPOCHS = 8, 100
"""Limits of the epochs that ``schedule.pictures`` chooses."""

MANY_SMALL = 0.1
"""Share of small objects, see `small_objects`, from which ``model.head.fine_map="auto"`` adds that map."""

_PIXEL_SCALE = ("mean", "std")
_INPUT = ("input_size", "resize", "longest_side")

_Settings = TypeVar("_Settings", bound=BaseModel)


def initial_weights(model: ModelConfig) -> InitialWeights | None:
    """What ``model.init`` names, fetched if it isn't here; None where a model starts fresh.

    Raises:
        MobiledetError: it can't be fetched or used.
    """
    if model.init is None:
        return None
    content = load_checkpoint(resolve_weights(model.init))
    check_content(content, model.init)
    return read_initial_weights(content, model.init)


def complete(config: Config, data: CocoDataset, weights: InitialWeights | None = None) -> Config:
    """The recipe with everything filled in that weights and data decide; a pure function.

    Raises:
        ConfigError: recipe, weights and data contradict each other.
    """
    model = complete_model(config.model, data, weights)
    images = len(data) + len(unlabelled_images(config))
    schedule = config.schedule.model_copy(update={"epochs": _epochs(config.schedule, images)})
    settings = config.data.model_copy(update={"augment": _augment(config.data.augment, data.names)})
    config = config.model_copy(update={"model": model, "schedule": schedule, "data": settings})
    if config.train.quantize and config.schedule.patience is not None and config.float_epochs:
        raise ConfigError(
            f"schedule.patience={config.schedule.patience} could end training before train.quantize="
            f"{config.train.quantize} begins; leave one of them out"
        )
    return config


def complete_model(model: ModelConfig, data: CocoDataset, weights: InitialWeights | None = None) -> ModelConfig:
    """The part of `complete` that decides over the network.

    Raises:
        ConfigError: model, weights and data contradict each other.
    """
    model = follow_weights(model, weights) if weights is not None else model
    model = model.model_copy(update={"num_classes": _num_classes(model, data)})
    if model.match_aspect:
        model = model.model_copy(update={"input_size": _matching_size(model, data), "match_aspect": False})
    if getattr(model.head, "fine_map", False) == "auto":
        share = small_objects(model, data)
        fine = share >= MANY_SMALL or (weights is not None and bool(getattr(weights.config.head, "fine_map", False)))
        if fine:
            logger.info(
                "model.head.fine_map added: %.0f %% of the objects are too small for the other maps", 100 * share
            )
        model = model.model_copy(update={"head": model.head.model_copy(update={"fine_map": fine})})
    return model


def small_objects(model: ModelConfig, data: CocoDataset) -> float:
    """Share of objects with less than half of the smallest anchor's area in the network's input, the classes' mean."""
    size = model.network_size
    anchors = torch.cat([places[0, 0] for places in model.head.anchor_maps(size, size)])  # alike at every place
    least = float((anchors[:, 2:] - anchors[:, :2]).prod(dim=1).min()) / 2
    small, total = np.zeros(data.num_classes + 1), np.zeros(data.num_classes + 1)
    for index in range(len(data)):
        row = data[index]
        boxes, labels = (some[~row.target.iscrowd] for some in (row.target.boxes, row.target.labels))
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * (size[0] * size[1] / (row.height * row.width))
        small += np.bincount(labels, areas < least, len(small))
        total += np.bincount(labels, minlength=len(total))
    return float((small[total > 0] / total[total > 0]).mean()) if total.any() else 0.0


def check_quantizable(model: ModelConfig) -> None:
    """Make sure that ``train.quantize`` can imitate the INT8 file of a model.

    Raises:
        ConfigError: It can't.
    """
    if not model.quantizable:
        raise ConfigError(
            f"train.quantize imitates the INT8 rounding of MobileNetV1 with SSD, SSDLite or FPN, not of "
            f"{model.backbone.kind_name} with {model.head.kind}; leave it out"
        )
    if len(set(model.mean)) > 1 or len(set(model.std)) > 1:
        raise ConfigError(
            f"train.quantize needs one mean and one deviation for all colours, as INT8 files do, not model.mean="
            f"{model.mean} and model.std={model.std}; leave it out, or start from other weights"
        )


def follow_weights(model: ModelConfig, weights: InitialWeights) -> ModelConfig:
    """The model's settings with what the weights dictate.

    Weights dictate the backbone's width and padding, the pixel scale, and for the same kind of head its layers, its
    anchors and the input size. An explicit setting wins where the weights can still serve, else it is refused.

    Raises:
        ConfigError: an explicit setting contradicts the weights.
    """
    theirs = weights.config
    if type(model.backbone) is not type(theirs.backbone):
        raise ConfigError(f"{weights.name} is for another backbone than model.backbone; choose other weights")
    backbone = _follow(model.backbone, theirs.backbone, model.backbone.dictated, "model.backbone", weights.name)
    updates: dict[str, Any] = {"backbone": backbone}
    fields: Sequence[str] = _PIXEL_SCALE
    if weights.is_detector and type(model.head) is type(theirs.head):
        fields = (*_PIXEL_SCALE, *_INPUT)
        dictated, flexible = model.head.dictated, model.head.flexible
        updates["head"] = _follow(model.head, theirs.head, dictated, "model.head", weights.name, flexible)
    followed = _follow(model, theirs, fields, "model", weights.name, flexible=_INPUT)
    return followed.model_copy(update=updates)


def _follow(
    ours: _Settings, theirs: BaseModel, fields: Sequence[str], prefix: str, source: str, flexible: Collection[str] = ()
) -> _Settings:
    """``ours`` with the fields that it doesn't set taken from ``theirs``."""
    updates = {}
    for name in fields:
        mine, yours = getattr(ours, name), getattr(theirs, name)
        if name not in ours.model_fields_set:
            updates[name] = yours
        elif mine != yours and name not in flexible:
            raise ConfigError(
                f"{prefix}.{name} is {mine}, but {source} has {yours}; leave it out, or choose other weights"
            )
    return ours.model_copy(update=updates)


def _num_classes(model: ModelConfig, data: CocoDataset) -> int:
    if model.num_classes not in (None, data.num_classes):
        raise ConfigError(
            f"model.num_classes is {model.num_classes} but {data.annotation_file} has {data.num_classes} categories; "
            "leave it out, it comes from the data"
        )
    return data.num_classes


def _matching_size(model: ModelConfig, data: CocoDataset) -> tuple[int, int]:
    """``model.input_size`` in the shape of the images, with about as many pixels, and so at about the same cost.

    The median shape counts, but nothing thinner than 2:1: a set of wide and tall images gets a square.
    """
    aspects = [data[index].width / data[index].height for index in range(len(data))]
    aspect = min(max(statistics.median(aspects), 0.5), 2.0)
    pixels = model.input_size[0] * model.input_size[1]
    height, width = (max(32, 16 * round(side / 16)) for side in ((pixels / aspect) ** 0.5, (pixels * aspect) ** 0.5))
    return height, width


def _augment(augment: AugmentConfig, names: Sequence[str]) -> AugmentConfig:
    """Without mirroring where that would make another class of an object, unless the recipe asks for it."""
    pairs = mirrored_names(names)
    if not pairs or not augment.flip or "flip" in augment.model_fields_set:
        return augment
    one, other = pairs[0]
    logger.info(
        "images aren't mirrored: %r is %r in a mirror; data.augment.flip=%g mirrors them all the same",
        one,
        other,
        augment.flip,
    )
    return augment.model_copy(update={"flip": 0.0})


def _epochs(schedule: ScheduleConfig, count: int) -> int:
    """The recipe's epochs, or so many that about ``schedule.pictures`` of ``count`` images are seen.

    Few images are seen more often, but not without end: from the hundredth time on they are only overfitted. Of many,
    each is seen at least 8 times.
    """
    if schedule.epochs is not None:
        return schedule.epochs
    wanted = max(1, round(schedule.pictures / max(1, count)))
    epochs = min(max(wanted, LEAST_EPOCHS), MOST_EPOCHS)
    if epochs != wanted:
        logger.info(
            "schedule.pictures=%d and %d images: %d epochs instead of %d, because it chooses %d to %d; "
            "schedule.epochs=%d lifts that",
            schedule.pictures,
            count,
            epochs,
            wanted,
            LEAST_EPOCHS,
            MOST_EPOCHS,
            wanted,
        )
    return epochs
