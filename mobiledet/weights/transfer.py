"""Weights of one detector, or of an ImageNet classifier, as the start of another: what fits is loaded, and reported.

Predictors are rebuilt for the new classes; a class whose name the old model knows keeps its rows, any other one starts
from the mean of all, which knows what an object is: worth a point of AP after a short tuning. Which settings follow
the weights is decided in :mod:`mobiledet.training.complete`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mobiledet.config import ModelConfig, config_from_plain
from mobiledet.errors import CheckpointError
from mobiledet.models.base import ClassRows
from mobiledet.models.build import build_detector
from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.quantization import imitate_int8
from mobiledet.utils.text import clean_name
from mobiledet.weights.imagenet import KIND, ImageNetBackbone

_SECOND_STAGE = "head.second_stage."
_HEAD = "head."


@dataclass(frozen=True)
class InitialWeights:
    """What a model starts from.

    Attributes:
        name: As the user gave it.
        config: The model they come from; for an ImageNet backbone only its backbone and pixel scale count.
        state: Weights, named as in :class:`DetectionModel`.
        names: Classes they know; none for a backbone.
        folded: Whether batch-norm was folded into them.
    """

    name: str
    config: ModelConfig
    state: Mapping[str, Tensor]
    names: tuple[str, ...]
    folded: bool

    @property
    def is_detector(self) -> bool:
        """Whether there is a head to take over, too."""
        return bool(self.names)


@dataclass
class Transfer:
    """What became of the weights.

    Attributes:
        source: Their name.
        rows: (part, what became of it), for people.
        carried: New classes that kept the rows of a class of the same name.
        averaged: New classes that start from the mean of all old ones.
        loaded: Names of the new model's tensors that now hold old weights.
    """

    source: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    carried: tuple[str, ...] = ()
    averaged: tuple[str, ...] = ()
    loaded: set[str] = field(default_factory=set)

    def table(self) -> str:
        """The rows as a short table."""
        width = max(len(part) for part, _ in self.rows)
        return "\n".join([f"weights from {self.source}:", *(f"  {part:<{width}}  {what}" for part, what in self.rows)])


def read_initial_weights(content: Mapping[str, Any], name: str) -> InitialWeights:
    """The weights of a checkpoint's content, averaged ones first.

    Raises:
        CheckpointError: it holds neither a detector nor a backbone.
    """
    if content.get("kind") == KIND:
        # Norms re-estimated on the training images are the better start (docs/pretrained.md).
        backbone = ImageNetBackbone.from_payload(content).fold()
        config = ModelConfig(backbone=backbone.config, mean=backbone.mean, std=backbone.std)
        state = {f"backbone.{key}": tensor for key, tensor in backbone.state.items()}
        return InitialWeights(name, config, state, (), backbone.folded)
    if "config" not in content:
        raise CheckpointError(
            f"{name}: neither a detector nor a backbone; name a checkpoint, or see mobiledet weights list"
        )
    return InitialWeights(
        name,
        config_from_plain(content["config"]).model,
        content["ema"] or content["model"],
        tuple(clean_name(category["name"]) for category in content["categories"]),
        bool(content.get("folded", False)),
    )


def check_content(content: Mapping[str, Any], name: str) -> None:
    """Make sure, before anything is built, that a checkpoint's settings, classes and weights belong together.

    Raises:
        CheckpointError: They aren't what this version writes, or the weights have other shapes than the settings say.
        ConfigError: A setting is unknown or has a value that can't be.
    """
    state = content.get("ema") or content.get("model")
    try:
        build: Callable[[], nn.Module]
        if content.get("kind") == KIND:
            backbone = ImageNetBackbone.from_payload(content)
            ModelConfig(backbone=backbone.config, mean=backbone.mean, std=backbone.std)
            build = backbone.config.build_part
        elif "config" in content:
            config, threshold = config_from_plain(content["config"]).model, content.get("threshold")
            classes = [(category["id"], category["name"]) for category in content["categories"]]
            if {(type(number), type(text)) for number, text in classes} - {(int, str)}:
                raise ValueError("classes without a number and a name")
            if len(classes) != config.num_classes:
                raise ValueError(f"{len(classes)} classes, but model.num_classes is {config.num_classes}")
            if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1):
                raise ValueError(f"the threshold is {threshold!r:.40}")
            build = partial(build_detector, config, weights_follow=True)
        else:
            return
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("no weights")
        with torch.device("meta"):  # shapes without values take no memory, whatever the settings say
            model = build()
        imitate_int8(model, content.get("ranges"))
        wanted = model.state_dict()
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{name}: its content is not what mobiledet writes: {why:.200}") from None
    for key in sorted(wanted.keys() | state.keys()):
        one, other = (tuple(tensors[key].shape) if key in tensors else None for tensors in (state, wanted))
        if one != other:
            raise CheckpointError(f"{name}: its weights don't fit its config: {key} is {one}, not {other}")


def load_into(model: DetectionModel, weights: InitialWeights, names: Sequence[str]) -> Transfer:
    """Load weights into a model built from the completed config.

    The model's own weights stay wherever none fit; ``names`` are its K classes.
    """
    state = model.state_dict()
    known = {normalized(name): index for index, name in enumerate(weights.names)}
    sources = [known.get(normalized(name)) for name in names]
    transfer = Transfer(
        weights.name,
        carried=tuple(name for name, row in zip(names, sources, strict=True) if row is not None),
        averaged=tuple(name for name, row in zip(names, sources, strict=True) if row is None),
    )
    used = set()
    class_rows = {f"{_HEAD}{name}": rows for name, rows in model.head.class_rows().items()}
    parts = {"backbone": "backbone.", **{part: f"{_HEAD}{prefix}" for part, prefix in model.head.parts.items()}}
    for part, prefix in parts.items():
        keys = [key for key in state if key.startswith(prefix)]
        taken = 0
        for key in keys:
            old_key = _old_name(key, weights.state)
            if old_key is None:
                continue
            used.add(old_key)
            old = weights.state[old_key]
            new: Tensor | None
            if key in class_rows:
                new = _class_rows(state[key], old, sources, len(weights.names), class_rows[key])
            else:
                new = old if old.shape == state[key].shape else None
            if new is not None:
                state[key] = new.to(state[key].dtype)
                transfer.loaded.add(key)
                taken += 1
        if keys:
            of_classes = any(key in class_rows for key in keys)
            transfer.rows.append((part, _what_became(taken, len(keys), transfer if of_classes else None)))
    left_out = sorted(set(weights.state) - used)
    if left_out:
        transfer.rows.append(
            ("left out", f"{len(left_out)} tensors that this model has no place for: {left_out[0]}, ...")
        )
    model.load_state_dict(state)
    return transfer


def _old_name(key: str, old: Mapping[str, Tensor]) -> str | None:
    """What a tensor is called in other weights: the backbone's last layers may be a head's second stage."""
    if key in old:
        return key
    names = (key.replace(_SECOND_STAGE, "backbone.", 1), key.replace("backbone.", _SECOND_STAGE, 1))
    return next((name for name in names if name in old), None)


def normalized(name: str) -> str:
    """A class name without what people write differently: case, and spaces, hyphens or underscores between words."""
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _class_rows(
    new: Tensor, old: Tensor, sources: Sequence[int | None], known: int, rows_of: ClassRows
) -> Tensor | None:
    """The predictor's rows: for each anchor and class those of the same class before, else the mean of all of them.

    Each mean is moved by how much the fresh row differs from the other fresh ones, so that no two classes start alike.

    ``new`` has ``(n * outputs * values, ...)`` rows, anchor by anchor, class by class; ``old`` likewise, of ``known``
    classes; ``sources`` is the place of each class among them. None when the number of anchors differs.
    """
    values, background = rows_of
    before, after = known + background, len(sources) + background
    anchors = new.shape[0] // (after * values)
    if old.shape[0] != anchors * before * values or old.shape[1:] != new.shape[1:]:
        return None
    old_rows = old.reshape(anchors, before, values, *old.shape[1:])
    rows = new.reshape(anchors, after, values, *new.shape[1:]).clone()
    if background:
        rows[:, 0] = old_rows[:, 0].to(rows.dtype)
    classes = rows[:, background:]
    classes += old_rows[:, background:].to(rows.dtype).mean(dim=1, keepdim=True) - classes.mean(dim=1, keepdim=True)
    for index, source in enumerate(sources):
        if source is not None:
            rows[:, index + background] = old_rows[:, source + background].to(rows.dtype)
    return rows.reshape(new.shape)


def _what_became(taken: int, total: int, transfer: Transfer | None) -> str:
    """What became of a part's tensors, for people; with ``transfer`` where some of them belong to classes."""
    if taken == 0:
        return "fresh"
    if transfer is not None:
        carried, averaged = transfer.carried, transfer.averaged
        if not averaged:
            return f"loaded: all {len(carried)} classes are known by name"
        classes = len(carried) + len(averaged)
        what = f"rebuilt for {classes} classes: {len(averaged)} from the mean of all ({_some(averaged)})"
        return what + (f", {len(carried)} carried over ({_some(carried)})" if carried else ", none known by name")
    return f"loaded ({total} tensors)" if taken == total else f"{taken} of {total} tensors loaded, the others fresh"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
