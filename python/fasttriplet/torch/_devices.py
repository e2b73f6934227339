"""The devices that PyTorch runs on, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fasttriplet.embedders import _devices


def devices_of(wanted: str | Sequence[str] | None) -> list[torch.device]:
    """The devices that a user names, see :func:`fasttriplet.load_embedder`; a ValueError if there is none."""
    words = _devices.Words("PyTorch", "cuda", ("cpu", "mps"))
    names = _devices.devices_of(wanted, words, torch.cuda.device_count, _why_none)
    if names == ["mps"] and not torch.backends.mps.is_available():
        raise ValueError("devices='mps': PyTorch finds no GPU of Apple's")
    return [numbered(torch.device(name)) for name in names]


def numbered(device: torch.device) -> torch.device:
    """The same device, with its number if it is a GPU: tensors are on "mps:0", and not on "mps"."""
    unnumbered = device.type in ("cuda", "mps") and device.index is None
    return torch.device(device.type, 0) if unnumbered else device


def _why_none() -> str:
    backend: Any = torch.backends.cuda
    why = "" if backend.is_built() else ": this build of it is for the CPU only"
    return f"PyTorch {torch.__version__} finds no GPU{why}"
