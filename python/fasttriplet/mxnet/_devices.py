"""The devices that MXNet runs on, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fasttriplet.embedders._devices import Words, devices_of
from fasttriplet.mxnet._compat import import_mxnet


def contexts(devices: str | Sequence[str] | None) -> list[Any]:
    """The devices that a user names, see :func:`fasttriplet.load_embedder`; a ValueError if there is none."""
    mx = import_mxnet()

    def count() -> int:
        try:
            return int(mx.context.num_gpus())
        except mx.base.MXNetError:  # built for CUDA, but there is no driver
            return 0

    names = devices_of(devices, Words("MXNet", "gpu"), count, _why_none)
    return [mx.cpu() if name == "cpu" else mx.gpu(int(name.removeprefix("gpu:"))) for name in names]


def name_of(context: Any) -> str:
    """The name of a device, such as ``"cpu"`` or ``"gpu:0"``."""
    return "cpu" if context.device_type == "cpu" else f"gpu:{context.device_id}"


def _why_none() -> str:
    return "MXNet finds no GPU (the package `mxnet` on PyPI is for the CPU only)"
