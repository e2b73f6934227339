"""The embedder of a network that is being trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch.utils._pytree import tree_leaves

import torch
from fasttriplet._cores import cores
from fasttriplet.embedders._inputs import Inputs
from fasttriplet.embedders._precision import Precision
from fasttriplet.torch._embedder import CPU_BATCH, BatchEmbedder
from fasttriplet.torch._models import Model, inference_model
from torch import nn

# At a time on a core: as many as 16 images of 112 x 112 have. A small network embeds 14,100 images of 64 x 64
# a second if 48 are together, and 8,900 if 16 are (2 cores).
_PIXELS = CPU_BATCH * 112 * 112


class NetworkInTraining(BatchEmbedder):
    """Embeds with the network as it is at that moment, by a copy that is made for inference.

    As for the network of a spec, each core of a CPU has a batch of its own, and a converted network has its
    normalisations folded. Until :meth:`follow` there is no network.
    """

    _formats = (torch.channels_last, torch.contiguous_format)

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self._network: nn.Module | None = None
        self._model: Model | None = None
        super().__init__(
            "the network in training", Inputs(), [device], output=None, batch_size=None, precision=precision
        )

    def follow(self, network: nn.Module, inputs: Inputs, output: str | None) -> None:
        """Embed with this network from now on."""
        self._network, self.inputs, self._output = network, inputs, output
        if self._devices[0].type == "cpu" and inputs.size is not None:
            height, width = inputs.size
            self.batch_size = max(CPU_BATCH, _PIXELS // (height * width))
        self.changed()

    def changed(self) -> None:
        """Take note that the network's numbers are others by now."""
        self._model, self._lanes = None, []

    def _place(self, device: torch.device) -> Any:
        assert self._model is not None
        return self._model.on(device)

    def _dtype(self) -> torch.dtype:
        assert self._model is not None
        return self._model.dtype

    def _cpu_lanes(self) -> int:
        return min(cores(), torch.get_num_threads())

    def _gradients_off(self) -> AbstractContextManager[None]:
        return torch.inference_mode()

    @contextmanager
    def _ready(self) -> Iterator[None]:
        if self._model is None:
            if self._network is None:
                raise ValueError("there is no network yet: begin or load one before the first images")
            # The copy is on the network's device, and has its present numbers.
            self._model = inference_model(self._name, _copied(self._network).eval(), self.inputs)
        with super()._ready():
            yield


def _copied(network: nn.Module) -> nn.Module:
    """A copy of a module, which may keep tensors of its last step, such as those of attention."""
    kept = (tensor for part in network.modules() for tensor in tree_leaves(vars(part)))
    of_a_graph = {id(one): one.detach() for one in kept if isinstance(one, torch.Tensor) and not one.is_leaf}
    return copy.deepcopy(network, of_a_graph)  # deepcopy refuses them
