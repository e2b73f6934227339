"""A batch of samples that PyTorch's default collation takes as it is."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch.utils.data._utils.collate import collate, default_collate_fn_map

import torch


class _Sample(tuple[Any, ...]):
    """An image and its label, in a batch that is whole already."""

    __slots__ = ()


class WholeBatch(list[Any]):
    """The samples of a batch, which DataLoaders expect as a list, and the tensors that they are parts of.

    PyTorch's default collation would copy all images together again, which takes as long as decoding them.
    """

    def __init__(self, images: Any, labels: torch.Tensor) -> None:
        parts = images.unbind() if isinstance(images, torch.Tensor) else images
        kind = _Sample if isinstance(images, torch.Tensor) else tuple
        super().__init__(map(kind, zip(parts, labels.unbind(), strict=True)))
        self._whole, self._samples = [images, labels], tuple(self)

    def collated(self) -> list[Any] | None:
        """The tensors; None if the list was changed."""
        same = len(self) == len(self._samples) and all(map(operator.is_, self, self._samples))
        return self._whole if same else None


def _collate(batch: Sequence[_Sample], *, collate_fn_map: dict[Any, Any]) -> list[Any]:
    whole = batch.collated() if isinstance(batch, WholeBatch) else None
    if whole is not None:
        return whole
    parts = zip(*map(tuple, batch), strict=True)
    return [collate(part, collate_fn_map=collate_fn_map) for part in parts]


default_collate_fn_map[_Sample] = _collate
