"""The devices that PyTorch runs on, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from fasttriplet.errors import OptionError


def devices_of(devices: str | Sequence[str] | None) -> list[torch.device]:
    """The devices that a user names, see :func:`fasttriplet.load_embedder`; a ValueError if there is none."""
    count = torch.cuda.device_count()
    if devices is None:
        devices = "cuda" if count else "cpu"
    names = [devices] if isinstance(devices, str) else list(devices)
    if names in (["cpu"], ["mps"]):
        if names == ["mps"] and not torch.backends.mps.is_available():
            raise ValueError("devices='mps': PyTorch finds no GPU of Apple's")
        return [torch.device(names[0])]
    numbers: list[int] = []
    for name in names:
        match = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", name)
        if not match:
            raise OptionError("devices", _unknown(devices, name))
        numbers += map(int, match[1].split(",")) if match[1] else range(count)
    if not count:
        backend: Any = torch.backends.cuda
        why = "" if backend.is_built() else ": this build of it is for the CPU only"
        raise ValueError(f"devices={devices!r}: PyTorch {torch.__version__} finds no GPU{why}")
    if not numbers or max(numbers) >= count or len(set(numbers)) != len(numbers):
        raise OptionError(
            "devices", f"must name each GPU once, numbered from 0 to {count - 1}, not {devices!r}"
        )
    return [torch.device("cuda", number) for number in numbers]


def _unknown(devices: str | Sequence[str], name: str) -> str:
    hint = ""
    if re.fullmatch(r"gpu(:\d+(,\d+)*)?", name):
        hint = f"; PyTorch's name of {name!r} is {name.replace('gpu', 'cuda')!r}"
    return f"must be 'cpu', 'mps', 'cuda', or GPUs such as 'cuda:0,2', not {devices!r}{hint}"
