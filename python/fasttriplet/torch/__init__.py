"""What needs PyTorch: datasets, samplers, feeds, embedders, the loss, a miner, and networks of MXNet."""

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
    from fasttriplet.torch._dataset import RecordDataset
    from fasttriplet.torch._embedder import TorchEmbedder
    from fasttriplet.torch._feed import TripletFeed, TripletTensors
    from fasttriplet.torch._from_mxnet import from_mxnet, to_mxnet
    from fasttriplet.torch._loss import triplet_loss, triplet_losses
    from fasttriplet.torch._miner import TripletMiner
    from fasttriplet.torch._mx import mx
    from fasttriplet.torch._network_files import load_network
    from fasttriplet.torch._samplers import IdentityBatchSampler

__all__ = [
    "IdentityBatchSampler", "RecordDataset", "TorchEmbedder", "TripletFeed", "TripletMiner",
    "TripletTensors", "from_mxnet", "load_network", "mx", "to_mxnet", "triplet_loss", "triplet_losses",
]  # fmt: skip

_HOMES = {
    "_dataset": ("RecordDataset",),
    "_embedder": ("TorchEmbedder",),
    "_feed": ("TripletFeed", "TripletTensors"),
    "_from_mxnet": ("from_mxnet", "to_mxnet"),
    "_loss": ("triplet_loss", "triplet_losses"),
    "_miner": ("TripletMiner",),
    "_mx": ("mx",),
    "_network_files": ("load_network",),
    "_samplers": ("IdentityBatchSampler",),
}

__getattr__, __dir__ = _lazy.names_of(__name__, _HOMES)
