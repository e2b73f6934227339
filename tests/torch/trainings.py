"""Batches for a backend, and modules of the user's to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.training import TrainSettings
from tests.torch.small_modules import SOURCE

# Networks for images of 24 x 24, and what is no network for them.
MODULE = f"""{SOURCE}

def square():
    return Net(8, 24, 24)


class Several(Net):
    def __init__(self):
        super().__init__(8, 24, 24)

    def forward(self, x):
        found = super().forward(x)
        return dict(embedding=found, norms=found.norm(dim=1))


class Scalars(Net):
    def forward(self, x):
        return super().forward(x).sum(dim=1)


def of_32x24():
    return Net(8)


def one_number():
    return Scalars(8, 24, 24)


def frozen():
    return square().requires_grad_(False)


def in_half_precision():
    return square().half()


def complex_weights():
    made = square()
    made.turn = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    return made


def not_finite():
    made = square()
    nn.init.constant_(made.fc.bias, float("inf"))
    return made


def on_meta():
    return square().to("meta")


def fails():
    raise OSError("no such table")


def with_noise():
    return nn.Sequential(nn.Dropout(0.2), square())


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8))


class Remembering(Net):
    def forward(self, x):
        self.seen = super().forward(x)
        return self.seen


def remembering():
    return Remembering(8, 24, 24)
"""


def module_of(folder: Path, name: str) -> str:
    """Write the module into a folder, under a name of its own, as imports are kept."""
    (folder / f"{name}.py").write_text(MODULE, encoding="utf-8")
    return name


@contextmanager
def importable(folder: Path, name: str) -> Iterator[None]:
    """Let the module be imported under this name."""
    module_of(folder, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


def settings(**options: Any) -> TrainSettings:
    """Settings for a backend alone, without a dataset."""
    usual: dict[str, Any] = {"network": "small", "framework": "torch", "embedding_size": 16, "batch_size": 30}
    if "symbol" in options:
        usual["network"] = None
    return TrainSettings(rec=("train.rec",), **usual | options)


def batches(count: int, images: int = 30, size: int = 24) -> Iterator[ft.TripletBatch]:
    """Triplets of 12 identities, a faint pattern under much noise, so that the loss stays above 0."""
    rng, triplets = np.random.default_rng(0), images // 3
    patterns = rng.uniform(0, 60, (12, 3, 6, 6)).repeat(size // 6, 2).repeat(size // 6, 3)
    for _ in range(count):
        identity = rng.integers(0, 12, triplets)
        labels = np.concatenate([identity, identity, (identity + rng.integers(1, 12, triplets)) % 12])
        pictures = patterns[labels] + rng.uniform(0, 195, (images, 3, size, size))
        yield ft.TripletBatch(pictures.astype(np.float32), labels, labels, 0, 0)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread, as the forked processes of these tests do."""
    import torch  # noqa: PLC0415  not installed everywhere

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
