"""What needs PyTorch: an embedder, and a miner with the call of pytorch-metric-learning's miners."""

from __future__ import annotations

from fasttriplet._extras import how_to_install as _how_to_install

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(f"fasttriplet.torch needs PyTorch. {_how_to_install('torch')}", name="torch") from None

from fasttriplet.torch._embedder import TorchEmbedder
from fasttriplet.torch._miner import TripletMiner

__all__ = ["TorchEmbedder", "TripletMiner"]
