"""A training in several processes, as torchrun starts them: a device each, and the same network in all."""

from __future__ import annotations

import atexit
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

import torch
from fasttriplet._launcher import launched, launched_here, rank_here
from fasttriplet.errors import OptionError, PeerError
from fasttriplet.torch._devices import devices_of
from fasttriplet.torch._group import TorchGroup
from torch import nn

# The first process verifies the network and writes files while all other processes wait for it in a step.
_PATIENCE = timedelta(days=30)


def device_of(wanted: str | Sequence[str] | None) -> torch.device:
    """The device that this process trains on; an OptionError if the user names too many, or too few."""
    found, here = devices_of(wanted), launched_here()
    if here == 1:
        if wanted is not None and len(found) > 1:
            raise OptionError(
                "devices",
                f"must name one device for a training with PyTorch, not {len(found)}: each process has one. "
                f"For several GPUs, run: torchrun --nproc-per-node {len(found)} -m fasttriplet train ...",
            )
        return found[0]
    if found[0].type == "cpu":
        return found[0]
    if len(found) < here:
        raise OptionError(
            "devices", f"must have a GPU for each of the {here} processes on this machine, not {len(found)}"
        )
    return found[rank_here()]


def joined(device: torch.device) -> Processes | None:
    """The processes that train together; None if torchrun has not started several."""
    if not dist.is_available():
        return None
    if not dist.is_initialized():
        if launched() == 1:
            return None
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return Processes() if dist.get_world_size() > 1 else None


class Processes:
    """Keeps the numbers of a network equal in all processes.

    Not by DistributedDataParallel: its buckets change after the first step, and with them the order in which
    it adds, so that a training that is resumed would differ in the last bits.

    Attributes
    ----------
    group : TorchGroup
        Connects the feeds.
    """

    def __init__(self) -> None:
        self.group = TorchGroup()

    def average(self, weights: Iterable[nn.Parameter], sums: torch.Tensor) -> None:
        """Set the gradients to their means over all processes, and `sums` to its sum.

        A weight that the batches of some processes did not reach has a gradient of 0 there.
        """
        weights = list(weights)
        reached = sums.new_tensor([weight.grad is not None for weight in weights])
        together = torch.cat([sums, reached])
        with self._connected():
            dist.all_reduce(together)
        sums.copy_(together[: len(sums)])
        anywhere = together[len(sums) :].tolist()
        for weight, processes in zip(weights, anywhere, strict=True):
            if processes and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for of_type in _by_type(gradients):
            flat = _joined(of_type)
            with self._connected():
                dist.all_reduce(flat)
            _spread(flat.div_(self.group.size), of_type)

    def take_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Set tensors, such as running statistics, to those of the first process."""
        for of_type in _by_type(tensors):
            flat = _joined(of_type)
            flat = flat.to(torch.uint8) if flat.dtype is torch.bool else flat
            with self._connected():
                dist.broadcast(flat, 0)
            _spread(flat, of_type)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn an error of the connection, all that the block may raise, into a PeerError."""
        try:
            yield
        except RuntimeError as error:
            self.group.check()
            raise PeerError(f"another process of the training has ended: {error}") from error


def _by_type(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    found: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
    for tensor in tensors:
        found[tensor.dtype].append(tensor)
    return list(found.values())


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _spread(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
