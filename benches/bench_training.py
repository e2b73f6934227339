"""What a network learns in some minutes: from this package's batches, and from the original's.

Omniglot beside the checkout, in images of 64 x 64; the network with four convolution blocks, a batch of 120,
bags of 1,200 images, 10 an identity, margin 0.3, SGD with learning rate 0.05, momentum 0.9, weight decay
5e-4. Both sides begin with the same weights and have the same loop, that of `Module.fit`. Every 100 batches
the network is verified on 106 characters that are not in the training set: all 2,246,140 pairs of their 2,120
images, which are not mirrored. This takes no part in the times.

The peer is `triplet_image_iter.py` of a checkout of InsightFace (`--insightface`, or INSIGHTFACE), repaired
only so far that it runs (`original.REPAIRS`). Without one only this package's side runs.

Last, the same network with better settings (`BETTER`), which are written down in this file: each character
turned and mirrored counts as eight, images are varied, strokes are thick on grey, and images of 32 x 32 make
four times as many of them in the same time.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fasttriplet as ft
import original
from fasttriplet.mxnet import TripletIter, import_mxnet, small_convnet, triplet_loss
from fasttriplet.mxnet._module_embedder import ModuleEmbedder
from fasttriplet.mxnet._quiet import quiet
from harness import Bench
from omniglot import write_plain, write_varied
from tables import Cell, Table

SETTINGS: dict[str, Any] = {"batch_size": 120, "bag_size": 1200, "images_per_identity": 10, "margin": 0.3}
RATE = 0.05
BETTER: dict[str, Any] = {
    "batch_size": 360,
    "bag_size": 2400,
    "images_per_identity": 5,
    "margin": 0.3,
    "pick": "hardest",
}
BETTER_RATE = 0.2  # and from there down to 0, in a straight line
SIDE, BETTER_SIDE = 64, 32
EVERY = 100  # batches
GOALS = (0.9, 0.91, 0.92)  # AUC
AFTER = (700, 1600)  # batches

bench = Bench(__file__, __doc__, packages=["mxnet"])
bench.option("--insightface", None, "checkout, or INSIGHTFACE of the environment", kind=Path)
bench.option("--seconds", 258.0, "of each training", quick=5.0)
bench.option("--seed", 0, "of weights and order")
bench.option("--better", True, "the last part, too")
bench.option("--variants", 8, "of each image in the last part", quick=1)


@dataclass(frozen=True)
class Point:
    """What the unseen characters say after some batches."""

    batches: int
    seconds: float
    auc: float
    recall_at_1: float
    tar: float  # at a false accept rate of 1e-3


def with_ours(batches: TripletIter) -> Generator[Any, None, None]:
    """Batches of all epochs."""
    with contextlib.closing(batches):
        while True:
            yield from batches
            batches.reset()


def new_module(batch_size: int, side: int, rate: float, seed: int) -> Any:
    """The network with its loss, weights and optimizer."""
    mx = import_mxnet()
    module = mx.mod.Module(triplet_loss(small_convnet(128), SETTINGS["margin"], batch_size))
    with quiet():
        module.bind([("data", (batch_size, 3, side, side))], [("softmax_label", (batch_size,))])
    mx.random.seed(seed)
    np.random.seed(seed)  # the original draws from both
    random.seed(seed)
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    options = {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4, "rescale_grad": 1.0}
    module.init_optimizer(optimizer="sgd", optimizer_params=options)
    return module


def verifier(unseen: Path, module: Any) -> Callable[[], tuple[float, float, float]]:
    """A function that gives AUC, recall@1 and TAR of the module as it is then."""
    index = ft.index_rec(unseen, cache=False).sort("key")
    pixels = ft.RecordFile(unseen).decode(index["key"].to_numpy())
    labels = index["label"].to_numpy()
    first, second = np.triu_indices(len(labels), 1)
    shuffled = np.random.default_rng(0).permutation(len(first))  # folds want both kinds
    first, second = first[shuffled], second[shuffled]
    same = labels[:, None] == labels

    def verify() -> tuple[float, float, float]:
        rows = ModuleEmbedder(module).embed(index, pixels).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        distances = np.clip(2 - 2 * rows @ rows.T, 0, 4)
        found = ft.verify_distances(distances[first, second], same[first, second])
        np.fill_diagonal(distances, np.inf)
        recall = same[np.arange(len(labels)), distances.argmin(axis=1)].mean()
        assert found.auc is not None
        return found.auc, float(recall), found.tar[1e-3]

    return verify


def train(
    module: Any,
    batches: Generator[Any, None, None],
    unseen: Path,
    limit: float,
    rate: Callable[[float], float] | None = None,
) -> list[Point]:
    """Train for `limit` seconds; `rate` gives the learning rate by the seconds."""
    mx, verify = import_mxnet(), verifier(unseen, module)
    points = [Point(0, 0.0, *verify())]
    number, aside = 0, 0.0
    started = time.perf_counter()
    for batch in batches:
        seconds = time.perf_counter() - started - aside
        if seconds >= limit:
            break
        if rate is not None:
            module._optimizer.lr = rate(seconds)
        module.forward_backward(batch)
        module.update()
        module.get_outputs()[-1].asnumpy()  # the loss, as a metric does
        number += 1
        if number % EVERY == 0:
            mx.nd.waitall()
            paused = time.perf_counter()
            points.append(Point(number, paused - started - aside, *verify()))
            aside += time.perf_counter() - paused
    mx.nd.waitall()
    seconds = time.perf_counter() - started - aside
    if points[-1].batches < number:
        points.append(Point(number, seconds, *verify()))
    batches.close()
    return points


def cells(point: Point) -> dict[str, Cell]:
    return {
        "batches": point.batches,
        "seconds": point.seconds,
        "AUC": point.auc,
        "recall@1": point.recall_at_1,
        "TAR": point.tar,
    }


def beside(sides: dict[str, list[Point]]) -> Table:
    """Both sides with the same settings, by side."""
    found = Table("The same settings")
    for side, points in sides.items():
        last = points[-1]
        found.rows.setdefault("batches a second", {})[side] = last.batches / last.seconds
        for goal in GOALS:
            seconds = next((point.seconds for point in points if point.auc >= goal), "not reached")
            found.rows.setdefault(f"seconds to an AUC of {goal}", {})[side] = seconds
        for number in AFTER:
            point = next((point for point in points if point.batches == number), None)
            for name, value in cells(point).items() if point else ():
                if name not in ("batches", "seconds"):
                    found.rows.setdefault(f"{name} after {number:,} batches", {})[side] = value
        found.rows.setdefault(f"best AUC in {last.seconds:.0f} s", {})[side] = max(p.auc for p in points)
    return found


def curve(title: str, points: list[Point]) -> Table:
    """The beginning, each third of the time, and the end."""
    thirds = [points[round(third * (len(points) - 1) / 3)] for third in range(4)]
    return Table(title, {f"{point.seconds:.0f} s": cells(point) for point in thirds})


def tables(options: Namespace) -> Iterator[Table]:
    checkout = options.insightface or os.environ.get("INSIGHTFACE")
    limit: float = options.seconds
    seed = options.seed
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rec, unseen = write_plain(folder, SIDE)
        module = new_module(SETTINGS["batch_size"], SIDE, RATE, seed)
        ours = TripletIter(rec, module, data_shape=(3, SIDE, SIDE), seed=seed, **SETTINGS)
        sides = {"ours": train(module, with_ours(ours), unseen, limit)}
        if checkout is not None:
            module = new_module(SETTINGS["batch_size"], SIDE, RATE, seed)
            theirs = original.batches(
                Path(checkout) / "recognition" / "arcface_mxnet" / "triplet_image_iter.py",
                batch_size=SETTINGS["batch_size"],
                data_shape=(3, SIDE, SIDE),
                path_imgrec=str(rec),
                images_per_identity=SETTINGS["images_per_identity"],
                triplet_params=[SETTINGS["bag_size"], SETTINGS["margin"], 0.0],
                mx_model=module,
            )
            sides["original"] = train(module, theirs, unseen, limit)
        yield beside(sides)
        for side, points in sides.items():
            yield curve(f"The same settings, {side}", points)
        if options.better:
            rec, unseen = write_varied(folder, BETTER_SIDE, options.variants)
            module = new_module(BETTER["batch_size"], BETTER_SIDE, BETTER_RATE, seed)
            better = TripletIter(rec, module, data_shape=(3, BETTER_SIDE, BETTER_SIDE), seed=seed, **BETTER)

            def rate(seconds: float) -> float:
                return BETTER_RATE * max(0.0, 1 - seconds / limit)

            yield curve("Better settings", train(module, with_ours(better), unseen, limit, rate))


if __name__ == "__main__":
    bench.main(tables)
