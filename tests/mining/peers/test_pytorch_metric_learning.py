"""pytorch-metric-learning's miners, and the options that give the same triplets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.mining.peers.compared import EDGE, Triples, apart, gap, mined, on_a_line, triples

pytestmark = pytest.mark.torch

MARGIN = 0.2
NOTHING = "d_an < 0"  # no distance is, so that every pair gets its fallback
BEYOND = "d_an > d_ap"


@pytest.fixture
def miners() -> Any:
    return pytest.importorskip("pytorch_metric_learning.miners", exc_type=ImportError)


def theirs(miner: Any, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Triples:
    """Their triplets. A miner of pairs gives (anchor, positive) and (anchor, negative), which are joined."""
    from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_triplets  # noqa: PLC0415

    import torch  # noqa: PLC0415

    tensors = torch.from_numpy(rows), torch.from_numpy(labels)
    return triples(convert_to_triplets(miner(*tensors), tensors[1], tensors[1]))


def of_whole_numbers() -> Any:
    """L2 without normalising."""
    from pytorch_metric_learning.distances import LpDistance  # noqa: PLC0415

    return LpDistance(normalize_embeddings=False)


# TripletMarginMiner

TYPES = {
    "all": "d_an <= d_ap + margin",
    "hard": "d_an <= d_ap",
    "semihard": "d_ap < d_an <= d_ap + margin",
    "easy": "d_an > d_ap + margin",
}


@pytest.mark.parametrize(("type_of_triplets", "band"), TYPES.items(), ids=TYPES)
def test_triplet_margin_miner(miners: Any, type_of_triplets: str, band: str) -> None:
    options: dict[str, Any] = {"band": band, "pairs": "ordered", "pick": "all", "metric": "euclidean"}
    for seed in range(5):
        # Whole numbers, where distances are at the edges.
        rows, labels = on_a_line(60, 6, seed)
        miner = miners.TripletMarginMiner(
            margin=2, type_of_triplets=type_of_triplets, distance=of_whole_numbers()
        )
        found = mined(rows, labels, margin=2, normalize=False, **options)
        assert found == theirs(miner, rows, labels)
        d_ap, d_an = distances(rows, found)
        edge = d_ap if type_of_triplets == "hard" else d_ap + 2
        assert (d_an == edge).any() == (type_of_triplets != "easy")
        # Unit rows, by their default distance.
        rows, labels = apart(20, 5, seed, normalize=True, margins=(0, MARGIN))
        assert gap(rows, normalize=True, margins=(0, MARGIN)) > EDGE
        miner = miners.TripletMarginMiner(margin=MARGIN, type_of_triplets=type_of_triplets)
        found = mined(rows, labels, margin=MARGIN, **options)
        assert found == theirs(miner, rows, labels)
        assert found


def distances(rows: NDArray[np.float32], found: Triples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, p, n = (rows[role].astype(np.float64) for role in np.array(sorted(found)).T)
    return np.linalg.norm(a - p, axis=1), np.linalg.norm(a - n, axis=1)


# BatchEasyHardMiner

STRATEGIES: dict[tuple[str, str], dict[str, Any]] = {  # of positives and of negatives
    ("hard", "hard"): {"pairs": "hardest", "band": "any", "pick": "hardest"},
    ("hard", "semihard"): {"pairs": "hardest", "band": BEYOND, "pick": "hardest"},
    ("hard", "easy"): {"pairs": "hardest", "band": NOTHING, "fallback": "farthest"},
    ("hard", "all"): {"pairs": "hardest", "band": "any", "pick": "all"},
    ("easy", "hard"): {"pairs": "easiest", "band": "any", "pick": "hardest"},
    ("easy", "semihard"): {"pairs": "easiest", "band": BEYOND, "pick": "hardest"},
    ("easy", "easy"): {"pairs": "easiest", "band": NOTHING, "fallback": "farthest"},
    ("easy", "all"): {"pairs": "easiest", "band": "any", "pick": "all"},
    ("all", "hard"): {"pairs": "ordered", "band": "any", "pick": "hardest"},
    ("all", "easy"): {"pairs": "ordered", "band": NOTHING, "fallback": "farthest"},
    ("all", "all"): {"pairs": "ordered", "band": "any", "pick": "all"},
}
# Their positive depends on the negative: the farthest that is still nearer than it. Options choose pairs
# without looking at negatives, so this is chosen from the frame.
SEMIHARD_POSITIVES: dict[str, dict[str, Any]] = {
    "hard": STRATEGIES["all", "hard"],
    "easy": STRATEGIES["all", "easy"],
}
REFUSED = [("semihard", "semihard"), ("semihard", "all"), ("all", "semihard")]  # by BatchEasyHardMiner itself


def test_every_pair_of_strategies_is_in_a_table(miners: Any) -> None:
    names = miners.BatchEasyHardMiner.all_batch_mining_strategies
    listed = {*STRATEGIES, *REFUSED, *(("semihard", negative) for negative in SEMIHARD_POSITIVES)}
    assert listed == {(positive, negative) for positive in names for negative in names}
    for positive, negative in REFUSED:
        with pytest.raises(ValueError, match="semihard"):
            miners.BatchEasyHardMiner(pos_strategy=positive, neg_strategy=negative)


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
def test_batch_easy_hard_miner(miners: Any, strategy: tuple[str, str]) -> None:
    miner = miners.BatchEasyHardMiner(pos_strategy=strategy[0], neg_strategy=strategy[1])
    for rows, labels in batches():
        found = mined(rows, labels, metric="euclidean", **STRATEGIES[strategy])
        assert found == theirs(miner, rows, labels)


@pytest.mark.parametrize("negative", SEMIHARD_POSITIVES)
def test_batch_easy_hard_miner_with_semihard_positives(miners: Any, negative: str) -> None:
    miner = miners.BatchEasyHardMiner(pos_strategy="semihard", neg_strategy=negative)
    for rows, labels in batches():
        frame = ft.mine(rows, labels, metric="euclidean", **SEMIHARD_POSITIVES[negative]).to_frame()
        farthest = (
            frame.filter(pl.col("d_ap") < pl.col("d_an"))
            .sort("d_ap")
            .group_by("anchor")
            .last()
            .select("anchor", "positive", "negative")
        )
        assert triples(farthest.get_columns()) == theirs(miner, rows, labels)


def batches() -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    made = [apart(30, 6, seed, normalize=True) for seed in range(5)]
    assert all(gap(rows, normalize=True, margins=(0,)) > EDGE for rows, _ in made)
    return made


@pytest.mark.parametrize("positives", ["hard", "easy"])
def test_allowed_ranges_of_batch_easy_hard_miner(miners: Any, positives: str) -> None:
    """Their ranges include both ends. No option says a lower end of `allowed_pos_range`."""
    for seed in range(5):
        rows, labels = on_a_line(60, 6, seed)
        miner = miners.BatchEasyHardMiner(
            pos_strategy=positives,
            neg_strategy="hard",
            allowed_pos_range=(0, 10),
            allowed_neg_range=(3, 6),
            distance=of_whole_numbers(),
        )
        found = ft.mine(
            rows,
            labels,
            pairs="hardest" if positives == "hard" else "easiest",
            max_ap=10,
            band="3 <= d_an <= 6",
            pick="hardest",
            metric="euclidean",
            normalize=False,
        )
        assert {3.0} < set(found.d_an) <= {3.0, 4.0, 5.0, 6.0}
        # Many distances are equal, and each library has an order of its own among those.
        import torch  # noqa: PLC0415

        a, p, _, n = (role.numpy() for role in miner(torch.from_numpy(rows), torch.from_numpy(labels)))
        d_ap, d_an = np.abs(rows[a, 0] - rows[p, 0]), np.abs(rows[a, 0] - rows[n, 0])
        assert list(zip(a, d_ap, d_an, strict=True)) == list(
            zip(found.anchor, found.d_ap, found.d_an, strict=True)
        )


# Miners whose triplets are those of one call

SAME: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "BatchHardMiner": (lambda miners: miners.BatchHardMiner(), STRATEGIES["hard", "hard"]),
}


@pytest.mark.parametrize("name", SAME)
def test_other_miners(miners: Any, name: str) -> None:
    miner, options = SAME[name]
    for rows, labels in batches():
        assert mined(rows, labels, metric="euclidean", **options) == theirs(miner(miners), rows, labels)


def test_the_negatives_of_multi_similarity_miner(miners: Any) -> None:
    """Those that are nearer than the farthest positive plus epsilon. Its positives have no call."""
    import torch  # noqa: PLC0415

    compared = 0
    for rows, labels in batches():
        options: dict[str, Any] = {"margin": 0.1, "pairs": "hardest", "pick": "all", "metric": "cosine"}
        every = ft.mine(rows, labels, band="any", **options)
        if np.abs(every.d_an - every.d_ap - 0.1).min() <= EDGE:
            continue
        compared += 1
        _, _, a, n = miners.MultiSimilarityMiner(epsilon=0.1)(
            torch.from_numpy(rows), torch.from_numpy(labels)
        )
        found = ft.mine(rows, labels, band="violating", **options)
        assert set(zip(found.anchor, found.negative, strict=True)) == set(
            zip(a.tolist(), n.tolist(), strict=True)
        )
    assert compared >= 3
