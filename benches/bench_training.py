"""What a network learns in some minutes: from this package's batches, and from the original's.

Omniglot beside the checkout, in images of 64 x 64; the network with four convolution blocks, a batch of 120,
bags of 1,200 images, 10 an identity, margin 0.3, SGD with learning rate 0.05, momentum 0.9, weight decay
5e-4. Both sides begin with the same weights and have the same loop, that of `Module.fit`. Every 100 batches
the network is verified on 106 characters that are not in the training set: all 2,246,140 pairs of their 2,120
images, which are not mirrored. This takes no part in the times.

The peer is `triplet_image_iter.py` of a checkout of InsightFace (`--insightface`, or INSIGHTFACE), repaired
only so far that it runs (`REPAIRS`). Without one only this package's side runs.

Last, the same network with better settings (`BETTER`), which are written down in this file: each character
turned and mirrored counts as eight, images are varied, strokes are thick on grey, and images of 32 x 32 make
four times as many of them in the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import fasttriplet as ft
from fasttriplet.mxnet import TripletIter, triplet_loss
from fasttriplet.mxnet.compat import import_mxnet
from fasttriplet.mxnet.module_embedder import ModuleEmbedder
from fasttriplet.mxnet.networks import small_convnet
from fasttriplet.mxnet.quiet import quiet
from machine import report
from omniglot import write_plain, write_varied

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
SIDE, BETTER_SIDE, VARIANTS = 64, 32, 8
EVERY = 100  # batches
GOAL = 0.92  # AUC

# What keeps the original from running today, and what stands there instead.
REPAIRS = {
    "import sklearn\n": "",  # for one function; see with_the_original
    "import face_preprocess\n": "",  # a file that is gone, and is not used
    "np.NaN": "np.nan",  # NumPy 2
    "mx.gpu(i)": "mx.cpu(i)",
    "_list = range(*v)\n            random": "_list = list(range(*v))\n            random",  # Python 3
}


@dataclass(frozen=True)
class Point:
    """Behind some batches: what the unseen characters say."""

    batches: int
    seconds: float
    auc: float
    recall_at_1: float
    tar: float  # at a false accept rate of 1e-3


def with_the_original(source: Path, rec: Path, module: Any) -> Generator[Any, None, None]:
    """Batches of the original's iterator."""

    def unit(rows: Any) -> Any:
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    text = source.read_text(encoding="utf-8")
    for broken, repaired in REPAIRS.items():
        if broken not in text:
            raise ValueError(f"{source} is another version: it has no {broken.strip()!r}")
        text = text.replace(broken, repaired)
    original = ModuleType("triplet_image_iter")
    original.__file__ = str(source)
    vars(original)["sklearn"] = SimpleNamespace(preprocessing=SimpleNamespace(normalize=unit))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints much
        exec(compile(text, str(source), "exec"), vars(original))
        batches = original.FaceImageIter(
            batch_size=SETTINGS["batch_size"],
            data_shape=(3, SIDE, SIDE),
            path_imgrec=str(rec),
            shuffle=True,
            ctx_num=1,
            images_per_identity=SETTINGS["images_per_identity"],
            triplet_params=[SETTINGS["bag_size"], SETTINGS["margin"], 0.0],
            mx_model=module,
        )
    while True:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                batch = batches.next()
            except StopIteration:
                batches.reset()
                continue
        yield batch


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
    """Train for so many seconds; `rate` gives the learning rate by the seconds."""
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


def reached(points: list[Point]) -> float | None:
    """Seconds to the goal."""
    return next((point.seconds for point in points if point.auc >= GOAL), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--insightface", type=Path, help="checkout (default: INSIGHTFACE)")
    parser.add_argument("--seconds", type=float, default=258.0, help="of each training (default: 258)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--better", action=argparse.BooleanOptionalAction, default=True, help="the last part")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    checkout = arguments.insightface or os.environ.get("INSIGHTFACE")
    limit, seed = arguments.seconds, arguments.seed

    trainings: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rec, unseen = write_plain(folder, SIDE)
        module = new_module(SETTINGS["batch_size"], SIDE, RATE, seed)
        ours = TripletIter(rec, module, data_shape=(3, SIDE, SIDE), seed=seed, **SETTINGS)
        trainings["ours"] = train(module, with_ours(ours), unseen, limit)
        if checkout is not None:
            source = Path(checkout) / "recognition" / "arcface_mxnet" / "triplet_image_iter.py"
            module = new_module(SETTINGS["batch_size"], SIDE, RATE, seed)
            trainings["original"] = train(module, with_the_original(source, rec, module), unseen, limit)
        if arguments.better:
            rec, unseen = write_varied(folder, BETTER_SIDE, VARIANTS)
            module = new_module(BETTER["batch_size"], BETTER_SIDE, BETTER_RATE, seed)
            better = TripletIter(rec, module, data_shape=(3, BETTER_SIDE, BETTER_SIDE), seed=seed, **BETTER)
            trainings["better settings"] = train(
                module,
                with_ours(better),
                unseen,
                limit,
                lambda seconds: BETTER_RATE * max(0.0, 1 - seconds / limit),
            )

    if arguments.json:
        curves = {name: [asdict(point) for point in points] for name, points in trainings.items()}
        report("Training on Omniglot", {"curves": curves}, as_json=True)
        return
    results: dict[str, Any] = {}
    for name, points in trainings.items():
        for point in (points[0], points[len(points) // 2], points[-1]):
            what = f"{name}, {point.batches:,} batches, {point.seconds:.0f} s"
            results[what] = f"AUC {point.auc:.3f}, recall@1 {point.recall_at_1:.3f}, TAR {point.tar:.3f}"
        seconds = reached(points)
        results[f"{name}: seconds to AUC {GOAL}"] = "not reached" if seconds is None else seconds
        results[f"{name}: batches a second"] = points[-1].batches / points[-1].seconds
    report("Training on Omniglot, verified on unseen characters", results, as_json=False)


if __name__ == "__main__":
    main()
