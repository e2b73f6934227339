"""The network that a training begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet.checkpoint._checkpoint import read_checkpoint
from fasttriplet.errors import OptionError
from fasttriplet.torch._architecture import Architecture
from fasttriplet.torch._from_mxnet import weights_of
from fasttriplet.torch._graph._network import ConvertedNetwork
from fasttriplet.torch._network_files import WEIGHTS, read_network
from fasttriplet.torch._state import load_state
from fasttriplet.training._pretrained import check_pretrained, epoch_of_checkpoint
from torch import nn

_FILES = (".safetensors", ".pt", ".pth")
_FORMS = "PREFIX,EPOCH (a checkpoint of MXNet), torch:PREFIX or a file of weights (.safetensors, .pt, .pth)"


def begun(architecture: Architecture, pretrained: str | None, seed: int) -> nn.Module:
    """Make a network, with weights that are drawn, and with those of `pretrained` in their places."""
    network = architecture.make(seed)
    if pretrained is None:
        return network
    if Path(pretrained).suffix in _FILES:
        load_state(network, Path(pretrained))
    elif isinstance(network, ConvertedNetwork):
        _take(network, _by_mxnets_names(pretrained), pretrained)
    elif pretrained.startswith("torch:"):
        load_state(network, Path(f"{pretrained.removeprefix('torch:')}{WEIGHTS}"))
    else:
        raise OptionError(
            "pretrained",
            f"must be torch:PREFIX or a file of weights ({', '.join(_FILES)}) for a network that a function "
            f"makes, not {pretrained!r}",
        )
    for name, values in network.state_dict().items():
        if values.is_floating_point() and not values.isfinite().all():
            raise ValueError(f"pretrained: {pretrained} holds NaN or infinity, in {name}")
    return network


def _by_mxnets_names(pretrained: str) -> dict[str, NDArray[Any]]:
    if not pretrained.startswith("torch:"):
        checkpoint = read_checkpoint(*epoch_of_checkpoint(pretrained, _FORMS))
        return checkpoint.arg_params | checkpoint.aux_params
    _, network = read_network(pretrained.removeprefix("torch:"))
    if not isinstance(network, ConvertedNetwork):
        raise OptionError(
            "pretrained",
            f"{pretrained!r} is a network that a function makes, and this training has another kind",
        )
    return weights_of(network)


def _take(network: ConvertedNetwork, given: dict[str, NDArray[Any]], source: str) -> None:
    places = network.origin.places
    # A gamma that is fixed at 1 has no place, and needs none.
    given = {name: values for name, values in given.items() if name not in network.origin.kept}
    check_pretrained(dict(places.values()), given, source)
    state = network.state_dict()
    with torch.no_grad():
        for place, (name, _) in places.items():
            if name in given:
                state[place].copy_(torch.from_numpy(np.ascontiguousarray(given[name])))
