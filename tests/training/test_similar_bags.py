"""A training with bags of similar identities, and resumed with the same graph alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.training import _state, options_at
from tests.training.small import records, same_arrays, settings, state, train

pytestmark = pytest.mark.usefixtures("numpy_backend")

OPTIONS: dict[str, Any] = {"framework": "mxnet", "band": "violating"}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Of 16 identities those that differ by 4 are near each other."""
    path = tmp_path / "graph.parquet"
    table = pl.DataFrame({"label": np.arange(16), "neighbor_label": (np.arange(16) + 4) % 16, "rank": 0})
    table.write_parquet(path)
    return path


def test_it_is_resumed_with_the_same_graph(data: Path, tmp_path: Path, graph: Path) -> None:
    chosen, out = settings(data, neighbors=graph, random_share=0.25, **OPTIONS), tmp_path / "a"
    train(chosen, tmp_path / "unbroken", batches=9)
    train(replace(chosen, neighbors=None, random_share=0), tmp_path / "uniform", batches=9)
    assert not same_arrays(tmp_path / "uniform", tmp_path / "unbroken")
    train(chosen, out, batches=4)
    assert options_at(out)[0].neighbors == str(graph)
    with pytest.raises(ft.OptionError, match="must be a Parquet file, not a frame: the state of a training"):
        replace(chosen, neighbors=pl.read_parquet(graph))
    with pytest.raises(ValueError, match=r"random_share 0\.25 \(now 0\.5\)"):
        train(replace(chosen, random_share=0.5), out, batches=9, resume=True)
    other = tmp_path / "other.parquet"
    pl.read_parquet(graph)[1:].write_parquet(other)
    with pytest.raises(ft.OptionError, match="neighbors must be the same graph as before"):
        train(replace(chosen, neighbors=other), out, batches=9, resume=True)
    graph.rename(tmp_path / "moved.parquet")
    with pytest.raises(FileNotFoundError, match="if it was moved, give its new path as neighbors=PATH"):
        train(chosen, out, batches=9, resume=True)
    train(replace(chosen, neighbors=tmp_path / "moved.parquet"), out, batches=9, resume=True)
    assert same_arrays(out, tmp_path / "unbroken")
    assert records(out) == records(tmp_path / "unbroken")


def test_the_flags_are_kept(
    data: Path, tmp_path: Path, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    words = ["train", "--out", str(out), "--batch-size", "12", "--bag-size", "48", "--band", "violating"]
    begin = ["--rec", str(data / "train.rec"), "--network", "small", "--framework", "mxnet"]
    similar = ["--neighbors", str(graph), "--random-share", "0.5"]
    assert main([*words, *begin, *similar, "--batches", "4"]) == 0
    chosen, _ = options_at(out)
    assert (chosen.neighbors, chosen.random_share) == (str(graph), 0.5)
    assert main(["train", "--out", str(out), "--resume", "--batches", "6"]) == 0
    pl.read_parquet(graph)[1:].write_parquet(graph)
    capsys.readouterr()
    assert main(["train", "--out", str(out), "--resume", "--batches", "8"]) == 1
    assert "a-state.npz: neighbors must be the same graph as before" in capsys.readouterr().err


def test_a_state_from_before_there_were_graphs(data: Path, tmp_path: Path) -> None:
    chosen, out = settings(data, **OPTIONS), tmp_path / "a"
    train(chosen, out, batches=4)
    old = state(out)
    for name in ("neighbors", "random_share"):
        del old.plain["settings"][name]
        del old.plain["feed"]["arguments"][name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state, "_FORMAT", 5)
        _state.save_state(Path(f"{out}-state.npz"), old)
    assert train(chosen, out, batches=6, resume=True).batches == 6
