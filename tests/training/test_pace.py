"""How long a training will still take."""

from __future__ import annotations

import pytest

from fasttriplet.run._summary import Summary
from fasttriplet.training._pace import Pace


def fetch(pace: Pace, summary: Summary, *, bag: tuple[int, int] | None = None, seconds: float = 0.0) -> None:
    """A batch arrives, perhaps after a bag of so many images that gave so many triplets."""
    if bag is not None:
        summary.bags += 1
        summary.images += bag[0]
        summary.triplets += bag[1]
    summary.batches += 1
    assert pace.fetched(summary, seconds) == (bag is not None)


def test_nothing_is_guessed() -> None:
    pace = Pace(20)
    assert pace.seconds_left(100, 0) is None
    pace.embedded(40.0, 4000)  # a verification comes first, and says nothing of batches
    assert pace.seconds_left(100, 4000) is None
    assert pace.seconds_left(0, 4000) == pytest.approx(
        40
    )  # all batches are done, the last verification is not
    assert pace.seconds_left(0, 0) == 0


def test_bags_that_will_be_embedded_count() -> None:
    """The first bag takes 72 s before its 10 batches of 1 s: 100 batches take 10 bags, not 100 s."""
    pace, summary = Pace(20), Summary("")
    fetch(pace, summary, bag=(7200, 200), seconds=72.0)
    pace.stepped(1.0)
    assert pace.seconds_left(9, 0) == pytest.approx(9)  # from the bag that is there
    assert pace.seconds_left(10, 0) == pytest.approx(10 + 72)
    assert pace.seconds_left(99, 0) == pytest.approx(99 + 9 * 72)
    assert pace.seconds_left(99, 4000) == pytest.approx(99 + 9 * 72 + 40)
    assert pace.seconds_left(99, -3600) == pytest.approx(99 + 9 * 72 - 36)  # half of the next bag is embedded


def test_a_network_that_learns_needs_more_bags() -> None:
    pace, summary = Pace(20), Summary("")
    for triplets in (2000, 1000, 400, 200, 200, 200, 200, 200, 200, 200, 200):
        fetch(pace, summary, bag=(1000, triplets), seconds=10.0)
        pace.stepped(1.0)
        for _ in range(triplets // 20 - 1):
            fetch(pace, summary)
            pace.stepped(1.0)
    left = pace.seconds_left(100, 0)
    assert left == pytest.approx(100 + 10 * 10, rel=0.25)


def test_triplets_of_the_state_need_no_bag() -> None:
    pace, summary = Pace(20, triplets=100), Summary("")
    fetch(pace, summary)
    pace.stepped(1.0)
    assert pace.seconds_left(4, 0) == pytest.approx(4)
    assert pace.seconds_left(5, 0) is None


def test_several_bags_may_come_before_a_batch() -> None:
    """Two bags of 500 images that give a batch each: 98 more batches take as many bags."""
    pace, summary = Pace(20), Summary("")
    summary.bags, summary.images = 1, 500
    fetch(pace, summary, bag=(500, 40), seconds=10.0)
    pace.stepped(1.0)
    assert pace.seconds_left(1 + 98, 0) == pytest.approx(99 + 98 * 5)
