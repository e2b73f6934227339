"""A run over embeddings that are nearly equal warns at the first bag, and fails after an epoch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.cli import main
from tests.run.leftovers import besides_datasets, nothing_left
from tests.run.plain_feed import bags_of
from tests.small_rec import Table, picture, random_table

Rows = NDArray[np.float32]
OPTIONS: dict[str, Any] = {"bag_size": 15, "seed": 5, "band": "violating"}  # 4 bags, as in `bags_of`


def near(spread: float) -> Rows:
    """A table of rows whose squared distances are about `spread` of their squared norms."""
    rng = np.random.default_rng(1)
    rows: Rows = (np.ones((100, 16)) + np.sqrt(spread / 2) * rng.standard_normal((100, 16))).astype(
        np.float32
    )
    return rows


def sound_in(rec: Path, *bags: int) -> Rows:
    """Rows that are nearly equal, except in some bags of the first epoch."""
    rows = near(1e-13)
    for bag in bags:
        keys = bags_of(rec)[bag]
        rows[keys] = random_table().rows[keys]
    return rows


@pytest.mark.parametrize("spread", [0.0, 1e-14, 1e-8, 5e-7])
@pytest.mark.parametrize(
    "how",
    [
        {"band": "semihard"},
        {"band": "violating", "metric": "euclidean"},
        {"band": "hard", "metric": "cosine"},
        {"band": "any", "normalize": False},
    ],
)
def test_an_epoch_of_noise_is_an_error(rec: Path, tmp_path: Path, how: dict[str, Any], spread: float) -> None:
    options = {"model": Table(near(spread)), **OPTIONS, **how}
    calls: list[Callable[[], object]] = [
        lambda: ft.mine_rec(rec, out=tmp_path / "t.parquet", **options),
        lambda: list(ft.Feed(rec, batch_size=9, epochs=None, **options)),
    ]
    for call in calls:
        with (
            nothing_left(),
            pytest.warns(ft.CollapseWarning, match=r"^epoch 0, bag 0: the embeddings .* noise$") as caught,
            pytest.raises(ft.CollapsedError, match=r"^epoch 0, every bag: the embeddings are nearly equal"),
        ):
            call()
        assert len(caught) == 1
        assert caught[0].filename == __file__
    assert besides_datasets(tmp_path) == []


def test_a_single_bag_is_an_error_at_once(rec: Path) -> None:
    with pytest.raises(ft.CollapsedError, match=r"is 0 of the squared norm"):
        ft.mine_rec(rec, model=Table(near(0.0)))


def test_some_bags_of_noise_are_a_warning(rec: Path) -> None:
    options: dict[str, Any] = {"model": Table(sound_in(rec, 0, 2)), **OPTIONS}
    with pytest.warns(ft.CollapseWarning, match=r"^epoch 0, bag 1: ") as caught:
        summary = ft.mine_rec(rec, **options).summary
    assert (len(caught), summary.bags, summary.bags_collapsed) == (1, 4, 2)
    assert json.loads(json.dumps(summary.to_dict()))["bags_collapsed"] == 2
    with (
        pytest.warns(ft.CollapseWarning, match=r"^epoch 0, bag 1: ") as caught,
        ft.Feed(rec, **options) as feed,
    ):
        list(feed)
    assert (len(caught), feed.summary.bags_collapsed) == (1, 2)


def test_a_run_cut_short_by_max_triplets_is_an_error_too(rec: Path, tmp_path: Path) -> None:
    with pytest.warns(ft.CollapseWarning), pytest.raises(ft.CollapsedError):
        ft.mine_rec(rec, model=Table(near(0.0)), out=tmp_path / "t.parquet", max_triplets=3, **OPTIONS)
    assert besides_datasets(tmp_path) == []


def test_a_few_images_that_differ_do_not_help(rec: Path) -> None:
    rows = near(1e-13)
    rows[::15] = random_table().rows[::15]
    with pytest.warns(ft.CollapseWarning), pytest.raises(ft.CollapsedError):
        ft.mine_rec(rec, model=Table(rows), **OPTIONS)


@pytest.mark.parametrize("sound", [0, 1, None])
def test_a_feed_that_resumes_knows_the_bags_before(rec: Path, sound: int | None) -> None:
    """Bags before the place count, whichever side of it they were mined on."""
    bags = () if sound is None else (sound,)
    options: dict[str, Any] = {"model": Table(sound_in(rec, *bags)), "batch_size": 9, **OPTIONS}

    def rest(state: Any, most: int | None = None) -> tuple[list[Any], Any]:
        taken = []
        with warnings.catch_warnings(), ft.Feed(rec, state=state, **options) as feed:
            warnings.simplefilter("ignore", ft.CollapseWarning)
            try:
                for batch in feed:
                    taken.append(batch.ids.tolist())
                    if len(taken) == most:
                        break
            except ft.CollapsedError as error:
                taken.append(type(error))
            return taken, feed.state_dict()

    whole, _ = rest(None)
    assert (whole[-1] is ft.CollapsedError) == (sound is None)
    for taken in (1, 4, 8, 12):
        first, state = rest(None, taken)
        assert state["sound_bags"] == (sound is not None and state["bag"] > sound)
        assert first + rest(state)[0] == whole


def test_a_later_epoch_is_judged_by_itself(rec: Path) -> None:
    model = Table(random_table().rows)
    with pytest.raises(ft.CollapsedError, match=r"^epoch 1, every bag"):
        for batch in ft.Feed(rec, model=model, epochs=None, batch_size=9, seed=5, band="violating"):
            if batch.epoch == 0:
                model.rows = near(0.0)


@pytest.mark.parametrize("model", ["pixels", "npy"])
def test_images_that_are_one_picture(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key in range(1, 25):
            writer.write(key, ft.IRHeader(0, float(key // 4), key, 0), picture(0))
    if model == "npy":
        np.save(tmp_path / "rows.npy", np.full((24, 8), 0.1, np.float16))
        model = f"npy:{tmp_path / 'rows.npy'}"
    rec, out = tmp_path / "train.rec", tmp_path / "t.parquet"
    arguments = ["mine", "--rec", rec, "--model", model, "--band", "any", "--bag-size", 12, "--out", out]
    assert main(list(map(str, arguments))) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "nearly equal" in line]
    assert [line.split(": ")[1] for line in lines] == ["epoch 0, bag 0", "epoch 0, every bag"]
    assert not out.exists()
