"""The threads of a run: as many as it was told everywhere, and those beside the network give way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.dataset._options import ExcludeOptions
from fasttriplet.run._neighbors_rec import neighbors_rec
from tests.run.machines import Disorderly, in_place_of_ray
from tests.run.test_whole import SMALL
from tests.small_rec import Table, identities, random_table, write_rec
from tests.threads_asked import threads_asked


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """20 identities of 4 images, one of them damaged, and no index yet."""
    return write_rec(tmp_path / "train.rec", identities(20, 4), frozenset({5}))


MANY: dict[str, Any] = {"threads": 3, "on_error": "skip"}
DECODED = {"scan", "image_size", "decode_rows"}


def test_as_many_as_a_run_was_told(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it explains why pairs have no negative, or why there is no triplet at all."""
    asked = threads_asked(monkeypatch)
    ft.mine_rec(rec, model="pixels", bag_size=20, margin=0.05, **MANY)
    with pytest.raises(ft.NoTripletsError, match="raise the margin"):
        ft.mine_rec(rec, model=random_table(), bag_size=20, band="d_an < d_ap - 50", cache=False, **MANY)
    assert asked == {name: {3} for name in (*DECODED, "mine")}
    asked.clear()
    ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", cache=False, **MANY)
    ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", cache=False, resume=True, **MANY)
    assert asked == {name: {3} for name in DECODED}


def test_as_many_as_a_whole_dataset_was_told(
    rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threads_asked(monkeypatch)
    how: dict[str, Any] = {"bag_size": None, "memory": SMALL, **MANY}
    ft.mine_rec(rec, model="pixels", margin=1.0, out=tmp_path / "t.parquet", cache=False, **how)
    with pytest.raises(ft.NoTripletsError, match="raise the margin"):
        ft.mine_rec(rec, model=random_table(), band="d_an < d_ap - 50", **how)
    assert asked == {name: {3} for name in (*DECODED, "mine", "collect", "merge", "finish")}


def test_as_many_as_machines_have(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done with the threads of the machines; what is done here, with those that were asked for."""
    asked = threads_asked(monkeypatch)
    with in_place_of_ray(Disorderly(0, 2)):
        ft.mine_rec(rec, model="pixels", bag_size=20, margin=1.0, ray="disorderly", cache=False, **MANY)
        assert asked == {"scan": {3}, "image_size": {3}, "decode_rows": {1}, "mine": {1}}
        asked.clear()
        ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", ray="disorderly", cache=False, **MANY)
        assert asked == {"scan": {3}, "image_size": {3}, "decode_rows": {1}}
        asked.clear()
        how: dict[str, Any] = {"bag_size": None, "memory": SMALL, "out": tmp_path / "t.parquet"}
        np.save(tmp_path / "t.npy", random_table().rows[1:81])
        ft.mine_rec(rec, model=f"npy:{tmp_path / 't.npy'}", ray="disorderly", cache=False, **how, **MANY)
        assert asked == {"scan": {3}, "mine": {3}, "collect": {1}, "merge": {1}, "finish": {1}}


def test_as_many_as_a_feed_was_told(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for what a state has, of which the images are decoded again, and for a running graph."""
    how: dict[str, Any] = {"batch_size": 9, "bag_size": 20, "band": "any", "epochs": None, **MANY}
    how |= {"model": random_table(), "neighbors": "running"}
    asked = threads_asked(monkeypatch)
    with ft.Feed(rec, **how) as feed:
        list(feed.one_epoch())
        list(islice(feed, 3))
        state = feed.state_dict()
    with ft.Feed(rec, state=state, **how) as feed:
        next(feed)
    assert asked == {name: {3} for name in (*DECODED, "mine", "collect")}


@pytest.mark.parametrize("threads", [None, 3])
def test_a_feed_shares_the_cores_with_other_processes(
    rec: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None
) -> None:
    """Of those that one launcher started, unless it is told how many threads to take."""
    monkeypatch.setattr("fasttriplet.run._feed.threads_each", lambda: 2)
    asked = threads_asked(monkeypatch)
    with ft.Feed(rec, model=random_table(), bag_size=20, on_error="skip", threads=threads) as feed:
        next(feed)
    assert asked == {name: {threads or 2} for name in (*DECODED, "mine")}


def test_as_many_as_a_search_was_told(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threads_asked(monkeypatch)
    neighbors_rec(
        (rec,), model=ft.load_embedder("pixels"), out=tmp_path / "g.parquet", k=2, of="identities",
        metric="sqeuclidean", normalize=True, overwrite=False, progress=lambda *_: None,
        options=ExcludeOptions(cache=False), on_error="skip", threads=3,
    )  # fmt: skip
    assert asked == {name: {3} for name in (*DECODED, "mine", "collect")}


class Looks(Table):
    """Notes how nice each thread of the package is while it embeds."""

    needs_images = True

    def __init__(self) -> None:
        super().__init__(random_table().rows)
        self.nice: dict[str, int] = {}

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:  # noqa: ARG002
        for thread in threading.enumerate():
            if thread.name.startswith("fasttriplet-") and thread.native_id is not None:
                name = thread.name.removeprefix("fasttriplet-").rpartition("_")[0]
                self.nice[name] = os.getpriority(os.PRIO_PROCESS, thread.native_id)
        return super().embed(rows, None)


RUNS: dict[str, Callable[..., object]] = {
    "mine": lambda rec, **how: ft.mine_rec(rec, bag_size=20, **how),
    "write": lambda rec, **how: ft.embed_rec(rec, out=rec.with_name("e.npy"), **how),
    "assemble": lambda rec, **how: list(ft.Feed(rec, bag_size=20, epochs=3, **how)),
}


@pytest.mark.skipif(not Path("/proc/self").exists() or os.nice(0) > 14, reason="Linux, and room to be nicer")
@pytest.mark.parametrize(("last", "nicer"), [("mine", 5), ("write", 0), ("assemble", 0)])
def test_threads_beside_the_network_give_way(
    rec: Path, monkeypatch: pytest.MonkeyPatch, last: str, nicer: int
) -> None:
    """But not those that a run waits for at the end."""
    monkeypatch.setattr("fasttriplet.run._pass.PART", 20)
    look, own = Looks(), os.nice(0)
    RUNS[last](rec, model=look, **MANY)
    assert look.nice == {"decode": own + 5, last: own + nicer}
