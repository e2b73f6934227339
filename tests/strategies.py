"""Hypothesis strategies: embeddings that are hard to get right."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

BANDS = ("semihard", "violating", "hard", "easy", "any")
PICKS = ("random", "hardest", "distance", "all")
PAIRS = ("unordered", "ordered", "hardest", "easiest")
METRICS = ("sqeuclidean", "euclidean", "cosine")

# On a grid of small integers every distance is exact, and ties are everywhere.
grid_values = st.integers(-2, 2).map(np.float32)
float_values = st.floats(-4, 4, width=32)
# Squares overflow and underflow float32, but not the float64 of the definition.
wild_values = st.one_of(
    st.sampled_from([0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e19, 3e38]).map(np.float32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
VALUES = {"grid": grid_values, "float": float_values, "wild": wild_values}

any_ids = st.integers(-(2**63), 2**63 - 1)


@st.composite
def datasets(draw: st.DrawFn, values: st.SearchStrategy[Any], most: int = 16) -> dict[str, Any]:
    """Embeddings, labels and ids; rows in any order, some of them duplicates."""
    n = draw(st.integers(0, most))
    dim = draw(st.integers(1, 19))
    embeddings: NDArray[np.float32] = draw(hnp.arrays(np.float32, (n, dim), elements=values, fill=values))
    if n and draw(st.booleans()):  # exact duplicates, also across identities
        embeddings = embeddings[draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))]
    labels: Any = draw(st.lists(st.integers(-1, draw(st.integers(-1, 6))), min_size=n, max_size=n))
    if draw(st.booleans()):
        labels = [f"person {label}" for label in labels]
    ids = draw(st.none() | st.lists(any_ids, min_size=n, max_size=n, unique=True))
    return {"embeddings": embeddings, "labels": labels, "ids": ids}


@st.composite
def datasets_with_references(
    draw: st.DrawFn, values: st.SearchStrategy[Any], most: int = 16
) -> dict[str, Any]:
    """A dataset and a second set for it, which may repeat its rows and ids and lack its labels.

    A row that has the id of an embedding has its label, and often its values.
    """
    dataset = draw(datasets(values, most))
    embeddings, labels, ids = dataset["embeddings"], dataset["labels"], dataset["ids"]
    n, dim = embeddings.shape
    m = draw(st.integers(0, most))
    references: NDArray[np.float32] = draw(hnp.arrays(np.float32, (m, dim), elements=values, fill=values))
    reference_labels: list[Any] = draw(st.lists(st.integers(-1, 7), min_size=m, max_size=m))
    if n and isinstance(labels[0], str):
        reference_labels = [f"person {label}" for label in reference_labels]
    if n and m and draw(st.booleans()):  # rows of one set in the other
        copies = draw(st.lists(st.none() | st.integers(0, n - 1), min_size=m, max_size=m))
        for row, copied in enumerate(copies):
            if copied is not None:
                references[row] = embeddings[copied]
    reference_ids = None
    if ids is not None:
        known = st.sampled_from(ids) if n else st.nothing()
        reference_ids = draw(st.lists(known | any_ids, min_size=m, max_size=m, unique=True))
        same_values = draw(st.booleans())
        for row, i in enumerate(reference_ids):
            if i in ids:
                reference_labels[row] = labels[ids.index(i)]
                if same_values:
                    references[row] = embeddings[ids.index(i)]
    return dataset | {
        "references": references,
        "reference_labels": reference_labels,
        "reference_ids": reference_ids,
    }


@st.composite
def written_bands(draw: st.DrawFn) -> str:
    """Bands as an inequality, in the form in which they are evaluated."""
    edges = st.sampled_from(["d_ap", "d_ap + margin", "2.0", "1.0 * d_ap + -0.5", "0.5 * d_ap + 0.25", "0.9"])
    comparisons = draw(
        st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">="]), edges), min_size=1, max_size=4)
    )
    return " and ".join(f"d_an {compared} {edge}" for compared, edge in comparisons)


@st.composite
def ranks(draw: st.DrawFn) -> tuple[int, int | None]:
    """The first rank, and the end."""
    first = draw(st.integers(0, 5))
    return first, draw(st.none() | st.integers(first + 1, first + 6))


def options() -> st.SearchStrategy[dict[str, Any]]:
    """Every option of `mine` that changes what is mined."""
    few = st.none() | st.integers(1, 4)
    distances = st.sampled_from([0.0, 1.0, 2.0, 0.3, 0.5, 2**0.5]) | st.floats(0, 8)
    return st.fixed_dictionaries(
        {
            "margin": distances | st.just(float("inf")),
            "band": st.sampled_from(BANDS) | written_bands(),
            "ranks": st.none() | ranks(),
            "fallback": st.none() | st.just("farthest"),
            "positives_per_anchor": few,
            "triplets_per_anchor": few,
            "pick": st.sampled_from(PICKS),
            "pairs": st.sampled_from(PAIRS),
            "negatives_per_pair": st.integers(1, 3),
            "max_ap": st.none() | distances,
            "metric": st.sampled_from(METRICS),
            "normalize": st.booleans(),
            "seed": st.integers(0, 2**64 - 1),
        }
    ).map(lambda drawn: drawn | {"normalize": drawn["normalize"] or drawn["metric"] == "cosine"})
