"""Steps of a training that give the same numbers whenever they are taken again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# cuBLAS adds in a fixed order if it has this memory of its own; it looks when it is first used.
_CUBLAS, _MEMORY = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def prepare(device: torch.device) -> None:
    """Let cuBLAS be reproducible, before anything runs on the device."""
    if device.type == "cuda":
        os.environ.setdefault(_CUBLAS, _MEMORY)


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Draw random numbers from a seed in the block, and take kernels that add in a fixed order.

    The process has its own random numbers and settings again afterwards. Where PyTorch has no such kernel for
    an operator, it warns.
    """
    cudnn: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    only_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic  # type: ignore[attr-defined, unused-ignore]
    filled, filling.fill_uninitialized_memory = filling.fill_uninitialized_memory, False
    devices = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices, enabled=True),
            cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=None),
        ):
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.manual_seed(seed % 2**63)
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warning)
        filling.fill_uninitialized_memory = filled
