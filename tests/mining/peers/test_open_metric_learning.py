"""open-metric-learning's miners, and the options that give the same triplets.

There is nothing for `AllTripletsMiner(max_output_triplets=...)`, which limits the triplets of a batch and not
those of an anchor, nor for `HardClusterMiner`, whose anchors and negatives are means of identities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.mining.peers.compared import EDGE, Triples, apart, gap, mined, triples

pytestmark = pytest.mark.torch


@pytest.fixture
def oml() -> Any:
    return pytest.importorskip("oml.miners", exc_type=ImportError)


def batches() -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    made = [apart(36, 5, seed, normalize=False) for seed in range(4)]
    assert all(gap(rows, normalize=False, margins=(0,)) > EDGE for rows, _ in made)
    return made


def ours(rows: NDArray[np.float32], labels: NDArray[np.int64], **options: Any) -> Triples:
    return mined(rows, labels, band="any", metric="euclidean", normalize=False, **options)


def theirs(miner: Any, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Triples:
    import torch  # noqa: PLC0415

    return triples(miner._sample(torch.from_numpy(rows), labels=labels.tolist()))


def test_hard_triplets_miner(oml: Any) -> None:
    for rows, labels in batches():
        assert ours(rows, labels, pairs="hardest", pick="hardest") == theirs(
            oml.HardTripletsMiner(), rows, labels
        )


def test_all_triplets_miner(oml: Any) -> None:
    for rows, labels in batches():
        assert ours(rows, labels, pairs="ordered", pick="all") == theirs(oml.AllTripletsMiner(), rows, labels)


N_HARD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # theirs and ours
    "the hardest": ({}, {"pick": "hardest"}),
    "some": (
        {"n_positive": 2, "n_negative": 5},
        {"positives_per_anchor": 2, "pick": "hardest", "negatives_per_pair": 5},
    ),
    "more than there are": (
        {"n_positive": 50, "n_negative": 50},
        {"positives_per_anchor": 50, "pick": "hardest", "negatives_per_pair": 50},
    ),
    # They count from 1 and include the end, ranks count from 0 and leave it out.
    "from the second to the fifth": ({"n_negative": (2, 5)}, {"ranks": (1, 5), "pick": "all"}),
    "the third": ({"n_negative": (3, 3)}, {"ranks": (2, 3), "pick": "hardest"}),
    "both": (
        {"n_positive": 3, "n_negative": (11, 20)},
        {"positives_per_anchor": 3, "ranks": (10, 20), "pick": "all"},
    ),
}


@pytest.mark.parametrize("case", N_HARD)
def test_n_hard_triplets_miner(oml: Any, case: str) -> None:
    settings, options = N_HARD[case]
    for rows, labels in batches():
        found = ours(rows, labels, pairs="hardest", **options)
        assert found == theirs(oml.NHardTripletsMiner(**settings), rows, labels)


def test_a_range_of_positives_takes_two_calls(oml: Any) -> None:
    """`ranks` are of negatives alone: what the first four positives give, less what the first gives."""
    for rows, labels in batches():
        first, four = (
            ours(rows, labels, pairs="hardest", positives_per_anchor=count, pick="hardest")
            for count in (1, 4)
        )
        assert four - first == theirs(oml.NHardTripletsMiner(n_positive=(2, 4)), rows, labels)
