"""How long a bag takes when embedding it takes T seconds: with the stages overlapped, and one after another.

Real faces are copied into a `.rec` of 4 bags of 7,200 images, 5 of each identity, and each image's embedding
is a random row of 512 numbers, so that mining has its usual work. The network is a pause: `embed` sleeps its
share of T, as a thread does that waits for a GPU. T is 1.1 and 2 times what decoding and mining a bag takes
alone, measured first.

The peers in the same run: the same stages called one after another; and the original's loop (InsightFace's
`triplet_image_iter.py`), which decodes one image at a time in Python, embeds, and mines in Python loops. That
one decodes 1,440 images, and its time is scaled up to a bag.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
import original
from data import BAG, FACES, PER_IDENTITY, decoder, random_rows, write_dataset
from harness import Bench
from process import Way
from tables import Table

HEADROOMS = (1.1, 2.0)  # T, in what decoding and mining a bag takes alone
OVERLAPPED, IN_TURN, LOOP = "`mine_rec`", "the same stages one after another", "the original's loop"

bench = Bench(__file__, __doc__, rounds=3, packages=["mxnet"], against=True)
bench.option("--rec", FACES, "file of images")
bench.option("--bag-size", BAG, "images", quick=400)
bench.option("--bags", 4, "of the file", quick=2)
bench.option("--epochs", 2, "passes over the bags in each call", quick=1)
bench.option("--loop", True, "the original's loop, too (30 s)", quick=False)
bench.option("--loaded", 1440, "images that the original's loop loads")


class Pause:
    """An embedder that takes `seconds` for a bag and gives rows of a table."""

    description = "a pause"
    needs_images = True

    def __init__(self, rows: NDArray[np.float32], seconds: float, bag_size: int) -> None:
        self.rows, self.seconds, self.bag_size = rows, seconds, bag_size

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Pause, and give the rows of these keys."""
        assert images is not None
        time.sleep(self.seconds * rows.height / self.bag_size)
        chosen: NDArray[np.float32] = self.rows[rows["key"].to_numpy()]
        return chosen


def ways(rec: str, bags: int, bag_size: int, epochs: int, seconds: float) -> dict[str, Way]:
    path = Path(rec)
    model = Pause(random_rows(bags * bag_size, 512), seconds, bag_size)
    index, decode = ft.index_rec(path), decoder(path)

    def in_turn() -> None:
        for epoch in range(epochs):
            for bag in ft.bags(ft.triplet_seq(index, PER_IDENTITY, 0, epoch), bag_size):
                embeddings = model.embed(bag.rows, decode(bag.rows))
                ft.mine(embeddings, bag.rows["label"], ids=bag.rows["key"])

    def overlapped() -> ft.Summary:
        return ft.mine_rec(path, model=model, epochs=epochs, bag_size=bag_size).summary

    def facts(summary: ft.Summary) -> dict[str, Any]:
        return {"waited, %": 100 * summary.waited["embed"] / summary.seconds["total"]}

    return {IN_TURN: Way(in_turn), OVERLAPPED: Way(overlapped, facts=facts)}


def loop(rec: str, bag_size: int, loaded: int) -> dict[str, Way]:
    path = Path(rec)
    keys = ft.triplet_seq(ft.index_rec(path), PER_IDENTITY)["key"].to_numpy()[:loaded]
    rows = random_rows(bag_size, 512)
    shape = ft.RecordFile(path).decode(keys[:1]).shape[1:]
    load = original.loading(path, keys.tolist(), shape)
    return {
        "loading": Way(load, peer=True),
        "mining": Way(lambda: original.mining(rows, PER_IDENTITY, 0.3), peer=True),
    }


def tables(options: Namespace) -> Iterator[Table]:
    bags, bag_size, in_all = options.bags, options.bag_size, options.bags * options.epochs
    with tempfile.TemporaryDirectory() as folder:
        rec = str(write_dataset(options.rec, Path(folder) / "train.rec", bags * bag_size))
        case: dict[str, Any] = {"rec": rec, "bags": bags, "bag_size": bag_size, "epochs": options.epochs}
        stages = bench.measure(ways, "T = 0", seconds=0.0, **case)[IN_TURN].best / in_all
        found = Table("A bag, in T", {name: {} for name in (OVERLAPPED, IN_TURN)})
        waited = "share of `mine_rec` that waits for the embedder, %"
        times = {}
        for headroom in HEADROOMS:
            column = f"T = {headroom:g} x that"
            times[column] = headroom * stages
            took = bench.measure(ways, column, seconds=times[column], **case)
            for name in (OVERLAPPED, IN_TURN):
                found.rows[name][column] = took[name].best / in_all / times[column]
            found.rows.setdefault(waited, {})[column] = took[OVERLAPPED].facts["waited, %"]
        if options.loop:
            parts = bench.measure(
                loop, LOOP, rounds=1, warm_up=False, rec=rec, bag_size=bag_size, loaded=options.loaded
            )
            a_bag = parts["loading"].best * bag_size / options.loaded + parts["mining"].best
            found.rows[LOOP] = {column: 1 + a_bag / seconds for column, seconds in times.items()}
    yield Table("Seconds", {f"decoding and mining a bag of {bag_size:,} alone": {"": stages}})
    yield found


if __name__ == "__main__":
    bench.main(tables)
