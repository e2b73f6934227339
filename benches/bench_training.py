"""What a network learns in some minutes: from this package's batches, and from the original's.

Omniglot beside the checkout, in images of 64 x 64; the network with four convolution blocks, a batch of 120,
bags of 1,200 images, 10 an identity, margin 0.3, SGD with learning rate 0.05, momentum 0.9, weight decay
5e-4. Three sides begin with the same weights: this package with MXNet, with PyTorch, and the original with
MXNet. Every 100 batches the network is verified on 106 characters that are not in the training set: all
2,246,140 pairs of their 2,120 images, which are not mirrored. This takes no part in the times.

The original is `triplet_image_iter.py` of a checkout of InsightFace (`--insightface`, or INSIGHTFACE),
repaired only so far that it runs (`original.REPAIRS`). Without one only this package's sides run.

Then better settings: the command `fasttriplet train` with PyTorch and the flags of `omniglot.py`, from three
seeds, verified on the same unchanged images. The seconds are those of the whole command.
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
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
import original
from fasttriplet.mxnet import TripletIter, import_mxnet, small_convnet, triplet_loss
from fasttriplet.mxnet._checkpoint import save_checkpoint
from fasttriplet.mxnet._module_embedder import ModuleEmbedder
from fasttriplet.mxnet._quiet import quiet
from fasttriplet.training import TrainSettings
from harness import Bench
from omniglot import BATCHES, trained, write_plain, write_varied
from tables import Cell, Table
from unseen import verifier

SETTINGS: dict[str, Any] = {"batch_size": 120, "bag_size": 1200, "images_per_identity": 10, "margin": 0.3}
RATE = 0.05
SIDE = 64
EVERY = 100  # batches
GOALS = (0.9, 0.91, 0.92)  # AUC
AFTER = (700, 1600)  # batches

bench = Bench(__file__, __doc__, packages=["mxnet", "torch"])
bench.option("--insightface", None, "checkout, or INSIGHTFACE of the environment", kind=Path)
bench.option("--seconds", 258.0, "of each training", quick=30.0)
bench.option("--seed", 0, "of weights and order")
bench.option("--same", True, "the part with the same settings, too")
bench.option("--better", True, "the part with better settings, too")
bench.option("--variants", 8, "of each image in this part", quick=1)
bench.option("--batches", BATCHES, "of each training in this part", quick=20)
bench.option("--seeds", 3, "trainings in this part", quick=1)


@dataclass(frozen=True)
class Point:
    """What the unseen characters say after some batches."""

    batches: int
    seconds: float
    auc: float
    recall_at_1: float
    tar: float  # at a false accept rate of 1e-3


class Side(Protocol):
    """A way to train the network."""

    batches: Generator[Any, None, None]  # of all epochs

    def step(self, batch: Any) -> None:
        """Train on a batch, to the end."""

    def embed(self, index: pl.DataFrame, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed images with the network as it is."""


class WithMXNet:
    """A module, and the loop of `Module.fit`."""

    def __init__(self, module: Any, batches: Generator[Any, None, None]) -> None:
        self._module, self.batches = module, batches
        self.embed = ModuleEmbedder(module).embed

    def step(self, batch: Any) -> None:
        """Train on a batch."""
        self._module.forward_backward(batch)
        self._module.update()
        self._module.get_outputs()[-1].asnumpy()  # the loss, as a metric does
        import_mxnet().nd.waitall()


class WithTorch:
    """What `fasttriplet train` does with PyTorch, without its files."""

    def __init__(self, rec: Path, pretrained: str, seed: int) -> None:
        from fasttriplet.torch._backend import TrainingBackend  # noqa: PLC0415  only if it is compared

        options = {**SETTINGS, "seed": seed, "learning_rate": RATE, "network": "small", "framework": "torch"}
        settings = TrainSettings(rec=(str(rec),), pretrained=pretrained, mirror=False, **options)
        self._backend, self._number = TrainingBackend(settings, "cpu"), 0
        model, layout = self._backend.embedder, self._backend.layout
        self._feed = ft.Feed(rec, model=model, epochs=None, layout=layout, seed=seed, **SETTINGS)
        self._backend.begin(self._feed.image_size)
        self.batches = self._all()
        self.embed = self._backend.embedder.embed

    def _all(self) -> Generator[Any, None, None]:
        with self._feed:
            yield from self._feed

    def step(self, batch: Any) -> None:
        """Train on a batch."""
        self._backend.step(batch, RATE, self._number)
        self._number += 1


def with_ours(batches: TripletIter) -> Generator[Any, None, None]:
    """Batches of all epochs."""
    with contextlib.closing(batches):
        while True:
            yield from batches
            batches.reset()


def new_module(seed: int) -> Any:
    """The network with its loss, weights and optimizer."""
    mx, batch_size = import_mxnet(), SETTINGS["batch_size"]
    module = mx.mod.Module(triplet_loss(small_convnet(128), SETTINGS["margin"], batch_size))
    with quiet():
        module.bind([("data", (batch_size, 3, SIDE, SIDE))], [("softmax_label", (batch_size,))])
    mx.random.seed(seed)
    np.random.seed(seed)  # the original draws from both
    random.seed(seed)
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    options = {"learning_rate": RATE, "momentum": 0.9, "wd": 5e-4, "rescale_grad": 1.0}
    module.init_optimizer(optimizer="sgd", optimizer_params=options)
    return module


def train(side: Side, unseen: Path, limit: float) -> list[Point]:
    """Train for `limit` seconds."""
    verify = verifier(unseen, side.embed)
    points = [Point(0, 0.0, *verify())]
    number, aside = 0, 0.0
    started = time.perf_counter()
    for batch in side.batches:
        if time.perf_counter() - started - aside >= limit:
            break
        side.step(batch)
        number += 1
        if number % EVERY == 0:
            paused = time.perf_counter()
            points.append(Point(number, paused - started - aside, *verify()))
            aside += time.perf_counter() - paused
    seconds = time.perf_counter() - started - aside
    if points[-1].batches < number:
        points.append(Point(number, seconds, *verify()))
    side.batches.close()
    return points


def better(folder: Path, rec: Path, unseen: Path, options: Namespace) -> Table:
    """Trainings by the command, from several seeds, and what the unseen characters say after each."""
    found = Table("Better settings")
    rows = from_seeds(folder / "better", rec, unseen, options)
    found.rows = {f"seed {seed}": row for seed, row in enumerate(rows)}
    found.rows["mean"] = means(rows)
    found.rows["highest - lowest"] = {name: float(np.ptp(of(rows, name))) for name in COLUMNS}
    return found


def means(rows: list[dict[str, Cell]]) -> dict[str, Cell]:
    return {name: float(np.mean(of(rows, name))) for name in COLUMNS}


def of(rows: list[dict[str, Cell]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]  # type: ignore[arg-type]


def from_seeds(
    out: Path, rec: Path, unseen: Path, options: Namespace, *flags: object
) -> list[dict[str, Cell]]:
    """Trainings by the command: what the unseen characters say after each."""
    rows = []
    for seed in range(options.seeds):
        network, seconds = trained(rec, out.with_name(f"{out.name}-{seed}"), options.batches, seed, *flags)
        judged = verifier(unseen, ft.load_embedder(network).embed)()
        rows.append(cells(Point(options.batches, seconds, *judged)))
    return rows


COLUMNS = ("batches", "seconds", "AUC", "recall@1", "TAR")


def cells(point: Point) -> dict[str, Cell]:
    values = (point.batches, point.seconds, point.auc, point.recall_at_1, point.tar)
    return dict(zip(COLUMNS, values, strict=True))


def beside(sides: dict[str, list[Point]]) -> Table:
    """All sides with the same settings."""
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


def with_the_same(folder: Path, options: Namespace) -> dict[str, list[Point]]:
    """What each side learns with the same settings."""
    rec, unseen = write_plain(folder, SIDE)
    limit, seed = options.seconds, options.seed

    def module_and(batches: Callable[[Any], Generator[Any, None, None]]) -> Side:
        module = new_module(seed)
        return WithMXNet(module, batches(module))

    def ours(module: Any) -> Generator[Any, None, None]:
        return with_ours(TripletIter(rec, module, data_shape=(3, SIDE, SIDE), seed=seed, **SETTINGS))

    args, auxs = new_module(seed).get_params()
    save_checkpoint(str(folder / "first"), 0, small_convnet(128), args, auxs)
    sides = {
        "ours, MXNet": train(module_and(ours), unseen, limit),
        "ours, PyTorch": train(WithTorch(rec, f"{folder / 'first'},0", seed), unseen, limit),
    }
    checkout = options.insightface or os.environ.get("INSIGHTFACE")
    if checkout is not None:

        def theirs(module: Any) -> Generator[Any, None, None]:
            return original.batches(
                Path(checkout) / "recognition" / "arcface_mxnet" / "triplet_image_iter.py",
                batch_size=SETTINGS["batch_size"],
                data_shape=(3, SIDE, SIDE),
                path_imgrec=str(rec),
                images_per_identity=SETTINGS["images_per_identity"],
                triplet_params=[SETTINGS["bag_size"], SETTINGS["margin"], 0.0],
                mx_model=module,
            )

        sides["original"] = train(module_and(theirs), unseen, limit)
    return sides


def tables(options: Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.same:
            sides = with_the_same(folder, options)
            yield beside(sides)
            for side, points in sides.items():
                yield curve(f"The same settings, {side}", points)
        if options.better:
            (folder / "plain").mkdir()
            rec, (_, unseen) = (
                write_varied(folder, SIDE, options.variants),
                write_plain(folder / "plain", SIDE),
            )
            yield better(folder, rec, unseen, options)


if __name__ == "__main__":
    bench.main(tables)
