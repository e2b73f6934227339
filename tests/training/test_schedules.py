"""How the learning rate rises and falls, over any number of interruptions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.errors import OptionError
from fasttriplet.training import TrainSettings, options_at, train_rec
from tests.documented import defaults_differ
from tests.training.small import OPTIONS, records, same_arrays, same_numbers, settings, state, train


@pytest.fixture
def chosen(data: Path) -> TrainSettings:
    options = OPTIONS | {"lr_steps": (100_000,)}
    return TrainSettings(rec=(str(data / "train.rec"),), network="small", band="any", **options)


def rates(chosen: TrainSettings, *batches: int) -> list[float]:
    return [chosen.learning_rate_after(batch) for batch in batches]


def test_it_falls_in_steps(chosen: TrainSettings) -> None:
    steps = replace(chosen, learning_rate=0.5, lr_steps=(10, 20), lr_factor=0.1)
    assert rates(steps, 0, 9, 10, 19, 20, 1000) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    assert rates(replace(steps, lr_steps=(1,)), 0, 1, 2) == pytest.approx([0.5, 0.05, 0.05])


def test_it_falls_in_a_straight_line(chosen: TrainSettings) -> None:
    """The last batch still has a rate, and after it there is none."""
    linear = replace(chosen, learning_rate=0.5, lr_schedule="linear", lr_end=10)
    assert rates(linear, *range(12)) == pytest.approx([0.05 * left for left in range(10, 0, -1)] + [0, 0])
    assert rates(linear, 10, 11, 10**9) == [0, 0, 0]


def test_it_falls_along_a_cosine(chosen: TrainSettings) -> None:
    cosine = replace(chosen, learning_rate=0.5, lr_schedule="cosine", lr_end=8)
    expected = [0.25 * (1 + math.cos(math.pi * batch / 8)) for batch in range(9)]
    assert rates(cosine, *range(9)) == pytest.approx(expected)
    assert rates(cosine, 0, 4, 8, 9) == pytest.approx([0.5, 0.25, 0, 0])
    assert all(rate > 0 for rate in rates(cosine, *range(8)))


def test_before_it_falls_it_rises(chosen: TrainSettings) -> None:
    """The first batch has a rate above 0, and the last of the warm-up has all of it."""
    steps = replace(chosen, learning_rate=0.5, warmup=4, lr_steps=(2,), lr_factor=0.1)
    assert rates(steps, *range(6)) == pytest.approx([0.125, 0.25, 0.0375, 0.05, 0.05, 0.05])
    linear = replace(chosen, learning_rate=0.5, lr_schedule="linear", lr_end=10, warmup=2)
    assert rates(linear, *range(4)) == pytest.approx([0.25, 0.45, 0.4, 0.35])
    for warmup in (0, 1):
        assert rates(replace(linear, warmup=warmup), *range(12)) == rates(
            replace(linear, warmup=0), *range(12)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_schedule": "poly"}, "lr_schedule must be one of 'steps', 'linear', 'cosine', not 'poly'"),
        ({"lr_end": 5}, "lr_end goes with lr_schedule='linear' or lr_schedule='cosine'"),
        ({"lr_end": 0, "lr_schedule": "linear"}, "lr_end must be a whole number >= 1, not 0"),
        ({"lr_end": 5.0, "lr_schedule": "linear"}, "lr_end must be a whole number"),
        ({"warmup": -1}, "warmup must be a whole number >= 0, not -1"),
        ({"warmup": 6, "lr_schedule": "cosine", "lr_end": 5}, "warmup must be at most 5, the batch at which"),
    ],
)
def test_what_makes_no_sense_is_refused(chosen: TrainSettings, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(chosen, **options)


def test_without_its_end_a_rate_is_not_known(chosen: TrainSettings) -> None:
    with pytest.raises(ValueError, match="lr_end is known when the training begins"):
        replace(chosen, lr_schedule="linear").learning_rate_after(0)


def logged(out: Path) -> list[float]:
    return [line["learning_rate"] for line in records(out, "train")]


@pytest.mark.usefixtures("numpy_backend")
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_resumed_training_has_the_same_rates(chosen: TrainSettings, tmp_path: Path, schedule: Any) -> None:
    """The end is that of the first run, whatever is asked of the runs after it."""
    chosen = replace(chosen, lr_schedule=schedule, warmup=4)
    train_rec(chosen, tmp_path / "a", batches=20, log_every=1)

    def stop(record: Mapping[str, Any]) -> None:
        if record["batch"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rec(chosen, tmp_path / "b", batches=20, log_every=1, progress=stop)
    train_rec(chosen, tmp_path / "b", batches=13, log_every=1, resume=True)
    settings, options = options_at(tmp_path / "b")
    assert (settings.lr_end, options["batches"]) == (20, 13)
    train_rec(settings, tmp_path / "b", batches=20, log_every=1, resume=True)
    assert logged(tmp_path / "a") == logged(tmp_path / "b") == rates(settings, *range(20))
    assert same_arrays(tmp_path / "a", tmp_path / "b")


@pytest.mark.usefixtures("numpy_backend")
def test_a_training_ends_where_its_learning_rate_does(chosen: TrainSettings, tmp_path: Path) -> None:
    linear, out = replace(chosen, lr_schedule="linear"), tmp_path / "a"
    with pytest.raises(OptionError, match=r"batches must be at most 9, not 10: .*, give a later lr_end$"):
        train_rec(replace(linear, lr_end=9), out, batches=10)
    with pytest.raises(OptionError, match="warmup must be at most 10"):
        train_rec(replace(linear, warmup=11), out, batches=10)
    assert not list(tmp_path.iterdir())
    train_rec(linear, out, batches=5)
    with pytest.raises(
        OptionError, match=r"batches must be at most 5, not 6: .* another training, with the network of this"
    ):
        train_rec(linear, out, batches=6, resume=True)
    with pytest.raises(ValueError, match=r"with lr_end 5 \(now 6\)"):
        train_rec(replace(linear, lr_end=6), out, batches=6, resume=True)
    with pytest.raises(ValueError, match=r"with lr_schedule 'linear' \(now 'steps'\)"):
        train_rec(chosen, out, batches=6, resume=True)
    later = replace(linear, lr_end=8)
    train_rec(later, tmp_path / "b", batches=5)
    assert train_rec(linear, tmp_path / "b", batches=8, resume=True).batches == 8
    assert state(tmp_path / "b").plain["settings"]["lr_end"] == 8


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_mxnet_takes_the_rates(data: Path, tmp_path: Path, schedule: Any) -> None:
    chosen = settings(data, lr_schedule=schedule, warmup=3, lr_end=12)
    train(chosen, tmp_path / "a", batches=12, log_every=1)
    for batches in (2, 7, 12):
        train(chosen, tmp_path / "b", batches=batches, log_every=1, resume=batches > 2)
    assert logged(tmp_path / "a") == logged(tmp_path / "b") == rates(chosen, *range(12))
    assert same_numbers(tmp_path / "a", tmp_path / "b")
    train(settings(data), tmp_path / "c", batches=12)
    assert not same_numbers(tmp_path / "a", tmp_path / "c")


def test_defaults_are_those_of_the_docstrings() -> None:
    assert defaults_differ(TrainSettings) == (21, [])
    assert defaults_differ(train_rec) == (6, [])
