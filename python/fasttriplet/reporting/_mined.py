"""A table of triplets, and what is worth seeing in it. Only the columns that a question needs are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._metadata import metadata_of
from fasttriplet.dataset._tables import check_dataset
from fasttriplet.reporting._pictures import Album
from fasttriplet.reporting._tables import reading, typed
from fasttriplet.run._sink import scan_triplets

ROLES = ("anchor", "positive", "negative")
_WHAT = "a table of triplets"
_COLUMNS: dict[str, pl.DataType] = {
    **dict.fromkeys(("anchor_key", "positive_key", "negative_key"), pl.Int64()),
    **dict.fromkeys(("anchor_label", "negative_label"), pl.Int64()),
    **dict.fromkeys(("d_ap", "d_an"), pl.Float64()),
}
_FILES: dict[str, pl.DataType] = dict.fromkeys(("anchor_file", "positive_file", "negative_file"), pl.UInt32())
_SPARE = 50  # rows that are looked at for each one that is shown, to find different ones
_GAP = pl.col("d_an") - pl.col("d_ap")


@dataclass(frozen=True, slots=True)
class Mined:
    """Triplets that were mined.

    Attributes
    ----------
    path : Path
    rows : pl.LazyFrame
        The columns of keys, labels and distances, and those of files, which are 0 for a single file.
    count : int
        How many triplets there are.
    how : dict
        What is known of the options: ``band``, ``margin``, ``metric``, ``seed``, ``model`` and others.
    """

    path: Path
    rows: pl.LazyFrame
    count: int
    how: Mapping[str, Any]

    def distances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``d_ap`` and ``d_an`` of all triplets."""
        both = self.rows.select("d_ap", "d_an").collect()
        return both["d_ap"].to_numpy(), both["d_an"].to_numpy()

    def sample(self, most: int) -> pl.DataFrame:
        """Triplets drawn at random, of different anchor identities as far as possible."""
        size = min(self.count, _SPARE * most)
        drawn = np.random.default_rng(0).choice(self.count, size, replace=False)
        turn = pl.int_range(pl.len()).over("anchor_label")
        found = self.rows.select(pl.all().gather(drawn)).collect()
        return found.sort(turn, maintain_order=True).head(most).sort("anchor_label", maintain_order=True)

    def hardest(self, most: int) -> pl.DataFrame:
        """Triplets with the smallest ``d_an - d_ap``; one for each two identities."""
        return self._first(_GAP, most, ["anchor_label", "negative_label"])

    def far_positives(self, most: int) -> pl.DataFrame:
        """Triplets with the largest ``d_ap``; one for each identity."""
        return self._first(-pl.col("d_ap"), most, ["anchor_label"])

    def _first(self, order: pl.Expr, most: int, of_each: list[str]) -> pl.DataFrame:
        """The triplet that is first in the order for each value of some columns, and of these the first."""
        keys = [f"{role}_key" for role in ROLES]
        ordered = self.rows.with_columns(order=order)
        best = ordered.group_by(of_each).agg(pl.col("order").min()).bottom_k(most, by=["order", *of_each])
        found = ordered.join(best, on=[*of_each, "order"]).collect()
        return found.sort("order", *keys).unique(of_each, keep="first", maintain_order=True)

    def hubs(self, most: int) -> pl.DataFrame:
        """Negatives that occur most often: how often, and with anchors of how many identities."""
        image = ["negative_file", "negative_key", "negative_label"]
        people = pl.col("anchor_label").n_unique()
        return _most_often(self.rows.group_by(image).agg(triplets=pl.len(), identities=people), image, most)

    def confused(self, most: int) -> pl.DataFrame:
        """Pairs of identities with most triplets, in both directions, and the mean distance of negatives."""
        both = ["low", "high"]
        pairs = self._with_pairs().group_by(both).agg(triplets=pl.len(), d_an=pl.col("d_an").mean())
        return _most_often(pairs, both, most)

    def examples(self, low: int, high: int, most: int) -> pl.DataFrame:
        """The nearest different anchors and negatives of a pair of identities."""
        of_pair = self._with_pairs().filter(pl.col("low") == low, pl.col("high") == high)
        found = of_pair.sort("d_an", "anchor_key", "negative_key").head(_SPARE * most).collect()
        return found.unique(["anchor_file", "anchor_key"], keep="first", maintain_order=True).head(most)

    def _with_pairs(self) -> pl.LazyFrame:
        labels = ("anchor_label", "negative_label")
        return self.rows.with_columns(low=pl.min_horizontal(labels), high=pl.max_horizontal(labels))

    def rows_of(self, album: Album, some: pl.DataFrame, role: str) -> NDArray[np.int64]:
        """Where the images of a role are in the index."""
        return album.rows(some[f"{role}_key"].to_numpy(), some[f"{role}_file"].to_numpy())

    def check(self, album: Album) -> None:
        """Raise a ValueError if these are triplets of another dataset than the album's."""
        check_dataset("triplets", str(self.path), self.how, album.dataset)
        for role in ROLES:
            label = "negative_label" if role == "negative" else "anchor_label"
            some = self.rows.select(f"{role}_key", f"{role}_file", label).unique().collect()
            rows = self.rows_of(album, some, role)
            labels = album.dataset.labels[rows]
            for at in np.flatnonzero(rows < 0)[:1]:
                self._refuse(album, f"the {role} with the key {some[f'{role}_key'][int(at)]} is not in it")
            for at in np.flatnonzero(labels != some[label].to_numpy())[:1]:
                key = some[f"{role}_key"][int(at)]
                self._refuse(
                    album, f"the label of key {key} is {labels[at]} there, and {some[label][int(at)]} here"
                )

    def _refuse(self, album: Album, why: str) -> None:
        names = ", ".join(map(str, album.dataset.paths))
        raise ValueError(
            f"{self.path} was mined from another dataset than {names}: {why}; give the .rec files that it "
            "was mined from, in the same order and with the same labels"
        )


def _most_often(counts: pl.LazyFrame, of: list[str], most: int) -> pl.DataFrame:
    """The rows with most triplets; of equal ones the first in the order of these columns."""
    order = pl.col("triplets").cast(pl.Int64).neg()
    return counts.with_columns(order=order).bottom_k(most, by=["order", *of]).sort("order", *of).collect()


def read(path: Path, how: Mapping[str, Any] | None = None) -> Mined:
    """Read a table of triplets in any of the formats that mining writes.

    Parameters
    ----------
    path : Path
    how : mapping, optional
        The options of mining, where the caller knows them. By default what the metadata of a parquet file
        says.
    """
    parquet = path.suffix.lower() == ".parquet"
    with reading(path, _WHAT):
        table = scan_triplets(path)
        columns = table.collect_schema().names()
        files = _FILES if _FILES.keys() <= set(columns) else {}
        rows = typed(table, _COLUMNS | files, path, _WHAT)
        if not files:
            rows = rows.with_columns(pl.lit(0, kind).alias(name) for name, kind in _FILES.items())
        if not parquet:  # a text would be read again for each question
            rows = rows.collect().lazy()
        facts = rows.select(count=pl.len(), bad=~pl.all_horizontal(pl.all().is_not_null()).all()).collect()
        finite = rows.select(pl.col("d_ap", "d_an").is_finite().all()).collect()
    if facts["bad"][0] or not all(finite.row(0)):
        raise ValueError(f"{path}: not all keys, labels and distances are numbers; was it written by mining?")
    said: Mapping[str, Any] = {}
    if parquet:
        with path.open("rb") as file:
            said = metadata_of(file, str(path)) or {}
    options = said.get("options") if isinstance(said.get("options"), dict) else {}
    return Mined(path, rows, facts["count"][0], {**said, **(options or {}), **(how or {})})
