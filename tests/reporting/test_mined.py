"""What is picked from a table of triplets, compared with plain Python over all of its rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet.reporting._mined import Mined, read

Row = dict[str, Any]


def table(seed: int, count: int, people: int) -> pl.DataFrame:
    """Triplets of few images at few distances, so that ties are frequent; labels are key // 3."""
    rng = np.random.default_rng(seed)
    anchor, positive, negative = rng.integers(0, 3 * people, (3, count))
    negative = np.where(negative // 3 == anchor // 3, (anchor + 3) % (3 * people), negative)
    d_ap = rng.integers(0, 5, count) / 4
    return pl.DataFrame({
        "anchor_key": anchor, "positive_key": anchor // 3 * 3 + positive % 3, "negative_key": negative,
        "anchor_label": anchor // 3, "negative_label": negative // 3, "d_ap": d_ap,
        "d_an": d_ap + rng.integers(-2, 3, count) / 4,
    })  # fmt: skip


def mined(frame: pl.DataFrame, folder: Path) -> tuple[Mined, list[Row]]:
    frame.write_parquet(folder / "t.parquet")
    return read(folder / "t.parquet"), frame.to_dicts()


def keys(row: Row) -> tuple[int, ...]:
    return row["anchor_key"], row["positive_key"], row["negative_key"]


def first(rows: list[Row], order: Any, of_each: Any, most: int) -> list[tuple[int, ...]]:
    """The first row in an order of each group, and of these the first `most`."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[of_each(row)].append(row)
    best = sorted(groups.items(), key=lambda item: (min(map(order, item[1])), item[0]))[:most]
    chosen = [min(of, key=lambda row: (order(row), keys(row))) for _, of in best]
    return [keys(row) for row in sorted(chosen, key=lambda row: (order(row), keys(row)))]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 8), st.integers(1, 9))
def test_what_is_shown(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, people: int, most: int
) -> None:
    found, rows = mined(table(seed, count, people), tmp_path_factory.mktemp("mined"))
    hardest = first(
        rows,
        lambda row: row["d_an"] - row["d_ap"],
        lambda row: (row["anchor_label"], row["negative_label"]),
        most,
    )
    assert [keys(row) for row in found.hardest(most).to_dicts()] == hardest
    far = first(rows, lambda row: -row["d_ap"], lambda row: (row["anchor_label"],), most)
    assert [keys(row) for row in found.far_positives(most).to_dicts()] == far

    hubs = sorted(Counter(row["negative_key"] for row in rows).items(), key=lambda hub: (-hub[1], hub[0]))[
        :most
    ]
    assert found.hubs(most).select("negative_key", "triplets").rows() == hubs
    for hub in found.hubs(most).to_dicts():
        anchors = {row["anchor_label"] for row in rows if row["negative_key"] == hub["negative_key"]}
        assert hub["identities"] == len(anchors)

    pairs = Counter(tuple(sorted((row["anchor_label"], row["negative_label"]))) for row in rows)
    confused = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    assert found.confused(most).select("low", "high", "triplets").rows() == [
        (*pair, n) for pair, n in confused
    ]
    low, high = confused[0][0]
    of_pair = [row for row in rows if {row["anchor_label"], row["negative_label"]} == {low, high}]
    assert np.isclose(found.confused(1)["d_an"][0], np.mean([row["d_an"] for row in of_pair]))
    examples = found.examples(low, high, most)
    assert examples["d_an"].min() == min(row["d_an"] for row in of_pair)
    assert examples["anchor_key"].is_unique().all()

    sample = found.sample(most)
    assert len(sample) == min(most, count)
    assert {keys(row) for row in sample.to_dicts()} <= {keys(row) for row in rows}
    if count <= 50 * most:
        assert sample["anchor_label"].n_unique() == min(most, len({row["anchor_label"] for row in rows}))


@pytest.mark.parametrize("change", [{"d_an": float("nan")}, {"d_ap": None}, {"negative_key": None}])
def test_what_is_no_number_is_refused(tmp_path: Path, change: Row) -> None:
    frame = table(0, 20, 4)
    for name, value in change.items():
        frame[3, name] = value
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: not all keys, labels and distances are numbers"):
        read(tmp_path / "t.parquet")
