"""Which other identity a smaller group of an identity belongs to."""

from __future__ import annotations

import numpy as np

from fasttriplet.auditing._groups import Groups
from fasttriplet.auditing._identities import elsewhere
from fasttriplet.auditing._neighbors import SCALE, unit


def test_a_smaller_group_is_the_nearest_of_the_identities_that_are_like_it() -> None:
    """Several may be; the group's own identity is never one of them."""
    rng = np.random.default_rng(3)
    found_none = found_several = 0
    for above in (0.2, 0.5, 0.9):
        parts = rng.integers(1, 4, 12)
        identity = np.repeat(np.arange(12), parts)
        sizes = rng.integers(2, 9, len(identity))
        centres = (unit(rng.normal(size=(len(identity), 3))) / SCALE).astype(np.float32)
        lengths = sizes * rng.uniform(0.8, 1, len(identity))
        groups = Groups(np.empty(0, np.int64), identity, sizes, centres, lengths, 0.7)
        first = np.flatnonzero(groups.first)
        expected = np.full(len(identity), -1)
        for minor in np.flatnonzero(~groups.first):
            cosines = centres[first].astype(np.float64) @ centres[minor].astype(np.float64)
            cosines[identity[minor]] = -2
            likeness = cosines * groups.strengths[first] * groups.strengths[minor]
            found_several += (likeness >= above).sum() > 1
            if likeness[cosines.argmax()] >= above:
                expected[minor] = cosines.argmax()
        found_none += (expected[~groups.first] < 0).sum()
        assert elsewhere(groups, above, threads=1).tolist() == expected.tolist()
    assert found_none
    assert found_several
