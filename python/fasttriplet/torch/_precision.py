"""How PyTorch is made to compute in a precision."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fasttriplet.embedders._precision import Precision
from fasttriplet.errors import OptionError

_lock = threading.RLock()  # a network may itself embed


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise an OptionError if a device does not have this precision."""
    if precision == "tf32" and device.type != "cuda":
        raise OptionError(
            "precision", f"cannot be 'tf32' on {device}: only NVIDIA's GPUs have it{_instead(device)}"
        )
    if precision == "bfloat16" and not _has_autocast(device):
        raise OptionError(
            "precision",
            f"cannot be 'bfloat16' on {device}: PyTorch {torch.__version__} has no autocast there"
            f"{_instead(device)}",
        )


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let convolutions and matrix products in the block have this precision, on this device.

    Where nothing is said, cuDNN rounds the inputs of a float32 convolution to TF32, which has 10 bits.
    PyTorch's switches for that are those of the whole process. So one thread at a time computes in such a
    block on a GPU, and each finds the switches as it has set them. Two things stay: what other code of the
    process computes on a GPU meanwhile has this precision, too, and a switch that it sets is set back at the
    end of the block.
    """
    if precision == "bfloat16" or device.type != "cuda":
        # Off for float32, too: the caller may be in an autocast of its own.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
        return
    with _lock, torch.autocast(device.type, enabled=False):
        before = [(owner, name, getattr(owner, name)) for owner, name in _switches()]
        try:
            for owner, name, was in before:
                exact: Any = False if isinstance(was, bool) else "ieee"
                fast: Any = True if isinstance(was, bool) else "tf32"
                setattr(owner, name, fast if precision == "tf32" else exact)
            yield
        finally:
            for owner, name, was in before:
                setattr(owner, name, was)


def _instead(device: torch.device) -> str:
    """What goes on a device."""
    possible = ["'float32'", *["'bfloat16'"] * _has_autocast(device)]
    return f"; give {' or '.join(possible)}"


def _has_autocast(device: torch.device) -> bool:
    """Whether PyTorch has autocast to bfloat16 there; where it has none, it raises an error or warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            torch.autocast(device.type, torch.bfloat16)
        except (RuntimeError, UserWarning):
            return False
    return True


def _switches() -> list[tuple[Any, str]]:
    """The switches for TF32; those of before PyTorch 2.9 are Booleans, not to be mixed with the new ones."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [(cudnn.conv, "fp32_precision"), (matmul, "fp32_precision")]
    return [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
