"""Batches of P identities with K images each, as indices of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet import _core
from fasttriplet._checks import epoch_number, seed_number, whole_number
from fasttriplet._splitmix import GOLDEN, mix, mix_array
from fasttriplet._words import counted
from fasttriplet.dataset._ids import Integers, integers
from fasttriplet.dataset._order import epoch_seed
from fasttriplet.errors import OptionError


class IdentityBatchSampler(torch.utils.data.Sampler):
    """Batches of several images of each of several identities, for ``DataLoader(batch_sampler=...)``.

    An epoch is a pass over the images. Those of each identity are shuffled and cut into groups of
    `images_per_identity`, and a batch is `identities_per_batch` groups of different identities: its first K
    indices are of one identity, the next K of another. An identity of fewer images has one group, in which
    they repeat. What does not fill a group or a batch is left out of the epoch, and it is other images in the
    next. If few identities have most of the images, the rest of theirs is left out, too.

    The batches are a function of the labels, the seed and the epoch.

    Parameters
    ----------
    labels : (N,) int
        The label of each image of the dataset, such as ``RecordDataset.targets``: a tensor, an array or a
        list.
    identities_per_batch : int
        P, in the batches of one process.
    images_per_identity : int
        K, at least 1.
    seed : int, default 0
        Seed for all random choices; the same in all processes.
    rank, world_size : int, default 0 and 1
        Which process this is, and of how many. In an epoch the processes have different identities, and the
        same number of batches.

    Attributes
    ----------
    epoch : int
        Which epoch the next iteration is. It goes up when an iteration ends, and an iteration that is left
        before its end begins anew.

    Raises
    ------
    OptionError
        If a number is out of its range, or there are fewer identities than one batch of all processes needs;
        a ValueError.
    ValueError
        If `labels` are not integers.

    Examples
    --------
    >>> from fasttriplet.torch import IdentityBatchSampler
    >>> sampler = IdentityBatchSampler([7, 7, 8, 8, 9, 9, 9], 2, 2)
    >>> [len(batch) for batch in sampler]
    [4]
    """

    def __init__(
        self,
        labels: torch.Tensor | Integers,
        identities_per_batch: int,
        images_per_identity: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if isinstance(labels, torch.utils.data.Dataset):  # NumPy would read all of its images
            raise OptionError(
                "labels",
                f"must be those of the images, such as dataset.targets, not a {type(labels).__name__}",
            )
        array = labels.numpy(force=True) if isinstance(labels, torch.Tensor) else labels
        numbers = integers("labels", array)
        self._identities = whole_number("identities_per_batch", identities_per_batch, 1)
        self._images = whole_number("images_per_identity", images_per_identity, 1, 2**31 - 1)
        self._seed, self._world = seed_number(seed), whole_number("world_size", world_size, 1)
        self._rank = whole_number("rank", rank, 0)
        if self._rank >= self._world:
            raise OptionError("rank", f"must be below world_size, {self._world}, not {self._rank}")
        self._labels = hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()
        # The images of an identity are neighbours in this order.
        self._order = np.argsort(numbers, kind="stable")
        _, self._starts, self._counts = np.unique(numbers[self._order], return_index=True, return_counts=True)
        needed = self._identities * self._world
        if len(self._counts) < needed:
            processes = "" if self._world == 1 else f" for each of {self._world} processes"
            raise OptionError(
                "identities_per_batch",
                f"is {self._identities}{processes}, but the labels have "
                f"{counted(len(self._counts), 'identity')}",
            )
        self._groups = np.maximum(self._counts // self._images, 1)
        # Whichever identities of equal size a part has, and whichever rank has the part, the sizes are these.
        sizes = -np.sort(-self._groups)
        parts = _parts(len(sizes), self._world)
        self._length = min(
            _most_batches(sizes[parts == part], self._identities) for part in range(self._world)
        )
        self.epoch = 0
        self._first = 0  # batch of the next iteration
        self._yielded = 0  # batches of this one

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        self._yielded = self._first
        return _Batches(self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, which begins with its first batch.

        If :meth:`load_state_dict` has chosen the same epoch, it stays in the middle of it.
        """
        if epoch_number(epoch) != self.epoch:
            self.epoch, self._first, self._yielded = int(epoch), 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the last iteration is, or the next one: the epoch, and the number of batches given of it.

        A DataLoader with workers has fetched more batches than it has given. torchdata's
        ``StatefulDataLoader`` knows which, and includes this state in its own.
        """
        return self._state(self.epoch, self._yielded)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration continue where another one was.

        Parameters
        ----------
        state_dict : dict
            What :meth:`state_dict` gave, in any of the processes.

        Raises
        ------
        ValueError
            If it is of other labels, another seed, other sizes of batches or another number of processes.
        """
        self.epoch, self._first = self._place(state_dict)
        self._yielded = self._first

    def _state(self, epoch: int, yielded: int) -> dict[str, Any]:
        return {"epoch": epoch, "yielded": yielded} | self._own()

    def _own(self) -> dict[str, Any]:
        """What a state must have in common with this sampler."""
        return {
            "labels": self._labels,
            "identities_per_batch": self._identities,
            "images_per_identity": self._images,
            "seed": self._seed,
            "world_size": self._world,
        }

    def _place(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """The epoch and the batch of a state."""
        own = self._own()
        if not isinstance(state, Mapping) or not {"epoch", "yielded", *own} <= state.keys():
            raise ValueError("the state is not one of an IdentityBatchSampler")
        if state["labels"] != self._labels:
            raise ValueError(
                "the state was saved with other labels: the dataset is another one, or was changed; give the "
                "sampler the labels that it had, or begin anew"
            )
        for name, value in own.items():
            if state[name] != value:
                raise ValueError(
                    f"the state was saved with {name}={state[name]}, and the sampler has {name}={value}; "
                    "give it the same to continue, or begin anew"
                )
        epoch, yielded = epoch_number(state["epoch"]), state["yielded"]
        return epoch, whole_number("yielded", yielded, 0, len(self))

    def _batches(self, epoch: int) -> NDArray[np.int64]:
        """The indices of all batches of an epoch: (len, P * K)."""
        seed, each, count = epoch_seed(self._seed, epoch), self._images, len(self)
        size = self._identities * each
        # The indices twice: as numbers within an identity, and as positions.
        _core.probe_memory(16 * size * count, f"the {counted(count * size, 'place')} of an epoch")
        shuffled = np.argsort(_draws(seed, 0, len(self._counts)))
        by_size = shuffled[np.argsort(-self._groups[shuffled], kind="stable")]
        part = np.argsort(_draws(seed, 1, self._world))[self._rank]
        mine = by_size[_parts(len(by_size), self._world) == part]
        mine = mine[np.argsort(_draws(seed, 2, len(self._counts))[mine])]
        # An identity has at most as many groups as there are batches, so that each goes to another batch.
        groups = np.minimum(self._groups[mine], count)
        number = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)
        laps = (self._identities, count)
        identity = np.repeat(np.arange(len(mine)), groups)[: laps[0] * laps[1]].reshape(laps)
        number = number[: laps[0] * laps[1]].reshape(laps)
        to = _spread(identity, seed)
        placed = np.empty((2, *laps), np.int64)
        np.put_along_axis(placed[0], to, identity, axis=1)
        np.put_along_axis(placed[1], to, number, axis=1)
        identity, number = placed[0].T, placed[1].T  # (batches, P)
        images, starts = self._shuffled_images(mine, seed)
        within = number[..., None] * each + np.arange(each)
        return images[starts[identity][..., None] + within % self._counts[mine][identity][..., None]].reshape(
            count, -1
        )

    def _shuffled_images(
        self, mine: NDArray[np.int64], seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The images of some identities, shuffled within each, and where those of each begin."""
        counts = self._counts[mine]
        starts = np.cumsum(counts) - counts
        whose = np.repeat(np.arange(len(mine)), counts)
        images = self._order[np.arange(len(whose)) - starts[whose] + self._starts[mine][whose]]
        draws = mix_array(images.view(np.uint64) + np.uint64(mix(seed + 4 * GOLDEN)))
        # By identity, then draw, as one number: a sort by two takes ten times as long.
        bits = len(mine).bit_length()
        keys = whose.astype(np.uint64) << np.uint64(64 - bits) | draws >> np.uint64(bits)
        return images[np.argsort(keys, kind="stable")], starts


class _Batches(Iterator[list[int]]):
    """One iteration, which can say where it is and continue elsewhere, as torchdata asks of an iterator."""

    def __init__(self, sampler: IdentityBatchSampler) -> None:
        self._sampler = sampler
        self._batches: NDArray[np.int64] | None = None
        self._loaded: tuple[int, int] | None = None
        self._epoch = self._next = 0

    def __next__(self) -> list[int]:
        sampler = self._sampler
        if self._batches is None:
            # Not before: a DataLoader makes iterators that it does not use.
            self._epoch, self._next = self._loaded or (sampler.epoch, sampler._first)
            self._loaded, sampler._first = None, 0
            self._batches = sampler._batches(self._epoch)
        if self._next >= len(self._batches):
            sampler.epoch, sampler._yielded = self._epoch + 1, 0
            raise StopIteration
        batch: list[int] = self._batches[self._next].tolist()
        self._next += 1
        sampler.epoch, sampler._yielded = self._epoch, self._next
        return batch

    def state_dict(self) -> dict[str, Any]:
        if self._batches is not None:
            return self._sampler._state(self._epoch, self._next)
        return self._sampler.state_dict() if self._loaded is None else self._sampler._state(*self._loaded)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        sampler = self._sampler
        self._loaded, self._batches = sampler._place(state_dict), None
        epoch, first = self._loaded
        # If nothing is left, a loader may drop this iterator, and its next one is of the next epoch.
        sampler.epoch, sampler._first = epoch + (first == len(sampler)), 0


def _draws(seed: int, what: int, count: int) -> NDArray[np.uint64]:
    return mix_array(np.arange(count, dtype=np.uint64) + np.uint64(mix(seed + (what + 1) * GOLDEN)))


def _parts(identities: int, parts: int) -> NDArray[np.int64]:
    """Which part each identity is in, largest first: dealt out to and fro, so that all parts are alike."""
    at, back = np.arange(identities) % parts, np.arange(identities) // parts % 2 == 1
    return np.where(back, parts - 1 - at, at)


def _most_batches(groups: NDArray[np.int64], identities: int) -> int:
    """The most batches that can be filled, each with groups of `identities` different identities.

    A batch takes at most one group of an identity. If the groups within that limit fill the places in all
    batches, they can be laid out (see `_spread`).
    """
    least, most = 1, int(groups.sum()) // identities
    while least < most:
        middle = (least + most + 1) // 2
        enough = np.minimum(groups, middle).sum() >= middle * identities
        least, most = (middle, most) if enough else (least, middle - 1)
    return least


def _spread(identity: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each lap, the batches that its groups go to: a permutation for each row of (P, batches).

    The groups of an identity are neighbours, so that they lie in one lap or in two. Those of the second go to
    batches where the first has none.
    """
    to = np.empty_like(identity)
    for lap, row in enumerate(identity):
        order = np.argsort(_draws(seed, 5 + lap, len(row)))
        if lap and row[0] == identity[lap - 1, -1]:
            taken = np.zeros(len(row), dtype=bool)
            taken[to[lap - 1][identity[lap - 1] == row[0]]] = True
            free = order[~taken[order]][: np.count_nonzero(row == row[0])]
            taken[:] = False
            taken[free] = True
            order = np.concatenate([free, order[~taken[order]]])
        to[lap] = order
    return to
