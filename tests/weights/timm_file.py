"""A small file as timm's mobilenetv1 weights are."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

# Outputs of the separable layers, stage by stage, at width 1 (timm's ds blocks).
STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))


class TimmLike(nn.Module):
    """timm's module tree and forward pass, written down from its layout: conv_stem, bn1, blocks, classifier."""

    def __init__(self, alpha: float = 0.25, classes: int = 5) -> None:
        super().__init__()
        channels = int(32 * alpha)
        self.conv_stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-5)
        self.blocks = nn.ModuleList()
        for stage, outs in enumerate(STAGES):
            row = nn.ModuleList()
            for place, out in enumerate(outs):
                block = nn.Module()
                block.conv_dw = nn.Conv2d(
                    channels, channels, 3, 2 if stage and place == 0 else 1, 1, groups=channels, bias=False
                )
                block.bn1 = nn.BatchNorm2d(channels, eps=1e-5)
                block.conv_pw = nn.Conv2d(channels, int(out * alpha), 1, bias=False)
                channels = int(out * alpha)
                block.bn2 = nn.BatchNorm2d(channels, eps=1e-5)
                row.append(block)
            self.blocks.append(row)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv_stem(x)).clamp(0, 6)
        for row in self.blocks:
            for block in row:
                x = block.bn1(block.conv_dw(x)).clamp(0, 6)
                x = block.bn2(block.conv_pw(x)).clamp(0, 6)
        return self.classifier(x.mean(dim=(2, 3)))


def write_timm(path: Path, *, alpha: float = 0.25, **changes: Tensor | None) -> TimmLike:
    """Write such a file; ``changes`` replaces tensors by name, or leaves them out (None)."""
    torch.manual_seed(0)
    model = TimmLike(alpha).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    tensors = {**model.state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, path)
    return model
