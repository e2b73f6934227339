"""The precision that a network computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let convolutions and matrix products in the block have this precision, on this device.

    Where nothing is said, cuDNN rounds the inputs of a float32 convolution to TF32, which has 10 bits.
    """
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
        return
    if device.type != "cuda":
        yield
        return
    before = [(owner, name, getattr(owner, name)) for owner, name in _switches()]
    for owner, name, was in before:
        exact: Any = False if isinstance(was, bool) else "ieee"
        fast: Any = True if isinstance(was, bool) else "tf32"
        setattr(owner, name, fast if precision == "tf32" else exact)
    try:
        yield
    finally:
        for owner, name, was in before:
            setattr(owner, name, was)


def _switches() -> list[tuple[Any, str]]:
    """The switches for TF32; those of before PyTorch 2.9 are Booleans, not to be mixed with the new ones."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [(cudnn.conv, "fp32_precision"), (matmul, "fp32_precision")]
    return [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
