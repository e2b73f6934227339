"""What a summary counts: times by a clock of the test, notes on errors, quantiles."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from fasttriplet.run import _summary
from fasttriplet.run._summary import Summary
from tests.clock import Clock


def test_times_are_counted_by_stage(clock: Clock) -> None:
    """Of the wall time, waits are a part; what overlaps is none, but waiting for it is."""
    assert Summary("").waited_most_for is None
    summary = Summary("", _started=clock.now)
    for _ in range(2):
        clock.now += 1
        with summary.clock("embed"):
            clock.now += 3
        with summary.clock("decode", overlapped=True):
            clock.now += 0.5
        with summary.waiting("decode"):
            clock.now += 8
    with pytest.raises(KeyError), summary.clock("mine"):
        clock.now += 0.25
        raise KeyError
    with pytest.raises(KeyError), summary.waiting("index"):
        clock.now += 0.125
        raise KeyError
    assert summary.seconds == {"embed": 6, "decode": 1, "mine": 0.25, "total": 25.375}
    assert summary.waited == {"embed": 6, "decode": 16, "mine": 0.25, "index": 0.125}
    assert summary.waited_most_for == "decode"
    summary.images = 12
    rates = {stage: summary.images_per_second(stage) for stage in ("embed", "decode", "write")}
    assert rates == {"embed": 2, "decode": 12, "write": None}
    summary.seconds["write"] = 0.0
    assert summary.images_per_second("write") is None
    plain = json.loads(json.dumps(summary.to_dict()))
    assert plain["images_per_second"] == {"decode": 12, "embed": 2, "mine": 48}
    width, busy = summary.timeline()
    assert plain["timeline"] == {"seconds_per_part": width, "busy": busy}
    assert sum(busy["embed"]) * width == pytest.approx(6)
    assert not [name for name in plain if name[0] == "_"]


def test_before_anything_is_done_all_counts_are_0() -> None:
    plain = Summary("x").to_dict()
    assert (plain.pop("embedder"), plain.pop("metric")) == ("x", "sqeuclidean")
    assert plain.pop("timeline")["busy"] == {}
    assert plain.pop("images_per_second") == {"decode": None, "embed": None, "mine": None}
    assert [name for name, value in plain.items() if value] == []


def test_what_other_processes_did_is_added() -> None:
    summary = Summary("", skipped=["a", "b"], seconds={"embed": 1.0, "total": 9.0})
    summary.add(skipped=["b", "c"], seconds={"embed": 2.0, "mine": 3.0, "total": 99.0}, without_negative=None)
    assert summary.skipped == ["a", "b", "c"]
    assert summary.seconds == {"embed": 3.0, "mine": 3.0, "total": 9.0}
    assert summary.without_negative is None
    for why in ({"bag": 1}, {"bag": 2}):
        summary.add(skipped=[], seconds={}, without_negative=why)
    assert summary.without_negative == {"bag": 1}  # of the first bag


def test_an_error_says_once_what_had_been_left_out() -> None:
    summary = Summary("", images_indexed=1234)
    with pytest.raises(ValueError, match="x") as error, summary.in_errors():
        raise ValueError("x")
    assert not hasattr(error.value, "__notes__")
    summary.skipped = ["a.rec, key 3: bad", "a.rec, key 7: bad"]
    with pytest.raises(ValueError, match="x") as error, summary.in_errors(), summary.in_errors():
        raise ValueError("x")
    assert error.value.__notes__ == ["2 of 1,234 images had been left out; the first: a.rec, key 3: bad"]
    with pytest.raises(KeyboardInterrupt) as stopped, summary.in_errors():
        raise KeyboardInterrupt
    assert not hasattr(stopped.value, "__notes__")


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 1000])
def test_quantiles_are_those_of_every_kth_triplet(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_summary, "_SAMPLE", 10)
    d_ap, d_an = np.random.default_rng(count).random((2, count))
    summary = Summary("", triplets=count)
    summary.measure(pl.DataFrame({"d_an": d_an, "d_ap": d_ap, "bag": 1}).lazy())
    every = 1 + count // 10
    assert summary.quantiles.keys() == {"d_ap", "d_an"}
    for name, values in (("d_ap", d_ap), ("d_an", d_an)):
        expected = {f"{q:g}": np.quantile(values[::every], q) for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)}
        assert summary.quantiles[name] == pytest.approx(expected)
