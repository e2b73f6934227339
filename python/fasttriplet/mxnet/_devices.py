"""The devices that MXNet runs on, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fasttriplet.errors import OptionError
from fasttriplet.mxnet._compat import import_mxnet


def contexts(devices: str | Sequence[str] | None) -> list[Any]:
    """The devices that a user names, see :func:`fasttriplet.load_embedder`; a ValueError if there is none."""
    mx = import_mxnet()
    try:
        count = mx.context.num_gpus()
    except mx.base.MXNetError:  # built for CUDA, but there is no driver
        count = 0
    if devices is None:
        devices = "gpu" if count else "cpu"
    names = [devices] if isinstance(devices, str) else list(devices)
    if names == ["cpu"]:
        return [mx.cpu()]
    numbers: list[int] = []
    for name in names:
        match = re.fullmatch(r"gpu(?::(\d+(?:,\d+)*))?", name)
        if not match:
            raise OptionError("devices", f"must be 'cpu', 'gpu', or GPUs such as 'gpu:0,2', not {devices!r}")
        numbers += map(int, match[1].split(",")) if match[1] else range(count)
    if not count:
        raise ValueError(
            f"devices={devices!r}: MXNet finds no GPU (the package `mxnet` on PyPI is for the CPU only)"
        )
    if not numbers or max(numbers) >= count or len(set(numbers)) != len(numbers):
        raise OptionError(
            "devices", f"must name each GPU once, numbered from 0 to {count - 1}, not {devices!r}"
        )
    return [mx.gpu(number) for number in numbers]


def name_of(context: Any) -> str:
    """The name of a device, such as ``"cpu"`` or ``"gpu:0"``."""
    return "cpu" if context.device_type == "cpu" else f"gpu:{context.device_id}"
