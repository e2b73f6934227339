"""Tables say where they are from, in Parquet files, and damaged ones are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fasttriplet as ft
from tests.small_rec import identities, random_table, write_rec

FRAME = pl.DataFrame({"key": [1, 2, 3], "name": ["a", None, "c"], "more": [[1], [], [2, 3]]})


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rec(tmp_path_factory.mktemp("data") / "train.rec", identities(12, 6))


def test_triplets_say_where_they_are_from(rec: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "t.parquet", random_table()
    options: dict[str, Any] = {"seed": 5, "margin": 0.5, "band": "violating", "bag_size": 24}
    options |= {"exclude": [1, 2], "on_error": "skip", "epochs": 2}
    found = ft.mine_rec(rec, model=model, out=out, threads=1, **options)
    about = ft.read_metadata(out)
    assert about["kind"] == "triplets"
    assert about["version"] == ft.__version__
    assert about["dataset"] == ft.Dataset(rec).fingerprint
    assert about["files"] == ["train.rec"]
    assert about["model"] == "a table"
    assert (about["seed"], about["epochs"], about["max_triplets"]) == (5, 2, None)
    assert about["options"] == {
        "labels": None, "max_pixels": 89_478_485, "margin": 0.5, "band": "violating", "ranks": None,
        "pick": "random", "negatives_per_pair": 1, "fallback": None, "pairs": "unordered",
        "positives_per_anchor": None, "triplets_per_anchor": None, "max_ap": None, "metric": "sqeuclidean",
        "normalize": True, "images_per_identity": 5, "bag_size": 24, "boundary": "keep", "tail": "keep",
        "random_share": 0.0, "on_error": "skip",
    }  # fmt: skip
    assert len(about["exclude"]) == 16
    assert about["neighbors"] is None
    expected = ft.mine_rec(rec, model=model, **options).triplets.collect()
    assert found.triplets.collect().equals(expected), "the table is as it was"
    assert pl.read_parquet(out).equals(expected)
    assert "fasttriplet" in pl.read_parquet_metadata(out)
    again = tmp_path / "elsewhere" / "t.parquet"
    ft.mine_rec(rec, model=model, out=again, threads=2, prefetch=0, **options)
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.parquet"
    ft.mine_rec(rec, model=model, out=other, **options | {"exclude": [1]})
    assert ft.read_metadata(other)["exclude"] != about["exclude"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "arrow"])
def test_other_formats_have_no_place_for_it(rec: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"t.{ending}"
    ft.mine_rec(rec, out=out)
    with pytest.raises(ValueError, match="is not a Parquet file; other formats do not say"):
        ft.read_metadata(out)


def test_tables_of_others(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet does not say where it is from: fasttriplet did not"):
        ft.read_metadata(tmp_path / "a.parquet")
    FRAME.write_parquet(tmp_path / "b.parquet", metadata={"fasttriplet": "[1]"})
    with pytest.raises(ValueError, match="has under 'fasttriplet' is not a JSON object"):
        ft.read_metadata(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError):
        ft.read_metadata(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(ValueError, match="is a damaged Parquet file"):
        ft.read_metadata(tmp_path / "d.parquet")
