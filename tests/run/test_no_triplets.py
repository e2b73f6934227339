"""A run without triplets says why, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.run.leftovers import besides_datasets
from tests.small_rec import Table, identities, random_table, write_rec


def one_hot(keys: int) -> NDArray[np.float32]:
    return np.eye(keys, dtype=np.float32)


@pytest.mark.parametrize(
    ("labels", "rows", "options", "why"),
    [
        (identities(3, 2), np.ones((9, 4), np.float32), {}, "all but equal .* collapsed"),
        (identities(3, 2), one_hot(9), {"max_ap": 1.5}, r"all 3 pairs are over max_ap=1.5 .* d_ap=2\b"),
        (identities(3, 2), one_hot(9), {}, "no negative .* strictly between"),
        (identities(3, 2), one_hot(9)[:, :1] + [[1, 0]] * 9, {"band": "hard"}, ""),
        (identities(3, 2), one_hot(9), {"bag_size": 7, "tail": "drop"}, "no bag has 7 images"),
        (
            {1: 0, 2: 0, 3: 1, 4: 2, 5: 3},
            one_hot(9),
            {"bag_size": 3, "seed": 3},
            "2 bags of 5 images; .* one identity",
        ),
    ],
)
def test_a_run_without_triplets_says_why_and_writes_nothing(
    tmp_path: Path, labels: dict[int, int], rows: NDArray[np.float32], options: dict[str, Any], why: str
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels)
    out = tmp_path / "t.parquet"
    out.write_text("an older result")
    if not why:
        # Identities lie far apart and their images close together: nothing is hard.
        rows = (
            np.repeat(one_hot(4), 2, axis=0)[[0, 0, 1, 2, 3, 4, 5, 6, 7]]
            + np.float32(0.001) * one_hot(9)[:, :4]
        )
        why = "no negative is nearer than d_ap"
    with pytest.raises(ft.NoTripletsError, match=why):
        ft.mine_rec(rec, model=Table(rows.astype(np.float32)), out=out, **options)
    assert besides_datasets(tmp_path) == ["t.parquet"]
    assert out.read_text() == "an older result"


def test_collapsed_is_relative_to_the_norm_of_rows_that_are_not_normalized(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(3, 2))
    small = np.float32(1e-4) * one_hot(9)  # squared distances of 2e-8, all of them: far apart for their norm
    for rows, why in ((small, "strictly between"), (small[:1] + 1e-4 * small, "collapsed")):
        with pytest.raises(ft.NoTripletsError, match=why):
            ft.mine_rec(rec, model=Table(rows), normalize=False)


def test_bags_without_triplets_are_counted_and_the_first_explained(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", {1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 6: 1, 7: 2, 8: 2})
    summary = ft.mine_rec(rec, model=random_table(9), bag_size=4, band="any", seed=1).summary
    assert (summary.bags, summary.bags_without_triplets) == (2, 1)
    assert "of one identity" in (summary.why_no_triplets or "")
