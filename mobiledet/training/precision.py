"""Number formats."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.optim import Optimizer

from mobiledet.errors import ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Mixed precision: the network computes in a short format, weights and losses stay float32.

    Args:
        name: ``"float32"``, ``"bfloat16"`` or ``"float16"`` (GPU only; scales the loss so gradients don't vanish).
        device: Where it computes.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")  # else it passes all through

    def autocast(self) -> AbstractContextManager[None]:
        """The context for the forward pass."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, DTYPES[self.name])

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring gradients back to their true size, before they are measured and clipped."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """Move the weights."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def reduce_scale(self) -> None:
        """After a skipped step: half the loss scale, which is what overflowed if the format is float16."""
        self._scaler.update(self._scaler.get_scale() / 2)

    def state_dict(self) -> dict[str, float | int]:
        """For the checkpoint."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Undo :meth:`state_dict`."""
        if state:
            self._scaler.load_state_dict(state)


def choose_precision(name: str, device: torch.device) -> str:
    """The number format a config names; ``"auto"`` takes bfloat16 where the hardware computes in it.

    Raises:
        ConfigError: float16 without a GPU.
    """
    if name == "float16" and device.type != "cuda":
        raise ConfigError("train.precision=float16 needs a GPU; take bfloat16 or float32 on a processor")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulating it is slower than float32."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"))
