"""The recipe that is going to be trained, completed as training completes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mobiledet.config import Config, ModelConfig, apply_overrides
from mobiledet.data.coco import CocoDataset
from mobiledet.data.holdout import hold_out
from mobiledet.errors import DataError
from mobiledet.training.complete import complete_model, initial_weights
from mobiledet.weights.catalogue import find_source
from mobiledet.weights.store import local_file
from mobiledet.weights.transfer import InitialWeights


@dataclass(frozen=True)
class JudgedRecipe:
    """A recipe and the data it is for.

    Attributes:
        config: the recipe.
        datasets: name of each split -> its data.
        name: how people call it, such as ``"finetune_ssd model.input_size=512,512"``.
        train_command: what trains it.
    """

    config: Config
    datasets: Mapping[str, CocoDataset]
    name: str
    train_command: str = ""

    @cached_property
    def _train(self) -> CocoDataset:
        """The images that training would see: without those that the recipe holds out."""
        data = self.config.data
        train = self.datasets.get(data.train_split) or next(iter(self.datasets.values()))
        if data.hold_out is not None and data.val_split is not None and data.val_split not in self.datasets:
            with suppress(DataError):  # so few that training keeps them all
                train, _ = hold_out(train, data.hold_out, self.config.seed)
        return train

    @cached_property
    def _weights(self) -> InitialWeights | None:
        """What it starts from, where that is on this machine: looking at data fetches nothing."""
        source = find_source(self.config.model.init or "")
        if source is not None and not Path(source.name).exists() and local_file(source) is None:
            return None  # of the names there are, all detectors have the usual anchors
        return initial_weights(self.config.model)

    def model(self, *options: str) -> ModelConfig:
        """The complete model, with further options ``key=value``.

        Raises:
            MobiledetError: recipe, weights and data contradict each other.
        """
        return complete_model(apply_overrides(self.config, options).model, self._train, self._weights)

    def larger_input(self, factor: float) -> str:
        """The options that make both sides of the input larger, to multiples of 16 pixels."""
        model = self.model()
        height, width = model.input_size
        if self.config.model.match_aspect:
            height = width = round(math.sqrt(height * width))
        sides = ",".join(str(round(side * factor / 16) * 16) for side in (height, width))
        longest = "" if model.resize_rule.fixed else f"model.longest_side={round(model.longest_side * factor)} "
        return f"{longest}model.input_size={sides}"

    @property
    def head_is_trained(self) -> bool:
        """Whether it starts from a detector, whose head has learned with its anchors."""
        source = find_source(self.config.model.init or "")
        return self._weights.is_detector if self._weights else source is not None and source.what == "detector"

    def price(self, options: str) -> str:
        """What other anchors cost, as the end of a remedy: predictors for another number of them are trained anew."""
        if not self.head_is_trained:
            return ""
        model = self.model()
        heads = (model.head, self.model(*options.split()).head)
        before, after = ([len(a[0, 0]) for a in head.anchor_maps(*[model.network_size] * 2)] for head in heads)
        changed = sum(old != new for old, new in zip(before, after, strict=False))  # one more map leaves the others
        where = "" if changed == len(before) else f" on {changed} of {len(before)} maps"
        return f"; the pretrained head is not used then{where}" if changed else ""
