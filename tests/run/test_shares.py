"""How a bag is divided among processes, by properties."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fasttriplet.run._shares import Dealt, share_of


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 9))
def test_shares_are_whole_identities_and_even(runs: list[int], size: int) -> None:
    labels = np.repeat(np.arange(len(runs)), runs)
    shares = [labels[share_of(labels, rank, size)] for rank in range(size)]
    assert np.array_equal(np.concatenate(shares), labels)
    assert sum(len(set(share.tolist())) for share in shares) == len(runs)
    assert all(abs(len(share) - len(labels) / size) <= max(runs, default=0) for share in shares)


@given(
    size=st.integers(1, 5),
    batch=st.integers(1, 4),
    bags=st.lists(st.lists(st.integers(0, 4), max_size=30), max_size=6),
)
def test_dealing_is_even_and_keeps_all(size: int, batch: int, bags: list[list[int]]) -> None:
    """Each bag is a list of the processes that hold its anchors."""
    dealt, number, handed = Dealt.evenly(0, 0, np.empty((0, 3), np.int64), size), 0, []
    for bag, holders in enumerate(bags):
        held = np.array([holder % size for holder in holders], np.int64)
        triplets = np.arange(number, number + 3 * len(held)).reshape(-1, 3)
        number += 3 * len(held)
        before, dealt = dealt, dealt.followed_by(0, bag, triplets, held)
        lengths = list(map(len, dealt.of))
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] - lengths[-1] <= 1
        for rank, (earlier, own) in enumerate(zip(before.of, dealt.of, strict=True)):
            assert np.array_equal(own[: len(earlier)], earlier)  # what waits does not move
            kept = [triplet for triplet in triplets[held == rank].tolist() if triplet in own.tolist()]
            assert own[len(earlier) :][: len(kept)].tolist() == kept
            others = len(own) - len(earlier) - len(kept)
            assert others == 0 or len(kept) == (held == rank).sum()  # takes only if it has given none
        halves = Dealt.evenly(0, bag, dealt.joined, size).of  # as a state is read
        assert all(map(np.array_equal, halves, dealt.of))
        ready = dealt.each // batch * batch
        handed += dealt.until(ready).joined.tolist()
        dealt = dealt.after(ready)
    assert sorted(handed + dealt.joined.tolist()) == np.arange(number).reshape(-1, 3).tolist()
