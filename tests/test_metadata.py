"""Tables say where they are from, in Parquet files, and damaged ones are told."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import fasttriplet as ft
from tests.small_rec import identities, write_rec

FRAME = pl.DataFrame({"key": [1, 2, 3], "name": ["a", None, "c"], "more": [[1], [], [2, 3]]})


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rec(tmp_path_factory.mktemp("data") / "train.rec", identities(12, 6))


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
