"""A training that makes the identity graph itself ends with the same bytes, whatever stopped it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.run._running import ARRAYS
from fasttriplet.training import TrainSettings, _state, options_at
from tests.cli.command import Capture
from tests.small_rec import identities
from tests.training.small import records, same_arrays, settings, state, train, write_patterns

pytestmark = pytest.mark.heavy

OPTIONS: dict[str, Any] = {"framework": "mxnet", "band": "any", "neighbors": "running", "bag_size": 40}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 40 identities of 5 images: bags of 8, 6 batches of 12 triplets and more."""
    folder = tmp_path_factory.mktemp("data")
    write_patterns(folder / "train.rec", identities(40, 5))
    return folder


def chosen(data: Path, **more: Any) -> TrainSettings:
    return settings(data, **OPTIONS | {"batch_size": 36} | more)


@pytest.mark.usefixtures("numpy_backend")
@pytest.mark.parametrize("refresh_epochs", [1, 2])
def test_a_resumed_training_ends_with_the_same_bytes(data: Path, tmp_path: Path, refresh_epochs: int) -> None:
    how, out, unbroken = chosen(data, refresh_epochs=refresh_epochs), tmp_path / "a", tmp_path / "unbroken"
    # 40 identities of 10 pairs are 33 batches of an epoch.
    train(how, unbroken, batches=120)
    for batches in (1, 20, 34, 66, 67, 100, 120):
        train(how, out, batches=batches, resume=batches > 1, checkpoint_every=7)
        kept = state(out)
        assert {*ARRAYS} < kept.arrays.keys()
        assert kept.plain["feed"]["arguments"]["neighbors"] == "running"
    assert same_arrays(out, unbroken)
    assert state(out).plain | {"options": None} == state(unbroken).plain | {"options": None}
    assert records(out) == records(unbroken)
    last = state(out)
    assert last.plain["feed"]["epoch"] == 3
    assert last.arrays["means"].shape == (40, 16)
    assert len(last.arrays["graph_neighbors"]) == 40 * 20
    train(replace(how, neighbors=None, refresh_epochs=1), tmp_path / "uniform", batches=120)
    first, other = records(unbroken, "train"), records(tmp_path / "uniform", "train")
    assert first[:3] == other[:3]  # of the first epoch, whose order is random
    assert first[-1] != other[-1]


@pytest.mark.usefixtures("numpy_backend")
def test_the_flags_are_kept(data: Path, tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    out = tmp_path / "a"
    monkeypatch.chdir(tmp_path)
    words = ["train", "--out", str(out), "--batch-size", "12", "--bag-size", "40", "--band", "violating"]
    begin = ["--rec", str(data / "train.rec"), "--network", "small", "--framework", "mxnet"]
    running = ["--neighbors", "running", "--refresh-epochs", "3", "--random-share", "0.25"]
    assert main([*words, *begin, *running, "--batches", "4"]) == 0
    kept, _ = options_at(out)
    assert (kept.neighbors, kept.refresh_epochs, kept.random_share) == ("running", 3, 0.25)
    assert main(["train", "--out", str(out), "--resume", "--batches", "6"]) == 0
    resume = ["train", "--out", str(out), "--resume", "--batches", "8"]
    capsys.readouterr()
    assert main([*resume, "--refresh-epochs", "2"]) == 1
    assert "is of a training with --refresh-epochs 3 (now 2)" in capsys.readouterr().err
    assert main([*words, *begin, "--batches", "4", "--refresh-epochs", "2", "--overwrite"]) == 2
    assert "--refresh-epochs goes with --neighbors running" in " ".join(capsys.readouterr().err.split())
    pl.DataFrame({"label": [0], "neighbor_label": [1], "rank": [0]}).write_parquet("graph.parquet")
    assert main([*resume, "--neighbors", "graph.parquet"]) == 2
    assert "--neighbors must be 'running': the run that wrote the state made" in capsys.readouterr().err


@pytest.mark.usefixtures("numpy_backend")
def test_states_that_are_damaged(data: Path, tmp_path: Path) -> None:
    out, how = tmp_path / "a", chosen(data)
    train(how, out, batches=50)
    kept = state(out)
    for name in ARRAYS:
        arrays = {one: array for one, array in kept.arrays.items() if one != name}
        _state.save_state(Path(f"{out}-state.npz"), _state.State(kept.plain, arrays))
        with pytest.raises(ValueError, match=r"a-state\.npz: state must be what state_dict"):
            train(how, out, batches=60, resume=True)
    arrays = kept.arrays | {"graph_neighbors": np.full_like(kept.arrays["graph_neighbors"], 40)}
    _state.save_state(Path(f"{out}-state.npz"), _state.State(kept.plain, arrays))
    with pytest.raises(ValueError, match=r"a-state\.npz: state: graph_neighbors must be positions"):
        train(how, out, batches=60, resume=True)


@pytest.mark.usefixtures("numpy_backend")
def test_a_state_from_before_there_were_running_graphs(data: Path, tmp_path: Path) -> None:
    how, out = chosen(data, neighbors=None), tmp_path / "a"
    train(how, out, batches=4)
    old = state(out)
    del old.plain["settings"]["refresh_epochs"]
    del old.plain["feed"]["arguments"]["refresh_epochs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state, "_FORMAT", 6)
        _state.save_state(Path(f"{out}-state.npz"), old)
    assert train(how, out, batches=6, resume=True).batches == 6
    with pytest.raises(ft.OptionError, match="neighbors must not be given"):
        train(replace(how, neighbors="running"), out, batches=8, resume=True)


@pytest.mark.parametrize("framework", ["torch", pytest.param("mxnet", marks=pytest.mark.mxnet)])
def test_with_the_frameworks(
    data: Path, tmp_path: Path, framework: str, request: pytest.FixtureRequest
) -> None:
    if framework == "mxnet":
        request.getfixturevalue("mx")
    else:
        pytest.importorskip(framework)
    how, out, unbroken = chosen(data, framework=framework), tmp_path / "a", tmp_path / "unbroken"
    train(how, unbroken, batches=40)
    for batches in (20, 36, 40):
        train(how, out, batches=batches, resume=batches > 20)
    assert same_arrays(out, unbroken)
    assert records(out) == records(unbroken)
    assert len(state(out).arrays["graph_labels"]) == 40
