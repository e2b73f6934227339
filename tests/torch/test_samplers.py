"""Batches of P identities with K images each: what is in them, over epochs, ranks and restarts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fasttriplet.errors import OptionError

torch = pytest.importorskip("torch")

from torch.utils.data import Dataset  # noqa: E402

from fasttriplet.torch import IdentityBatchSampler  # noqa: E402

pytestmark = pytest.mark.torch


def labels_of(sizes: list[int], seed: int = 0) -> NDArray[np.int64]:
    """Labels with gaps, in random order: one identity for each size."""
    labels = np.repeat(np.arange(len(sizes)) * 3 + 5, sizes)
    return np.random.default_rng(seed).permutation(labels)


def check(batches: list[list[int]], labels: NDArray[np.int64], identities: int, images: int) -> None:
    """Each batch has P identities, K images of each; images repeat only where an identity has too few."""
    counts = Counter(labels.tolist())
    for batch in batches:
        found = labels[batch].reshape(identities, images)
        assert (found == found[:, :1]).all()
        assert len(set(found[:, 0])) == identities
    seen = Counter(index for batch in batches for index in batch)
    for index, times in seen.items():
        count = counts[int(labels[index])]
        assert times <= (1 if count >= images else -(-images // count)), (index, times)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 14), min_size=1, max_size=24),
    identities=st.integers(1, 5),
    images=st.integers(1, 4),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_batches_of_all_ranks(
    sizes: list[int], identities: int, images: int, world_size: int, seed: int
) -> None:
    labels = labels_of(sizes)
    if len(sizes) < identities * world_size:
        with pytest.raises(OptionError, match="but the labels have"):
            IdentityBatchSampler(labels, identities, images, world_size=world_size)
        return
    samplers = [
        IdentityBatchSampler(labels, identities, images, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        ranks = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in ranks} == {len(samplers[0])}
        assert len(samplers[0]) > 0
        for batches in ranks:
            check(batches, labels, identities, images)
        of_ranks = [{int(labels[index]) for batch in batches for index in batch} for batches in ranks]
        assert sum(map(len, of_ranks)) == len(set.union(*of_ranks)), "ranks have different identities"
    if world_size == 1:
        # No more batches can be filled: of an identity, each takes one group at most.
        groups = np.maximum(np.array(sizes) // images, 1)
        more = len(samplers[0]) + 1
        assert np.minimum(groups, more).sum() < more * identities


def test_an_epoch_is_a_pass_over_the_images() -> None:
    labels = labels_of([12] * 40)
    sampler = IdentityBatchSampler(labels, 8, 4)
    assert len(sampler) == 15
    first, second = list(sampler), list(sampler)
    assert sorted(index for batch in first for index in batch) == list(range(480))
    assert first != second, "the next epoch is another one"
    together = {
        frozenset(pair)
        for batch in first
        for pair in np.unique(labels[batch])[np.array(np.triu_indices(8, 1)).T].tolist()
    }
    assert len(together) > 270, "15 batches of 28 pairs: identities meet others in each batch"


def test_epochs_are_reproducible() -> None:
    labels = labels_of([3, 9, 1, 4, 7, 5])
    a, b = (IdentityBatchSampler(labels, 2, 2, seed=7) for _ in range(2))
    epochs = [list(a) for _ in range(3)]
    assert a.epoch == 3
    b.set_epoch(2)
    assert list(b) == epochs[2]
    b.set_epoch(1)
    assert list(b) == epochs[1]
    assert list(IdentityBatchSampler(torch.from_numpy(labels), 2, 2, seed=7)) == epochs[0]
    assert list(IdentityBatchSampler(labels.tolist(), 2, 2, seed=7)) == epochs[0]
    assert list(IdentityBatchSampler(labels, 2, 2, seed=8)) != epochs[0]
    assert epochs[0][:2] == FROZEN, "a run that is repeated with a later version has the same batches"


FROZEN = [[10, 7, 23, 9], [1, 8, 0, 17]]


def test_a_state_in_the_middle_of_an_epoch() -> None:
    labels = labels_of([6] * 10)
    one = IdentityBatchSampler(labels, 2, 2, rank=1, world_size=2)
    one.set_epoch(3)
    whole, iteration = list(one), iter(one)
    one.set_epoch(3)
    iteration = iter(one)
    assert [next(iteration) for _ in range(4)] == whole[:4]
    state = one.state_dict()
    assert (state["epoch"], state["yielded"]) == (3, 4)
    other = IdentityBatchSampler(labels, 2, 2, rank=1, world_size=2)
    other.load_state_dict(state)
    assert other.state_dict() == state
    other.set_epoch(3)  # as loops do before each epoch
    assert list(other) == whole[4:]
    assert (other.epoch, list(other)) == (4, list(one_at(one, 4)))
    other.load_state_dict(state)
    other.set_epoch(5)
    assert list(other) == list(one_at(one, 5)), "another epoch begins with its first batch"
    iteration = iter(other)
    next(iteration)
    assert len(list(other)) == len(other), "an iteration that was left begins anew"


def one_at(sampler: Any, epoch: int) -> Any:
    sampler.set_epoch(epoch)
    return sampler


def test_a_state_of_an_epoch_that_was_chosen_is_of_its_beginning() -> None:
    first, second = (IdentityBatchSampler(labels_of([6] * 4), 2, 2) for _ in "ab")
    next(iter(first))
    first.set_epoch(4)
    second.load_state_dict(first.state_dict())
    assert list(second) == list(first)


def test_states_that_do_not_fit() -> None:
    labels = labels_of([6] * 10)

    def sampler(labels: Any = labels, identities: int = 2, images: int = 2, **more: int) -> Any:
        return IdentityBatchSampler(labels, identities, images, **more)

    state = sampler().state_dict()
    for other, message in [
        (sampler(labels[:-1]), "the state was saved with other labels: the dataset is another one"),
        (sampler(world_size=2), "world_size=1, and the sampler has world_size=2"),
        (sampler(seed=1), "seed=0, and the sampler has seed=1"),
        (sampler(identities=3), "identities_per_batch=2, and the sampler has identities_per_batch=3"),
        (sampler(images=3), "images_per_identity=2, and the sampler has images_per_identity=3"),
    ]:
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        with pytest.raises(ValueError, match=message):
            iter(other).load_state_dict(state)
    for wrong in ({}, {"epoch": 0}, None):
        with pytest.raises(ValueError, match="not one of an IdentityBatchSampler"):
            sampler().load_state_dict(wrong)
    with pytest.raises(OptionError, match="yielded must be a whole number up to"):
        sampler().load_state_dict(state | {"yielded": 1000})
    sampler(rank=1, world_size=2).load_state_dict(sampler(world_size=2).state_dict())  # of any rank


class Unread(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank must be below world_size, 2, not 2"),
        ({"rank": -1}, "rank must be a whole number >= 0"),
        ({"world_size": 0}, "world_size must be a whole number >= 1"),
        ({"world_size": 3}, "is 2 for each of 3 processes, but the labels have 4 identities"),
        ({"identities_per_batch": 0}, "identities_per_batch must be a whole number >= 1"),
        ({"images_per_identity": 1.5}, "images_per_identity must be a whole number >= 1"),
        ({"images_per_identity": 2**31}, "images_per_identity must be a whole number up to"),
        ({"labels": [0.5, 1.5]}, "labels must be a list of integers"),
        ({"labels": []}, "but the labels have 0 identities"),
        ({"labels": Unread()}, "labels must be those of the images, such as dataset.targets, not a Unread"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    chosen: dict[str, Any] = {
        "labels": [0, 0, 1, 1, 2, 2, 3, 3],
        "identities_per_batch": 2,
        "images_per_identity": 2,
    }
    with pytest.raises(ValueError, match=message):
        IdentityBatchSampler(**(chosen | options))


def test_an_epoch_for_which_there_is_no_memory() -> None:
    sampler = IdentityBatchSampler([0, 0, 1, 1], 2, 2**31 - 1)
    with pytest.raises(MemoryError, match=r"not enough memory: .* the 4,294,967,294 places of an epoch"):
        next(iter(sampler))


class Numbers(Dataset):
    """Each sample is its index."""

    def __len__(self) -> int:
        return 72

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork while threads run
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_stateful_loader_resumes(workers: int, persistent: bool) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    labels = labels_of([6] * 12)

    def loader() -> tuple[Any, Any]:
        sampler = IdentityBatchSampler(labels, 3, 2, seed=1)
        persists = {"persistent_workers": persistent} if workers else {}
        made = stateful.StatefulDataLoader(Numbers(), batch_sampler=sampler, num_workers=workers, **persists)
        return made, sampler

    def batches(made: Any, most: int | None = None) -> list[list[int]]:
        found = []
        for batch in made:
            found.append(batch.tolist())
            if len(found) == most:
                break
        return found

    plain = IdentityBatchSampler(labels, 3, 2, seed=1)
    epochs = [list(plain) for _ in range(3)]
    for count, epoch in ((5, 0), (12, 0), (None, 1)):  # in the middle, at the last batch, after the end
        first, _ = loader()
        assert batches(first, count) == epochs[0][:count]
        state = first.state_dict()
        del first
        second, sampler = loader()
        second.load_state_dict(state)
        sampler.set_epoch(epoch)
        rest = batches(second)
        assert rest == (epochs[0][count:] if count is not None else epochs[1])
        sampler.set_epoch(epoch + 1)
        assert batches(second) == epochs[epoch + 1]
        if count == 5:
            third, _ = loader()
            third.load_state_dict(state)
            assert batches(third, 3) == epochs[0][5:8]
            state = third.state_dict()
            del third
            fourth, _ = loader()
            fourth.load_state_dict(state)
            assert batches(fourth) == epochs[0][8:], "resumed twice"
            del fourth
            assert batches(second) == epochs[2], "the epoch goes up by itself"
        del second
