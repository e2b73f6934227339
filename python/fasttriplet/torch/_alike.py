"""Embedding with one network in several processes, each of which has a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.parameter import is_lazy

import torch
from fasttriplet.run._group import Group

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes


@contextmanager
def alike(module: torch.nn.Module, group: Group) -> Iterator[None]:
    """Lend the module the buffers of process 0 for the block.

    DistributedDataParallel gives all processes the running statistics of process 0 before each forward pass
    of the training. After it they differ.

    Raises
    ------
    ValueError
        If the parameters differ, so that each process trains a network of its own.
    """
    # Lazy ones have no values before the first image.
    parameters = {name: value for name, value in module.named_parameters() if not is_lazy(value)}
    buffers = [buffer for buffer in module.buffers() if not is_lazy(buffer)]
    given: list[NDArray[Any]] = [np.array([_checksum(value) for value in parameters.values()], np.int64)]
    if group.rank == 0:
        given += map(_bytes, buffers)
    found = group.gather(given)
    sums, *of_first = found[0]
    for rank, (others, *_) in enumerate(found):
        if not np.array_equal(sums, others):
            pairs = zip(parameters, sums, others, strict=False)
            which = next((name for name, one, other in pairs if one != other), "their number")
            raise ValueError(
                f"the parameters of the network differ between processes 0 and {rank} ({which}): each trains "
                "one of its own. Wrap it in DistributedDataParallel, which keeps them equal"
            )
    if group.rank == 0:
        yield
        return
    with torch.no_grad():
        before = [buffer.clone() for buffer in buffers]
        try:
            for buffer, values in zip(buffers, of_first, strict=True):
                buffer.copy_(torch.from_numpy(values).view(buffer.dtype).view(buffer.shape))
            yield
        finally:
            for buffer, own in zip(buffers, before, strict=True):
                buffer.copy_(own)


def _checksum(values: torch.Tensor) -> int:
    """The sum of the bits as whole numbers, which is the same in any order of summation."""
    plain = torch.view_as_real(values.detach()) if values.is_complex() else values.detach()
    return int(plain.view(_INTEGERS[plain.element_size()]).sum(dtype=torch.int64))


def _bytes(values: torch.Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = values.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return array
