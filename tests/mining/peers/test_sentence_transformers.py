"""sentence-transformers' `mine_hard_negatives` and its semi-hard loss, and the options that say the same.

Their scores are cosines: ``1 - d`` with ``metric="cosine"``. They look at the `range_max` nearest negatives,
drop those that a score or margin excludes, then the first `range_min` of the rest. Ranks of `mine` count only
those that qualify: `range_min` is a rank, and `range_max` is one if nothing excludes negatives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.mining.peers.compared import EDGE, Triples, triples
from tests.test_commands import code_of

pytestmark = pytest.mark.torch

PAGE = Path(__file__).parents[3] / "docs" / "from-sentence-transformers.md"
QUERIES, DOCUMENTS = 300, 3_000
TWICE = 60  # of the queries have two positives where one may have several
EVERYTHING = 10_000  # as `range_max`: more than there are documents


@dataclass(frozen=True)
class Case:
    """What to tell them, and what to tell `mine`."""

    theirs: dict[str, Any]
    ours: dict[str, Any]
    positives: int = 1  # of a query, at most

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_negatives": 5, "range_max": EVERYTHING, **self.theirs}


NEAREST: dict[str, Any] = {"pick": "hardest", "negatives_per_pair": 5}
# `score <= positive - 0.05 * abs(positive)`: one limit for cosines above 0, one for those below.
BELOW_BY_5_PERCENT = "1 - d_an <= 0.95 * (1 - d_ap) and 1 - d_an <= 1.05 * (1 - d_ap)"
CASES = {
    "num_negatives": Case({"num_negatives": 3}, {"band": "any", **NEAREST, "negatives_per_pair": 3}),
    "range": Case({"range_min": 10, "range_max": 30}, {"band": "any", "ranks": (10, 30), **NEAREST}),
    "a range that is used up": Case(
        {"range_min": 10, "range_max": 17, "num_negatives": 7},
        {"band": "any", "ranks": (10, 17), "pick": "all"},
    ),
    "max_score": Case({"max_score": 0.6}, {"band": "1 - d_an <= 0.6", **NEAREST}),
    "min_score": Case({"min_score": 0.65}, {"band": "1 - d_an >= 0.65", **NEAREST}),
    "both scores, range_min": Case(
        {"max_score": 0.6, "min_score": 0.5, "range_min": 4},
        {"band": "0.5 <= 1 - d_an <= 0.6", "ranks": (4, None), **NEAREST},
    ),
    "min_score, range": Case(
        {"min_score": 0.55, "range_min": 2, "range_max": 30},
        {"band": "1 - d_an >= 0.55", "ranks": (2, 30), **NEAREST},
    ),
    "absolute_margin": Case(
        {"absolute_margin": 0.1}, {"band": "1 - d_an <= 1 - d_ap - margin", "margin": 0.1, **NEAREST}
    ),
    "absolute_margin by name": Case({"absolute_margin": 0.1}, {"band": "easy", "margin": 0.1, **NEAREST}),
    "relative_margin": Case(
        {"relative_margin": 0.05},
        {"band": BELOW_BY_5_PERCENT, **NEAREST},
    ),
    "all of them": Case(
        {"relative_margin": 0.05, "max_score": 0.7, "min_score": 0.2, "range_min": 2},
        {
            "band": f"{BELOW_BY_5_PERCENT} and 0.2 <= 1 - d_an <= 0.7",
            "ranks": (2, None),
            **NEAREST,
        },
    ),
    "range of several positives": Case(
        {"range_min": 10, "range_max": 30}, {"band": "any", "ranks": (10, 30), **NEAREST}, positives=2
    ),
}
# The margins of a query with several positives are those of the farthest.
OF_THE_FARTHEST = Case(
    {"absolute_margin": 0.1}, {"band": "easy", "margin": 0.1, "pairs": "hardest", **NEAREST}, positives=2
)
# With a margin they look at the nearest documents alone, by default 10 times `num_negatives`.
OF_THE_NEAREST = Case({"absolute_margin": 0.1, "range_min": 3, "range_max": 3 + 10 * 5 + 1}, {})


@dataclass(frozen=True)
class Texts:
    """Vectors of queries and documents. The first documents are positives, in the order of `of_query`."""

    queries: NDArray[np.float32]
    documents: NDArray[np.float32]
    of_query: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the documents: the query's number, or one that no query has."""
        others = np.arange(len(self.queries), len(self.queries) + len(self.documents) - len(self.of_query))
        return np.concatenate([self.of_query, others])

    def scores(self) -> NDArray[np.float64]:
        return self.queries.astype(np.float64) @ self.documents.astype(np.float64).T


def edges(case: Case, texts: Texts) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each query, the least and largest score that is taken, and which documents qualify."""
    settings, scores = case.settings, texts.scores()
    positive = np.array([scores[q, : len(texts.of_query)][texts.of_query == q].min() for q in range(QUERIES)])
    negative = texts.labels != np.arange(QUERIES)[:, None]
    least, most = (
        np.full(QUERIES, settings.get("min_score", -2.0)),
        np.full(QUERIES, settings.get("max_score", 2.0)),
    )
    if "absolute_margin" in settings:
        most = np.minimum(most, positive - settings["absolute_margin"])
    if "relative_margin" in settings:
        most = np.minimum(most, positive - settings["relative_margin"] * np.abs(positive))
    allowed = negative & (scores >= least[:, None]) & (scores <= most[:, None])
    return np.stack([least, most], axis=1), allowed


def too_near(case: Case, texts: Texts) -> NDArray[np.int64]:
    """Documents that are within `EDGE` of an edge, or of the next one where the ranks are cut."""
    settings, scores = case.settings, texts.scores()
    limits, allowed = edges(case, texts)
    near = {
        int(at) for at in np.nonzero((np.abs(scores[:, :, None] - limits[:, None]) < EDGE).any(axis=2))[1]
    }
    start = settings.get("range_min", 0)
    pool = settings["range_max"] + case.positives
    for which, cuts in (
        (allowed, [start, start + settings["num_negatives"]]),
        (np.ones_like(allowed), [pool] if pool < len(texts.documents) else []),
    ):
        masked = np.where(which, -scores, np.inf)
        if cuts:
            nearest = np.argpartition(masked, cuts[-1], axis=1)[:, : cuts[-1] + 1]
            order = np.argsort(np.take_along_axis(masked, nearest, axis=1), axis=1)
            nearest = np.take_along_axis(nearest, order, axis=1)
            ranked = np.take_along_axis(masked, nearest, axis=1)
        for cut in cuts:
            if cut:
                with np.errstate(invalid="ignore"):  # of two that do not qualify
                    tied = ranked[:, cut] - ranked[:, cut - 1] < EDGE
                near |= {int(at) for at in nearest[tied, cut]}
    return np.array(sorted(near), dtype=np.int64)


@cache
def texts_for(positives: int) -> Texts:
    """About `DOCUMENTS` documents, of which none is too near an edge of a case."""
    rng = np.random.default_rng(positives)

    def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
        units: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return units

    queries = unit(rng.normal(size=(QUERIES, 16)))
    of_query = np.concatenate([np.arange(QUERIES), np.arange(TWICE if positives == 2 else 0)])
    alike = rng.uniform(-0.1, 1.0, (len(of_query), 1))  # some are farther than a right angle
    noise = unit(rng.normal(size=(len(of_query), 16)))
    documents = np.vstack(
        [unit(alike * queries[of_query] + (1 - np.abs(alike)) * noise), unit(rng.normal(size=(3_400, 16)))]
    )
    texts = Texts(queries, documents, of_query)
    cases = [
        case for case in (*CASES.values(), OF_THE_FARTHEST, OF_THE_NEAREST) if case.positives == positives
    ]
    while True:
        near = {int(at) for case in cases for at in too_near(case, texts)}
        if not near:
            break
        kept = np.setdiff1d(np.arange(len(texts.documents)), [at for at in near if at >= len(of_query)])
        moved = [at for at in near if at < len(of_query)]
        documents = texts.documents.copy()
        documents[moved] = unit(documents[moved] + 0.01 * rng.normal(size=(len(moved), 16)))
        texts = Texts(queries, documents[kept], of_query)
    assert len(texts.documents) >= DOCUMENTS
    assert not any(len(too_near(case, texts)) for case in cases)
    return texts


@pytest.fixture(scope="module")
def library() -> Any:
    pytest.importorskip("datasets", exc_type=ImportError)
    return pytest.importorskip("sentence_transformers", exc_type=ImportError)


class Stub:
    """A model that knows the vectors of its texts, "q0", "d0" and so on."""

    device = "cpu"

    def __init__(self, library: Any, texts: Texts) -> None:
        self.similarity = library.util.cos_sim
        self.similarity_pairwise = library.util.pairwise_cos_sim
        self.texts = texts

    def encode_query(self, words: list[str], **_: Any) -> NDArray[np.float32]:
        return self.texts.queries[[int(word[1:]) for word in words]]

    def encode_document(self, words: list[str], **_: Any) -> NDArray[np.float32]:
        return self.texts.documents[[int(word[1:]) for word in words]]


def theirs(library: Any, texts: Texts, **settings: Any) -> Triples:
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    pairs = {
        "anchor": [f"q{query}" for query in texts.of_query],
        "positive": [f"d{document}" for document in range(len(texts.of_query))],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies about each other
        mined = library.util.mine_hard_negatives(
            datasets.Dataset.from_dict(pairs),
            Stub(library, texts),
            corpus=[f"d{document}" for document in range(len(texts.documents))],
            verbose=False,
            **settings,
        )
    return triples([int(text[1:]) for text in mined[role]] for role in ("anchor", "positive", "negative"))


def mine(texts: Texts, **options: Any) -> ft.Triplets:
    return ft.mine(
        texts.queries,
        np.arange(QUERIES),
        references=texts.documents,
        reference_labels=texts.labels,
        metric="cosine",
        **options,
    )


@pytest.mark.parametrize("name", CASES)
def test_the_top_negatives(library: Any, name: str) -> None:
    case = CASES[name]
    texts = texts_for(case.positives)
    found = triples(mine(texts, **case.ours))
    assert found == theirs(library, texts, **case.settings)
    assert len(found) > QUERIES


def test_a_relative_margin_reaches_negative_cosines() -> None:
    d_ap = mine(texts_for(1), band="any").d_ap
    assert (1 - d_ap < -0.05).sum() > 5


@pytest.fixture(scope="module")
def translated() -> Callable[..., pl.DataFrame]:
    """The function of the page for users of sentence-transformers."""
    names: dict[str, Any] = {}
    exec(compile(code_of(PAGE)[0], PAGE.name, "exec"), names)
    function: Callable[..., pl.DataFrame] = names["hard_negatives"]
    return function


@pytest.mark.parametrize("name", [*CASES, "a margin of several positives"])
def test_the_translation_of_the_page(
    library: Any, translated: Callable[..., pl.DataFrame], name: str
) -> None:
    case = CASES.get(name, OF_THE_FARTHEST)
    texts = texts_for(case.positives)
    query_of = np.where(texts.labels < QUERIES, texts.labels, -1)
    found = translated(texts.queries, texts.documents, query_of, **{"num_negatives": 5, **case.theirs})
    assert triples(found.drop("score").get_columns()) == theirs(library, texts, **case.settings)


@pytest.mark.parametrize("name", ["range", "both scores, range_min", "absolute_margin"])
def test_random_negatives_are_of_the_same_set(library: Any, name: str) -> None:
    """Which of them is a matter of each library's draw; how many each query gets is not."""
    case = CASES[name]
    texts = texts_for(case.positives)
    both = [
        theirs(library, texts, **case.settings, sampling_strategy="random"),
        triples(mine(texts, **{**case.ours, "pick": "random"})),
    ]
    every = triples(mine(texts, **{**case.ours, "pick": "all", "negatives_per_pair": 1}))
    for found in both:
        assert found <= every
    anchors = [np.bincount([a for a, _, _ in found], minlength=QUERIES).tolist() for found in (*both, every)]
    assert anchors[0] == anchors[1] == np.minimum(anchors[2], 5).tolist()


def test_the_margin_of_several_positives_is_that_of_the_farthest(library: Any) -> None:
    """`pairs="hardest"` gives its triplets; each other positive of the query then gets the same negatives."""
    texts = texts_for(2)
    frame = mine(texts, **OF_THE_FARTHEST.ours).to_frame().select("anchor", "negative")
    pairs = pl.DataFrame({"anchor": texts.of_query, "positive": np.arange(len(texts.of_query))})
    found = frame.join(pairs, on="anchor").select("anchor", "positive", "negative")
    assert triples(found.get_columns()) == theirs(library, texts, **OF_THE_FARTHEST.settings)
    # Without it each pair has the margin of its own positive.
    own = triples(mine(texts, **{**OF_THE_FARTHEST.ours, "pairs": "ordered"}))
    assert own != triples(found.get_columns())


def test_range_max_with_a_margin_is_a_step_on_the_frame(library: Any) -> None:
    """They look at the nearest `range_max` + 1 documents, the positive among them, before the margin.

    No option of `mine` ranks negatives that do not qualify. `ranks` with ``band="any"`` gives the nearest
    ones, and the frame keeps those beyond the margin.
    """
    texts, settings = texts_for(1), OF_THE_NEAREST.settings
    first, most, wanted = settings["range_min"], settings["range_max"], settings["num_negatives"]
    nearest = mine(texts, band="any", ranks=(0, most + 1), pick="all").to_frame()
    rank = pl.col("d_an").rank("ordinal").over("anchor") - 1
    found = (
        nearest.filter(rank + (pl.col("d_ap") < pl.col("d_an")) < most + 1)
        .filter(pl.col("d_an") >= pl.col("d_ap") + settings["absolute_margin"])
        .filter(rank.is_between(first, first + wanted, closed="left"))
        .select("anchor", "positive", "negative")
    )
    expected = theirs(library, texts, **settings)
    assert expected == theirs(library, texts, **{**settings, "range_max": None})  # which is the default
    assert triples(found.get_columns()) == expected
    # Ranks of those that qualify would reach negatives beyond the nearest.
    reached = triples(mine(texts, **{**CASES["absolute_margin"].ours, "ranks": (first, most)}))
    assert expected < reached


# BatchSemiHardTripletLoss

BEYOND_OR_FARTHEST: dict[str, Any] = {
    "band": "d_an > d_ap",
    "pick": "hardest",
    "fallback": "farthest",
    "pairs": "ordered",
    "normalize": False,
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("largest", [3, 1000], ids=["many ties", "few ties"])
def test_the_semi_hard_loss(largest: int) -> None:
    """The loss of TensorFlow Addons, with L2 instead of squared L2 by default and a margin of 5."""
    import torch  # noqa: PLC0415

    losses = pytest.importorskip("sentence_transformers.losses", exc_type=ImportError)
    loss = losses.BatchSemiHardTripletLoss(model=None)
    rng = np.random.default_rng(largest)
    for _ in range(100):
        count = int(rng.integers(6, 20))
        rows = rng.integers(0, largest, (count, 1)).astype(np.float32)  # on a line: distances are exact
        labels = rng.integers(0, 4, count)
        labels[:3] = 0, 0, 1
        found = ft.mine(rows, labels, metric="euclidean", threads=1, **BEYOND_OR_FARTHEST)
        expected = loss.compute_loss_from_embeddings([torch.from_numpy(rows)], torch.from_numpy(labels))
        assert np.mean(np.maximum(0, 5 + found.d_ap - found.d_an)) == pytest.approx(float(expected), rel=1e-6)
