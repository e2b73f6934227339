"""One device: a network there, and how images get there as its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet.embedders._inputs import Inputs


class Lane:
    """A device with a network on it, to which batches of images go.

    Attributes
    ----------
    device : torch.device
    network : torch.nn.Module
        On the device.
    """

    _memory_format = torch.contiguous_format

    def __init__(
        self, network: Any, device: torch.device, inputs: Inputs, dtype: torch.dtype, batch_size: int
    ) -> None:
        self.network, self.device, self._dtype = network, device, dtype
        self._batch_size = batch_size
        self._reversed = inputs.color == "bgr"
        self._plain = inputs.as_decoded
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
            for values in (inputs.mean, inputs.std)
        )

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Give the network's weights and its input this order in memory; its layers then keep it."""
        if memory_format is not self._memory_format:
            with torch.inference_mode(False):
                self.network.to(memory_format=memory_format)
            self._memory_format = memory_format

    def input(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Make the input of the network, (batch_size, 3, H, W): the images, and black ones after the last."""
        return self._normalised(self._filled(self._empty(images.shape), images).to(self.device))

    def fetch(self, values: torch.Tensor) -> Fetched:
        """Copy a tensor from the device."""
        return Fetched(values.cpu())

    def _empty(self, shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        return torch.empty((self._batch_size, *shape[1:]), dtype=torch.uint8, device="cpu", **options)

    def _filled(self, batch: torch.Tensor, images: NDArray[np.uint8]) -> torch.Tensor:
        pixels = batch.numpy()
        pixels[: len(images)] = images
        pixels[len(images) :] = 0
        return batch

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        planes = pixels.permute(0, 3, 1, 2)
        if self._reversed:
            planes = planes.flip(1)
        values = planes.to(torch.float32, memory_format=self._memory_format, copy=True)
        if not self._plain:
            values.sub_(self._mean).div_(self._std)
        return values.to(self._dtype)


class CudaLane(Lane):
    """A lane to a GPU, with two buffers: one batch is copied while the network runs over the other."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        cuda: Any = torch.cuda  # some versions have no types
        self._copies = cuda.Stream(self.device)
        self._buffers: list[_Buffer] = []

    def input(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Make the input of the network without waiting for the device."""
        shape = images.shape[1:]
        if not self._buffers or self._buffers[0].host.shape[1:] != shape:
            self._buffers = [_Buffer(self._empty(images.shape, pin_memory=True), self.device) for _ in "ab"]
        self._buffers.reverse()
        buffer = self._buffers[0]
        buffer.copied.synchronize()  # what it held before is on the device
        self._filled(buffer.host, images)
        network = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(buffer.used)
            buffer.there.copy_(buffer.host, non_blocking=True)
            buffer.copied.record(self._copies)
        network.wait_event(buffer.copied)
        values = self._normalised(buffer.there)
        buffer.used.record(network)
        return values

    def fetch(self, values: torch.Tensor) -> Fetched:
        """Let the device copy a tensor when it has computed it."""
        host = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        cuda: Any = torch.cuda
        arrived = cuda.Event()
        arrived.record(cuda.current_stream(self.device))
        return Fetched(host, arrived)


class Fetched:
    """A tensor that comes from a device."""

    def __init__(self, values: torch.Tensor, arrived: Any = None) -> None:
        self._values, self._arrived = values, arrived

    def done(self) -> bool:
        """Whether it is here."""
        return self._arrived is None or bool(self._arrived.query())

    def result(self) -> NDArray[Any]:
        """Wait for it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: NDArray[Any] = self._values.numpy()
        return values


class _Buffer:
    """A batch of pixels in pinned memory and on the device, and two moments."""

    def __init__(self, host: torch.Tensor, device: torch.device) -> None:
        self.host = host
        self.there = torch.empty(host.shape, dtype=torch.uint8, device=device)
        cuda: Any = torch.cuda
        self.copied = cuda.Event()  # the device has what `host` holds
        self.used = cuda.Event()  # `there` may be written again
        # The allocator may have given `there` memory that kernels in the queue still use.
        self.used.record(cuda.current_stream(device))
