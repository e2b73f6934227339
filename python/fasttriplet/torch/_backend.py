"""PyTorch's part of a training: a module, its optimizer, and all numbers that they consist of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.parameter import is_lazy

import torch
from fasttriplet.embedders._batches import is_shortage, shortage
from fasttriplet.run._feed import TripletBatch
from fasttriplet.torch._architecture import Architecture, architecture_of
from fasttriplet.torch._export import EXPORTS, check_export, export
from fasttriplet.torch._in_training import NetworkInTraining
from fasttriplet.torch._layout import laid_out
from fasttriplet.torch._loss import triplet_losses
from fasttriplet.torch._network_files import ENDINGS, check_safetensors, write_network
from fasttriplet.torch._optimizer import kept_by, optimizer_of, set_learning_rate
from fasttriplet.torch._outputs import chosen_output
from fasttriplet.torch._precision import computing_in
from fasttriplet.torch._pretrained import begun
from fasttriplet.torch._processes import device_of, joined
from fasttriplet.torch._reproducible import drawing_from, prepare, reproducible
from fasttriplet.torch._threads import use_no_lost_threads
from fasttriplet.training._backend import Backend
from fasttriplet.training._settings import TrainSettings
from torch import nn


class TrainingBackend(Backend):
    """A module with the triplet loss; see :class:`fasttriplet.training._backend.Backend`."""

    endings = ENDINGS
    exports = EXPORTS

    def __init__(self, settings: TrainSettings, devices: str | Sequence[str] | None) -> None:
        check_safetensors()
        use_no_lost_threads()
        self._settings, self._device = settings, device_of(devices)
        prepare(self._device)
        self._processes = joined(self._device)
        self.group = None if self._processes is None else self._processes.group
        self.devices = (str(self._device),)
        self.embedder = NetworkInTraining(self._device, settings.precision)
        self.sums = [0.0] * 4

    def begin(self, image_size: tuple[int, int]) -> None:
        """See :meth:`Backend.begin`."""
        settings, architecture = self._settings, self._of_settings(image_size)
        self._set(architecture, begun(architecture, settings.pretrained, settings.seed))

    def load(self, network: Any, arrays: Mapping[str, NDArray[Any]], image_size: tuple[int, int]) -> None:
        """See :meth:`Backend.load`."""
        try:
            architecture = Architecture.from_dict(network)
        except ValueError as error:
            raise ValueError(f"network: {error}") from error
        if architecture.inputs.size != image_size:
            size = architecture.inputs.size
            raise ValueError(f"network is for images of {size} (H, W), and the dataset has {image_size}")
        by_function = self._settings.network_is_module
        if by_function != (architecture.factory is not None) or (
            by_function and architecture != self._of_settings(image_size)
        ):
            raise ValueError("network is not the one that the settings name")
        self._set(architecture, architecture.make(numbers=sum(values.size for values in arrays.values())))
        own = dict(self._tensors())
        for name, values in own.items():
            _fill(values, name, arrays)
        if unknown := arrays.keys() - own.keys():
            raise ValueError(f"the network has no {min(unknown)}")
        self.embedder.changed()

    def _of_settings(self, image_size: tuple[int, int]) -> Architecture:
        settings = self._settings
        return architecture_of(settings.network, settings.symbol, settings.embedding_size, image_size)

    def _set(self, architecture: Architecture, network: nn.Module) -> None:
        """Take a network, and see that it takes images as the dataset has them."""
        if any(values.is_meta for values in chain(network.parameters(), network.buffers())):
            raise ValueError(
                "the network is on the device meta, which holds no weights: move it with to_empty()"
            )
        self._architecture, self._network = architecture, network.to(self._device)
        self._memory_format = torch.contiguous_format
        self._memory_format = self._format_that_it_takes()
        for name, values in network.state_dict().items():
            if values.is_complex():  # which a state could not hold
                raise ValueError(f"the network has complex numbers, in {name}: make two real ones of each")
        if self._processes is not None:  # a function may draw other weights in each of them
            self._processes.take_first(chain(network.parameters(), network.buffers()))
        self._optimizer = optimizer_of(self._network, self._settings)
        self.embedder.follow(self._network, architecture.inputs, architecture.output)

    def _format_that_it_takes(self) -> torch.memory_format:
        """The order of values in memory that is fastest, unless the network fails with it."""
        network, size = self._network.eval(), self._architecture.inputs.size
        assert size is not None
        images = self.layout(np.zeros((3, *size, 3), np.uint8), np.arange(3), ids=np.arange(3))
        for memory_format in (torch.channels_last, torch.contiguous_format):
            try:
                with torch.no_grad(), drawing_from(self._settings.seed):
                    if any(map(is_lazy, network.parameters())):  # weights that the first images draw
                        network(self._input(images, torch.contiguous_format))
                    network.to(memory_format=memory_format)
                    found = network(self._input(images, memory_format))
                break
            except Exception as error:  # a network's code may raise anything
                failure = error
        else:
            if is_shortage(failure):
                raise shortage("the training", self.devices, 3, size) from failure
            reason = str(failure).strip().partition("\n")[0]
            others = {weight.dtype for weight in network.parameters()} - {torch.float32}
            hint = f". It has weights in {min(map(str, others))}, and gets float32" if others else ""
            raise ValueError(
                f"the network does not take images of {size[0]} x {size[1]} (H x W): {reason}{hint}"
            ) from failure
        self._embedding(found, len(images))
        return memory_format

    def _input(self, images: Any, memory_format: torch.memory_format) -> torch.Tensor:
        """What the network is given for images that were laid out."""
        there = torch.as_tensor(images, device="cpu").to(self._device, non_blocking=True)
        return there.to(memory_format=memory_format)

    def _embedding(self, found: Any, images: int) -> torch.Tensor:
        return chosen_output(found, self._architecture.output, images)

    @property
    def network(self) -> Any:
        """What the network is, see :class:`fasttriplet.torch._architecture.Architecture`."""
        return self._architecture.to_dict()

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All numbers of the training, which can be overwritten in place."""
        yield from ((f"network:{name}", values) for name, values in self._network.state_dict().items())
        yield from kept_by(self._optimizer, self._network)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and running statistics by their names in the module, and what the optimizer keeps."""
        return {name: _array(values) for name, values in self._tensors()}

    def layout(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64], **options: Any) -> Any:
        """Lay images out as the network takes them fastest, in pinned memory for a GPU."""
        return laid_out(
            pixels,
            rows,
            inputs=self._architecture.inputs,
            device=self._device,
            memory_format=self._memory_format,
            **options,
        )

    def step(self, batch: TripletBatch, learning_rate: float, seed: int) -> None:
        """Train on one batch."""
        settings, network, images = self._settings, self._network.train(), batch.images
        set_learning_rate(self._optimizer, learning_rate)
        try:
            with reproducible(seed), computing_in(settings.precision, self._device):
                embeddings = self._embedding(network(self._input(images, self._memory_format)), len(images))
                if not embeddings.requires_grad:
                    raise ValueError(
                        "the embedding has no gradient: the network detaches it, or computes in "
                        "torch.no_grad()"
                    )
                lost = triplet_losses(embeddings, settings.margin_of_loss, settings.loss)
                self._optimizer.zero_grad(set_to_none=True)
                lost.mean().backward()
                lost = lost.detach()
                norms = embeddings.detach().float().norm(dim=1).mean() * len(lost)
                of_batch = torch.stack(
                    [lost.sum(), (lost > 0).sum(), norms, norms.new_tensor(len(lost))]
                ).double()
                if self._processes is not None:
                    self._processes.average(network.parameters(), of_batch)
                if settings.clip_norm is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
                self._optimizer.step()
                if self._processes is not None:
                    self._processes.take_first(network.buffers())
        except Exception as error:
            if is_shortage(error):
                size = images.shape[2], images.shape[3]
                raise shortage("the training", self.devices, settings.batch_size, size) from error
            raise
        self.embedder.changed()
        self.sums = [total + more for total, more in zip(self.sums, of_batch.tolist(), strict=True)]

    def save(self, prefix: str) -> None:
        """Write ``PREFIX.json`` and ``PREFIX.safetensors``."""
        write_network(prefix, self._architecture, self._network)

    def spec(self, prefix: str) -> str:
        """``torch:PREFIX``."""
        return f"torch:{prefix}"

    def check_export(self, kind: str) -> None:
        """See :meth:`Backend.check_export`."""
        check_export(kind, is_graph=not self._settings.network_is_module)

    def export(self, prefix: str, kind: str) -> None:
        """Write ``PREFIX-symbol.json`` and ``PREFIX-0000.params``, or ``PREFIX.onnx``."""
        export(prefix, kind)


def _array(values: torch.Tensor) -> NDArray[Any]:
    """The numbers of a tensor, exactly; NumPy knows no bfloat16, and states hold no truth values."""
    plain = values.detach()
    if plain.dtype is torch.bfloat16:
        plain = plain.float()
    elif plain.dtype is torch.bool:
        plain = plain.to(torch.uint8)
    return np.array(plain.numpy(force=True), order="C")


def _fill(values: torch.Tensor, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    wanted, given = _array(values), arrays[name]
    if given.shape != wanted.shape or given.dtype != wanted.dtype:
        raise ValueError(f"{name} is {given.dtype} {given.shape}, not {wanted.dtype} {wanted.shape}")
    with torch.no_grad():
        values.copy_(torch.from_numpy(np.array(given, order="C")))
