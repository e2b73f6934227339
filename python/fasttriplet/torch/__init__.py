"""What needs PyTorch: an embedder, MXNet's networks as modules, the triplet loss, and a miner for batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasttriplet import _lazy
from fasttriplet._extras import how_to_install as _how_to_install

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(f"fasttriplet.torch needs PyTorch. {_how_to_install('torch')}", name="torch") from None
except ImportError as error:  # of one of its libraries
    raise ImportError(f"PyTorch is installed, but its import failed: {error}", name="torch") from error

if TYPE_CHECKING:
    from fasttriplet.torch._architecture import load_network
    from fasttriplet.torch._embedder import TorchEmbedder
    from fasttriplet.torch._from_mxnet import from_mxnet, to_mxnet
    from fasttriplet.torch._loss import triplet_loss, triplet_losses
    from fasttriplet.torch._miner import TripletMiner

__all__ = [
    "TorchEmbedder",
    "TripletMiner",
    "from_mxnet",
    "load_network",
    "to_mxnet",
    "triplet_loss",
    "triplet_losses",
]

_HOMES = {
    "_architecture": ("load_network",),
    "_embedder": ("TorchEmbedder",),
    "_from_mxnet": ("from_mxnet", "to_mxnet"),
    "_loss": ("triplet_loss", "triplet_losses"),
    "_miner": ("TripletMiner",),
}

__getattr__, __dir__ = _lazy.names_of(__name__, _HOMES)
