"""What needs PyTorch: an embedder, MXNet's networks as modules, and a miner for pytorch-metric-learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttriplet import _forks
from fasttriplet._extras import how_to_install as _how_to_install

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(f"fasttriplet.torch needs PyTorch. {_how_to_install('torch')}", name="torch") from None

if TYPE_CHECKING:
    from fasttriplet.torch._embedder import TorchEmbedder
    from fasttriplet.torch._from_mxnet import from_mxnet, to_mxnet
    from fasttriplet.torch._miner import TripletMiner

__all__ = ["TorchEmbedder", "TripletMiner", "from_mxnet", "to_mxnet"]

_HOMES = {
    "TorchEmbedder": "_embedder",
    "TripletMiner": "_miner",
    "from_mxnet": "_from_mxnet",
    "to_mxnet": "_from_mxnet",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with _forks.importing():
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
