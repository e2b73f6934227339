"""The parquet file of a run: on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from fasttriplet.run._sink import open_sink


def test_a_parquet_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "t.parquet", []

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with open_sink(path) as sink:
        for start in (0, 3):
            sink.append(pl.DataFrame({"anchor": range(start, start + 3)}))
        assert sink.join().collect()["anchor"].to_list() == list(range(6))
        assert not path.exists()
        assert sink.publish().collect()["anchor"].to_list() == list(range(6))
    assert synced == [("complete", False), (tmp_path.name, True)]
    assert list(tmp_path.iterdir()) == [path]
