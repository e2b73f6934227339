"""Small modules, images for them, and what a module gives by definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

SIZE = (32, 24)
ROUNDING = 2e-6  # of the norm

# A module of the user's: nothing of this package is in it.
SOURCE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = nn.PReLU(channels)

    def forward(self, x):
        return x + self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self, size=16, height=32, width=24):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.stem_bn = nn.BatchNorm2d(12)
        self.blocks = nn.Sequential(Block(12), Block(12), nn.Dropout(0.5))
        self.fc = nn.Linear(12 * (height // 2) * (width // 2), size)
        self.features = nn.BatchNorm1d(size)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem_bn(self.stem(x))))
        return self.features(self.fc(torch.flatten(x, 1)))


class Viewing(Net):
    def forward(self, x):
        x = self.blocks(torch.relu(self.stem_bn(self.stem(x))))
        return self.features(self.fc(x.view(len(x), -1)))


class Branching(Net):
    def forward(self, x):
        if x.sum() > 1e30:  # depends on values: not to be traced
            return x
        return super().forward(x)


def randomised(module):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                part.weight.data.uniform_(0.5, 2)
                part.bias.data.normal_()
    return module


def net():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(Net())


def viewing():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(Viewing())


def branching():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(Branching())


made = net()
number = 7


def needs_arguments(depth):
    return Net()


def gives_a_number():
    return 7
"""


def random_images(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def rows_of(count: int) -> pl.DataFrame:
    return pl.DataFrame({"key": np.arange(1, count + 1)})


def module_in(folder: Path, name: str) -> str:
    """Write the module under a name of its own, as imports are kept."""
    (folder / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    return name


def by_definition(
    module: Any, images: NDArray[np.uint8], color: str = "rgb", mean: Any = 127.5, std: Any = 128.0
) -> NDArray[np.float64]:
    """What a module gives in float64, image by image."""
    import copy  # noqa: PLC0415

    import torch  # noqa: PLC0415

    exact = copy.deepcopy(module).double().eval()
    found = []
    for image in images:
        pixels = image[:, :, ::-1] if color == "bgr" else image
        values = (pixels.astype(np.float64) - np.asarray(mean)) / np.asarray(std)
        batch = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))[None])
        with torch.no_grad():
            found.append(exact(batch).numpy()[0])
    return np.stack(found)


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference relative to the norm."""
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())
