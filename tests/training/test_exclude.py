"""A training leaves out images, and is resumed only without the same ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.training import TrainSettings, _state, options_at
from tests.small_rec import identities
from tests.training.small import records, same_arrays, settings, state, train, write_patterns

pytestmark = pytest.mark.usefixtures("numpy_backend")

GONE = [3, 7, 8, 40, *range(61, 67)]
OPTIONS: dict[str, Any] = {"framework": "mxnet", "band": "violating"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pl.DataFrame({"key": GONE}).write_parquet(tmp_path / "gone.parquet")
    return tmp_path / "gone.parquet"


def test_it_is_a_training_on_a_dataset_without_the_images(data: Path, tmp_path: Path, table: Path) -> None:
    rec = tmp_path / "train.rec"
    write_patterns(rec, {key: label for key, label in identities(16, 6).items() if key not in GONE})
    train(settings(tmp_path, **OPTIONS), tmp_path / "expected", batches=9)
    for name, exclude in (("file", table), ("keys", np.array(GONE))):
        train(settings(data, exclude=exclude, **OPTIONS), tmp_path / name, batches=9)
        assert same_arrays(tmp_path / name, tmp_path / "expected")
        assert records(tmp_path / name) == records(tmp_path / "expected")
        start = records(tmp_path / name, "start")[0]
        assert (start["images"], start["identities"]) == (86, 15)
    assert options_at(tmp_path / "file")[0].exclude == str(table)
    assert options_at(tmp_path / "keys")[0].exclude == tuple(GONE)


def test_it_is_resumed_without_the_same_images(data: Path, tmp_path: Path, table: Path) -> None:
    chosen, out = settings(data, exclude=table, **OPTIONS), tmp_path / "a"
    train(chosen, tmp_path / "unbroken", batches=9)
    train(chosen, out, batches=4)
    for exclude, message in (
        (None, "exclude must name the same images as before: the run that wrote the state excluded other"),
        ([*GONE, 1], "exclude must name the same images as before"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(chosen, exclude=exclude), out, batches=9, resume=True)
    table.rename(tmp_path / "moved.parquet")
    with pytest.raises(FileNotFoundError, match=r"if it was moved, give its new path as exclude=PATH.*gone"):
        train(chosen, out, batches=9, resume=True)
    train(replace(chosen, exclude=tmp_path / "moved.parquet"), out, batches=9, resume=True)
    assert same_arrays(out, tmp_path / "unbroken")
    assert records(out) == records(tmp_path / "unbroken")


def test_the_flags_are_kept_and_a_table_that_changed_is_refused(
    data: Path, tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    words = ["train", "--out", str(out), "--batch-size", "12", "--bag-size", "48", "--band", "violating"]
    begin = ["--rec", str(data / "train.rec"), "--network", "small", "--framework", "mxnet"]
    assert main([*words, *begin, "--exclude", str(table), "--batches", "4"]) == 0
    assert records(out, "start")[0]["images"] == 86
    shutil.copy(table, tmp_path / "before.parquet")
    pl.DataFrame({"key": GONE[1:]}).write_parquet(table)
    capsys.readouterr()
    assert main(["train", "--out", str(out), "--resume", "--batches", "6"]) == 1
    said = capsys.readouterr().err
    assert "a-state.npz: exclude must name the same images as before: the run that wrote the state" in said
    assert said.endswith("give --exclude VALUE\n")
    again = ["train", "--out", str(out), "--resume", "--batches", "6", "--exclude"]
    assert main([*again, str(tmp_path / "before.parquet")]) == 0
    assert state(out).plain["batch"] == 6


def test_a_state_from_before_images_could_be_excluded(data: Path, tmp_path: Path, table: Path) -> None:
    chosen, out = settings(data, **OPTIONS), tmp_path / "a"
    train(chosen, out, batches=4)
    old = state(out)
    for name in ("exclude", "exclude_kinds"):
        del old.plain["settings"][name]
    del old.plain["feed"]["arguments"]["exclude"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state, "_FORMAT", 4)
        _state.save_state(Path(f"{out}-state.npz"), old)
    with pytest.raises(
        ft.OptionError, match="exclude must not be given: the run that wrote the state excluded no image"
    ):
        train(replace(chosen, exclude=table), out, batches=6, resume=True)
    assert train(chosen, out, batches=6, resume=True).batches == 6


def test_settings_that_name_images(data: Path) -> None:
    chosen = settings(data, exclude=data / "x.parquet", exclude_kinds=["outlier", "mislabelled"], **OPTIONS)
    assert chosen.exclude == str(data / "x.parquet")
    assert chosen.exclude_kinds == ("mislabelled", "outlier")
    assert TrainSettings.from_dict(chosen.to_dict()) == chosen
    with pytest.raises(ft.OptionError, match="exclude must be a Parquet file or keys, not a frame"):
        settings(data, exclude=pl.DataFrame({"key": [1]}), **OPTIONS)
