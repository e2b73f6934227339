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
def reproducible(seed: int) -> Iterator[None]:
    """Draw random numbers from a seed in the block, and take kernels that add in a fixed order.

    The process has its own random numbers and settings again afterwards. Where PyTorch has no such kernel for
    an operator, it warns.
    """
    cudnn: Any = torch.backends.cudnn
    filling: Any = torch.utils.deterministic  # type: ignore[attr-defined, unused-ignore]
    # Not cudnn.flags(), which resets the switches for TF32 as well.
    switches = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    switches.append((filling, "fill_uninitialized_memory", False))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
    enabled = torch.are_deterministic_algorithms_enabled()
    only_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with drawing_from(seed):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=only_warning)
        for owner, name, was in before:
            setattr(owner, name, was)


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Draw random numbers from a seed in the block, on all devices; afterwards they are as before."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    if torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed % 2**63)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
