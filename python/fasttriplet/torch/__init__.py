"""What needs PyTorch: a miner with the call of pytorch-metric-learning's miners."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "fasttriplet.torch needs PyTorch. Install it: pip install 'fasttriplet[torch]'",
        name="torch",
    ) from None

from fasttriplet.torch._miner import TripletMiner

__all__ = ["TripletMiner"]
