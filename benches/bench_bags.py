"""What a network learns in equal time from bags in random order, and from bags of similar identities.

Two datasets: Omniglot beside the checkout, 136 characters turned and mirrored to 1,088, verified on 106 of
other alphabets; and the demo's characters (`--identities`), verified on `--unseen` others. Images of 64 x 64,
the network of `omniglot_network.py`, and bags of 600 images: a bag has one in nine of Omniglot's identities,
and one in twenty-five of 3,000.

There is a training of `--seconds` with each kind of bag from each of `--seeds` seeds. The learning rate falls
to 0 over that time. All that a training does counts, such as making a running graph; verifying does not. The
graph of a file is that of the network with which the training in random order with the same seed ended. The
time of that training does not count.
"""

from __future__ import annotations

import io
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fasttriplet as ft
from fasttriplet.demo._pictures import draw_identities
from fasttriplet.embedders import Embedder
from fasttriplet.training import TrainSettings
from harness import Bench
from omniglot import write_plain, write_varied
from tables import Cell, Table
from unseen import verifier

SIDE = 64
RATE = 0.25  # at the start
SETTINGS: dict[str, Any] = {
    "framework": "torch", "batch_size": 360, "images_per_identity": 5, "pairs": "hardest", "margin": 0.1,
    "mirror": False,
}  # fmt: skip
RANDOM = "random order"
OF_FILE = "of a file"  # stands for the graph of the training in random order
KINDS: dict[str, dict[str, Any]] = {
    RANDOM: {},
    "random order, pick='distance'": {"pick": "distance", "band": "any"},
    "graph of a file": {"neighbors": OF_FILE},
    "graph of a file, half at random": {"neighbors": OF_FILE, "random_share": 0.5},
    "running graph": {"neighbors": "running"},
    "running graph, half at random": {"neighbors": "running", "random_share": 0.5},
}
NEAREST = 20  # neighbors in the graph of a file, as many as a running one has

bench = Bench(__file__, __doc__, packages=["torch"])
bench.option("--seconds", 240.0, "of each training", quick=4.0)
bench.option("--seeds", 3, "trainings with each kind of bag", quick=1)
bench.option("--points", 6, "verifications in that time, at equal distances", quick=2)
bench.option("--bag-size", 600, "images of a bag")
bench.option("--omniglot", True, "the part with Omniglot, too")
bench.option("--variants", 8, "of each image of Omniglot", quick=1)
bench.option("--drawn", True, "the part with the demo's characters, too")
bench.option("--identities", 3000, "of the demo's characters to train on", quick=200)
bench.option("--unseen", 200, "of them to verify on", quick=20)
bench.option("--images", 10, "of each of them", quick=6)


@dataclass(frozen=True)
class Data:
    """What is trained and verified on."""

    name: str
    rec: Path
    unseen: Path
    network: str


@dataclass
class Run:
    """A training."""

    auc: list[float] = field(default_factory=list)  # at each point
    recall_at_1: list[float] = field(default_factory=list)
    batches: int = 0
    epochs: int = 0
    graph_seconds: float = 0.0


def train(data: Data, seed: int, options: Namespace, **kind: Any) -> tuple[Run, Embedder]:
    """Train for some time; also gives the network."""
    from fasttriplet.torch._backend import TrainingBackend  # noqa: PLC0415  not for --help

    chosen: dict[str, Any] = {**SETTINGS, "bag_size": options.bag_size, "network": data.network, **kind}
    settings = TrainSettings(rec=(str(data.rec),), seed=seed, **chosen)
    backend, run = TrainingBackend(settings, "cpu"), Run()
    with ft.Feed(
        data.rec, model=backend.embedder, layout=backend.layout, epochs=None, **settings.feed()
    ) as feed:
        backend.begin(feed.image_size)
        verify = verifier(data.unseen, backend.embedder.embed)
        began, aside = time.perf_counter(), 0.0
        for batch in feed:
            passed = time.perf_counter() - began - aside
            if passed >= options.seconds * (len(run.auc) + 1) / options.points:
                paused = time.perf_counter()
                auc, recall, _ = verify()
                run.auc.append(auc)
                run.recall_at_1.append(recall)
                aside += time.perf_counter() - paused
            if passed >= options.seconds:
                break
            backend.step(batch, RATE * (1 - passed / options.seconds), run.batches)
            run.batches += 1
            run.epochs = batch.epoch + 1
        while len(run.auc) < options.points:  # where a step was longer than the time between two points
            run.auc.append(run.auc[-1])
            run.recall_at_1.append(run.recall_at_1[-1])
        run.graph_seconds = feed.summary.seconds.get("neighbors", 0.0)
    return run, backend.embedder


def write_graph(data: Data, embedder: Embedder, path: Path) -> None:
    """Write the identity graph that a network makes of the images that it was trained on."""
    dataset = ft.Dataset(data.rec)
    parts = dataset.index.iter_slices(1024)
    embeddings = np.concatenate([embedder.embed(part, dataset.decode(part).pixels) for part in parts])
    ft.neighbors(embeddings, dataset.labels, NEAREST, of="identities").to_frame().write_parquet(path)


def trained(data: Data, folder: Path, options: Namespace) -> dict[str, list[Run]]:
    """The trainings of each kind, seed by seed; random order comes first, as its network makes the graph."""
    found: dict[str, list[Run]] = {name: [] for name in KINDS}
    _, *others = KINDS
    for seed in range(options.seeds):
        graph = folder / f"graph-{seed}.parquet"
        turned = others[seed % len(others) :] + others[: seed % len(others)]  # not always in the same order
        for name in (RANDOM, *turned):
            kind = KINDS[name]
            if kind.get("neighbors") == OF_FILE:
                kind = kind | {"neighbors": graph}
            run, embedder = train(data, seed, options, **kind)
            found[name].append(run)
            if name == RANDOM:
                write_graph(data, embedder, graph)
    return found


# The demo's characters


def write_drawn(path: Path, identities: range, images: int) -> Path:
    """A dataset of characters; those of another range are others."""
    key = 0
    work = [(identity, images) for identity in identities]
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool, ft.RecordWriter(path) as writer:
        for identity, pictures in zip(identities, pool.map(_drawn, work, chunksize=8), strict=True):
            for content in pictures:
                writer.write(key, ft.IRHeader(0, float(identity), key, 0), content)
                key += 1
    return path


def _drawn(of: tuple[int, int]) -> list[bytes]:
    identity, images = of
    found = []
    for _, _, pixels in draw_identities(identity + 1, images, SIDE, first=identity):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=95, subsampling=0)
        found.append(encoded.getvalue())
    return found


# Tables


def over_time(title: str, runs: dict[str, list[list[float]]], options: Namespace) -> Table:
    """The means at each point, and the least and most of all seeds at the end."""
    found = Table(f"{title}, means of {options.seeds}")
    times = [f"{options.seconds * (point + 1) / options.points:.0f} s" for point in range(options.points)]
    for name, of_seeds in runs.items():
        cells: dict[str, Cell] = dict(zip(times, np.mean(of_seeds, axis=0).tolist(), strict=True))
        ends = [values[-1] for values in of_seeds]
        found.rows[name] = cells | {"least at the end": min(ends), "most at the end": max(ends)}
    return found


def beside_random(data: Data, runs: dict[str, list[Run]]) -> Table:
    """What each kind gains over random order with the same seed, and what was done in the time."""
    found = Table(f"{data.name}: beside random order with the same seed, at the end")
    for name, of_seeds in runs.items():
        cells: dict[str, Cell] = {}
        for title, end in (("AUC", _auc), ("recall@1", _recall)):
            gains = [end(one) - end(other) for one, other in zip(of_seeds, runs[RANDOM], strict=True)]
            cells[f"{title}, mean gain"] = None if name == RANDOM else float(np.mean(gains))
            better = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            cells[f"{title}, seeds with a gain"] = None if name == RANDOM else better
        found.rows[name] = cells | {
            "batches": _mean(run.batches for run in of_seeds),
            "epochs": _mean(run.epochs for run in of_seeds),
            "s for the graph": _mean(run.graph_seconds for run in of_seeds),
        }
    return found


def _auc(run: Run) -> float:
    return run.auc[-1]


def _recall(run: Run) -> float:
    return run.recall_at_1[-1]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([*values]))


def datasets(folder: Path, options: Namespace) -> Iterator[Data]:
    """The datasets that were asked for."""
    if options.omniglot:
        (folder / "plain").mkdir()
        rec = write_varied(folder, SIDE, options.variants)
        _, unseen = write_plain(folder / "plain", SIDE)
        yield Data("Omniglot", rec, unseen, "torch:omniglot_network:strided,mean=255,std=255")
    if options.drawn:
        seen = range(options.identities)
        rec = write_drawn(folder / "drawn.rec", seen, options.images)
        others = range(options.identities, options.identities + options.unseen)
        unseen = write_drawn(folder / "unseen.rec", others, options.images)
        network = "torch:omniglot_network:coloured,mean=127.5,std=128"
        yield Data(f"{options.identities:,} characters of the demo", rec, unseen, network)


def tables(options: Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as made:
        for data in datasets(Path(made), options):
            runs = trained(data, Path(made), options)
            aucs = {name: [run.auc for run in of_seeds] for name, of_seeds in runs.items()}
            recalls = {name: [run.recall_at_1 for run in of_seeds] for name, of_seeds in runs.items()}
            yield over_time(f"{data.name}: AUC", aucs, options)
            yield over_time(f"{data.name}: recall@1", recalls, options)
            yield beside_random(data, runs)


if __name__ == "__main__":
    bench.main(tables)
