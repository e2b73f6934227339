"""A training in several processes, as torchrun starts them: a device each, and the same network in all."""

from __future__ import annotations

import atexit
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

import torch
from fasttriplet.errors import OptionError, PeerError
from fasttriplet.torch._devices import devices_of
from fasttriplet.torch._group import TorchGroup
from torch import nn

# The first process verifies the network and writes files while the others wait for it in a step.
_PATIENCE = timedelta(days=30)


def device_of(wanted: str | Sequence[str] | None) -> torch.device:
    """The device that this process trains on; an OptionError if the user names too many, or too few."""
    found, here = devices_of(wanted), _number("LOCAL_WORLD_SIZE")
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
    return found[_number("LOCAL_RANK", 0)]


def joined(device: torch.device) -> Processes | None:
    """The processes that train together; None if torchrun has not started several."""
    if not dist.is_available():
        return None
    if not dist.is_initialized():
        if _number("WORLD_SIZE") == 1 or "RANK" not in os.environ:
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
        with _ending_together():
            dist.all_reduce(together)
            sums.copy_(together[: len(sums)])
            anywhere = together[len(sums) :].tolist()
            for weight, processes in zip(weights, anywhere, strict=True):
                if processes and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            for of_type in _by_type(gradients):
                flat = torch.cat([gradient.reshape(-1) for gradient in of_type])
                dist.all_reduce(flat)
                _spread(flat.div_(self.group.size), of_type)

    def take_first(self, buffers: Iterable[torch.Tensor]) -> None:
        """Set tensors, such as running statistics, to those of the first process."""
        with _ending_together():
            for of_type in _by_type(buffers):
                flat = torch.cat([buffer.reshape(-1) for buffer in of_type])
                flat = flat.to(torch.uint8) if flat.dtype is torch.bool else flat
                dist.broadcast(flat, 0)
                _spread(flat, of_type)


def _by_type(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    found: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
    for tensor in tensors:
        found[tensor.dtype].append(tensor)
    return list(found.values())


def _spread(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


@contextmanager
def _ending_together() -> Iterator[None]:
    """Say of an error of the connection that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(f"another process of the training has ended: {error}") from error


def _number(name: str, least: int = 1) -> int:
    """A number that torchrun gives to its processes."""
    text = os.environ.get(name, "")
    return max(least, int(text)) if text.isdigit() else least


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
