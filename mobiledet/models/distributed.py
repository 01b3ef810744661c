"""What a network in training needs of the others that train with it: sums over the whole batch.

Where nothing was started together, every process is alone and all of this changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mobiledet.models.layers import BatchNorm


def batch_share(count: Tensor) -> Tensor:
    """What a process divides the sum of its losses by, given its ``count`` of matched or sampled boxes.

    It is the mean count of all processes. The mean of their gradients, which `DistributedDataParallel` takes, is then
    the gradient of the sum of all losses over the sum of all counts: that of one process with the whole batch. Of all
    counts together at least 1 is taken. Without gradients (validation, of which each process has its own batches)
    nothing is exchanged.
    """
    if not dist.is_initialized() or not torch.is_grad_enabled():
        return count.clamp(min=1)
    total = count.detach().clone()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


class SyncBatchNorm(BatchNorm):
    """Batch-norm over the images of all processes, on processors; `torch.nn.SyncBatchNorm` needs GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same; all processes must call it at the same time."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _sum_over_processes(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        total = sums[-1].item()
        if total == 1:
            return super().forward(input)
        mean = (sums[:-1] / total)[:, None, None]
        variance = _sum_over_processes((x - mean).square().sum(dim=(0, 2, 3))) / total
        with torch.no_grad():
            newest = (mean.flatten(), variance * (total / (total - 1)))
            for running, value in zip((self.running_mean, self.running_var), newest, strict=True):
                running.lerp_(value, self.momentum)  # type: ignore[union-attr, arg-type]  # both are there in ours
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        y = (x - mean) * scale[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)


class _Sum(torch.autograd.Function):
    """Sum over all processes; each one's loss depends on every part of it, so the gradient is their sum, too."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient.contiguous())


def _sum_over_processes(part: Tensor) -> Tensor:
    whole: Tensor = _Sum.apply(part)
    return whole


def synchronise_norms(model: nn.Module, device: torch.device) -> None:
    """Have the batch-norm layers of a model that learn see the images of all processes."""
    if device.type != "cpu":
        for name, child in model.named_children():
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.__class__ = SyncBatchNorm
