"""Optimisers, learning-rate schedule, gradient guard and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from mobiledet.config import OptimizerConfig, ScheduleConfig
from mobiledet.models.detection_model import DetectionModel


def parameter_groups(model: DetectionModel, config: OptimizerConfig) -> list[dict[str, object]]:
    """Parameters by how they are treated.

    Depthwise filters have few weights each, and norms and biases few altogether: none of them gets weight decay
    (Howard et al. 2017, section 3.2). The backbone may learn more slowly than the head.

    Returns:
        Groups with ``params``, ``weight_decay``, ``lr_scale`` and ``name``; empty and frozen ones left out.
    """
    plain_params: set[Tensor] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            plain_params.add(module.weight)
    # A second stage of backbone layers learns at the head's rate: it has to learn where objects end, too.
    backbone = set(model.backbone.parameters())
    chosen: dict[str, list[nn.Parameter]] = {
        "backbone": [],
        "backbone/no_decay": [],
        "head": [],
        "head/no_decay": [],
    }
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = "backbone" if parameter in backbone else "head"
            chosen[part if parameter in plain_params else f"{part}/no_decay"].append(parameter)
    return [
        {
            "name": name,
            "params": params,
            "weight_decay": 0.0 if name.endswith("no_decay") else config.weight_decay,
            "lr_scale": config.backbone_lr_scale if name.startswith("backbone") else 1.0,
        }
        for name, params in chosen.items()
        if params
    ]


def build_optimizer(model: DetectionModel, config: OptimizerConfig) -> Optimizer:
    """The optimiser a config names."""
    groups = parameter_groups(model, config)
    if config.name == "adamw":
        return AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    if config.name == "rmsprop":
        # As the paper's code sets it, but for epsilon, which TensorFlow puts inside the square root.
        return RMSprop(groups, lr=config.lr, alpha=0.9, momentum=config.momentum, eps=1e-3)
    return SGD(groups, lr=config.lr, momentum=config.momentum)


def lr_factor(step: int, *, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """Learning rate of a step (counted from 0) as a share of the peak: linear warm-up, then the policy."""
    total = steps_per_epoch * config.num_epochs
    warmup = min(config.warmup_steps, max(1, total // 10)) if config.warmup_steps else 0
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.policy == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.step_epochs)
        return float(config.step_factor**passed)
    if config.policy == "cosine":
        done = (step - warmup) / max(1, total - warmup)
        return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return 1.0


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group, scaled as the group wants it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class NormGuard:
    """Remembers batch-norm statistics, to take back a forward pass that wasn't finite.

    The forward pass already moves the running statistics, before anyone can look at the loss.
    """

    def __init__(self, model: nn.Module) -> None:
        self._live = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var, module.num_batches_tracked)
            if buffer is not None
        ]
        self._saved = [buffer.clone() for buffer in self._live]

    def remember(self) -> None:
        """Copy the statistics as they are now."""
        _copy(self._saved, self._live)

    def restore(self) -> None:
        """Put the remembered statistics back."""
        _copy(self._live, self._saved)


class WeightAverage:
    """Exponential moving average of weights and statistics (EMA): what is scored and kept as best.

    Args:
        model: Whose weights to follow.
        decay: Of the average in the long run; the first steps count more, so that it doesn't drag the initial
            weights along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        floating = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
        self._names, self._live = list(floating), list(floating.values())
        self._average = [tensor.detach().clone() for tensor in self._live]

    def restart(self) -> None:
        """Begin again at the weights as they are now."""
        self.updates = 0
        _copy(self._average, self._live)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state with averaged weights in place of its own."""
        average = dict(zip(self._names, self._average, strict=True))
        return {name: average.get(name, tensor) for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take up an average saved by :meth:`state_dict`."""
        self.updates = updates
        for name, tensor in zip(self._names, self._average, strict=True):
            tensor.copy_(state[name])


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for a, b in zip(to, source, strict=True):
        a.copy_(b)
