"""A network for drawn characters, which `bench_training.py` and `bench_bags.py` train."""

from __future__ import annotations

import math

import torch
from torch import nn

_FILTERS = (16, 32, 128)
_WINDOW, _STRIDE = 7, 4  # of the first convolution
_EMBEDDING = 256


class _Strided(nn.Module):
    """Three convolution blocks for images of 64 x 64, the first with a stride of 4: to maps of 4 x 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        blocks: list[nn.Module] = []
        for number, filters in enumerate(_FILTERS):
            window, stride = (_WINDOW, _STRIDE) if number == 0 else (3, 2)
            blocks += [
                nn.Conv2d(channels, filters, window, stride, window // 2, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
            ]
            channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(16 * channels, _EMBEDDING)
        self.norm = nn.BatchNorm1d(_EMBEDDING)
        nn.init.ones_(self.norm.weight)
        self.norm.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                outputs = module.weight.shape[0] * math.prod(module.weight.shape[2:])
                nn.init.normal_(module.weight, 0, math.sqrt(2 / outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images, of which grey ones have the same numbers in all channels."""
        return self.norm(self.dense(self.blocks(images[:, : self.channels]).flatten(1)))


def strided() -> nn.Module:
    """The network for grey images with its first weights, which PyTorch's seed decides."""
    return _Strided(1)


def coloured() -> nn.Module:
    """The same for images with colours."""
    return _Strided(3)
