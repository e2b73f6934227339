"""How long a bag takes when embedding it takes T seconds: with the stages overlapped, and one after another.

The real faces beside the checkout are copied into a `.rec` of 4 bags of 7,200 images, 5 an identity, and
each image's embedding is a random row of 512 numbers, so that mining has its usual work. The network is a
pause: `embed` sleeps its share of T, as a thread does that waits for a GPU. T is 1.1 and 2 times what
decoding and mining a bag takes alone, measured first.

The peers in the same run: the same stages called one after another; and the original's loop (InsightFace's
`triplet_image_iter.py`), which decodes one image at a time in Python, embeds, and mines in Python loops. That
one does 1,440 images, and its time is scaled to a bag.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
from bench_feed import with_the_original
from bench_mine import original_loop, unit_rows
from faces import BAG, FACES, PER_IDENTITY, write_dataset
from machine import report

BAGS = 4
HEADROOMS = (1.1, 2.0)  # T, in what decoding and mining a bag takes alone
OF_ORIGINAL = 1440  # images


class Pause:
    """An embedder that takes `seconds` for a bag and gives rows of a table."""

    description = "a pause"
    needs_images = True

    def __init__(self, rows: NDArray[np.float32], seconds: float) -> None:
        self.rows, self.seconds = rows, seconds

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Pause, and give the rows of these keys."""
        assert images is not None
        time.sleep(self.seconds * rows.height / BAG)
        chosen: NDArray[np.float32] = self.rows[rows["key"].to_numpy()]
        return chosen


def one_after_another(rec: Path, model: Pause, bags: int) -> float:
    """Seconds a bag."""
    file, index = ft.RecordFile(rec), ft.index_rec(rec)
    started = time.perf_counter()
    for bag in list(ft.bags(ft.triplet_seq(index, PER_IDENTITY), BAG))[:bags]:
        images = ft.decode_rows([file], bag.rows).pixels
        embeddings = model.embed(bag.rows, images)
        ft.mine(embeddings, bag.rows["label"], ids=bag.rows["key"])
    return (time.perf_counter() - started) / bags


def original(rec: Path, model: Pause, shape: tuple[int, ...]) -> float:
    """Seconds a bag without embedding; loading is scaled up from a fifth of one."""
    keys = ft.triplet_seq(ft.index_rec(rec), PER_IDENTITY)["key"].to_numpy()[:OF_ORIGINAL]
    decode = with_the_original(rec, keys.tolist(), shape)
    started = time.perf_counter()
    decode()
    loading = (time.perf_counter() - started) * BAG / OF_ORIGINAL
    started = time.perf_counter()
    original_loop(model.rows[:BAG], PER_IDENTITY, 0.3)
    return loading + time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rec", type=Path, default=FACES)
    parser.add_argument("--epochs", type=int, default=3, help=f"passes over the {BAGS} bags")
    parser.add_argument("--no-loop", action="store_true", help="leave out the original's loop (30 s)")
    arguments = parser.parse_args()
    if not arguments.rec.is_file():
        parser.error(f"no file {arguments.rec}; give one with --rec")
    with tempfile.TemporaryDirectory() as folder:
        rec = write_dataset(arguments.rec, Path(folder) / "train.rec", BAGS * BAG)
        model = Pause(unit_rows(BAGS * BAG, 512), 0.0)
        stages = min(one_after_another(rec, model, BAGS) for _ in range(3))
        results: dict[str, Any] = {"decode and mine a bag, s": stages}
        shape = ft.RecordFile(rec).decode([0]).shape[1:]
        loop = None if arguments.no_loop else original(rec, model, shape)
        for headroom in HEADROOMS:
            model.seconds = headroom * stages
            summary = ft.mine_rec(rec, model=model, epochs=arguments.epochs).summary
            a_bag = (summary.seconds["total"] - summary.waited["index"]) / summary.bags
            at = f"T = {headroom:g} x that"
            results |= {
                f"{at}: mine_rec, s a bag": a_bag,
                f"{at}: mine_rec / T": a_bag / model.seconds,
                f"{at}: one stage after another / T": one_after_another(rec, model, BAGS) / model.seconds,
                f"{at}: share of the run in which embed was waited for": summary.waited["embed"]
                / summary.seconds["total"],
            }
            if loop is not None:
                results[f"{at}: the original's loop / T"] = 1 + loop / model.seconds
    title = f"{summary.bags} bags of {BAG:,} images, embedded in T seconds each"
    report(title, results, as_json=arguments.json)


if __name__ == "__main__":
    main()
