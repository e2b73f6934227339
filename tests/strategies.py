"""Hypothesis strategies: embeddings that are hard to get right."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

BANDS = ("semihard", "violating", "hard", "any")
PICKS = ("random", "hardest", "all")
PAIRS = ("unordered", "ordered", "hardest", "easiest")

# On a grid of small integers every distance is exact, and ties are everywhere.
grid_values = st.integers(-2, 2).map(np.float32)
float_values = st.floats(-4, 4, width=32)
# Squares overflow and underflow float32, but not the float64 of the definition.
wild_values = st.one_of(
    st.sampled_from([0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e19, 3e38]).map(np.float32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


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
    any_ids = st.integers(-(2**63), 2**63 - 1)
    ids = draw(st.none() | st.lists(any_ids, min_size=n, max_size=n, unique=True))
    return {"embeddings": embeddings, "labels": labels, "ids": ids}


def options() -> st.SearchStrategy[dict[str, Any]]:
    """Every option of `mine` that changes what is mined."""
    distances = st.sampled_from([0.0, 1.0, 2.0, 0.3]) | st.floats(0, 8)
    return st.fixed_dictionaries(
        {
            "margin": distances | st.just(float("inf")),
            "band": st.sampled_from(BANDS),
            "pick": st.sampled_from(PICKS),
            "pairs": st.sampled_from(PAIRS),
            "negatives_per_pair": st.integers(1, 3),
            "max_ap": st.none() | distances,
            "normalize": st.booleans(),
            "seed": st.integers(0, 2**64 - 1),
        }
    )
