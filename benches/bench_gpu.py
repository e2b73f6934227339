"""How busy a GPU is kept: mining and training with a PyTorch network.

Needs PyTorch; with `--device cpu --quick` it shows that the script works, no more. Real
faces are copied into a `.rec` of bags of 7,200 images, 5 an identity. The network is
a residual one of 18 layers with 128 outputs, in half precision on a GPU. "Busy" is the time between CUDA
events around its work, with the gaps between kernels and without the copies to the device; the share is of
the wall time of the run.

Beside it, in the same run: the same network fed one stage after another, decode, embed, mine.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
import torch
from data import BAG, FACES, PER_IDENTITY, decoder, write_dataset
from harness import Bench
from process import Way
from tables import Table
from torch import nn

IN_TURN, MINING, TRAINING = "one stage after another", "`mine_rec`", "training from a `Feed`"

bench = Bench(__file__, __doc__, rounds=1, packages=["torch"])
bench.option("--rec", FACES, "file of images of 112 x 112")
bench.option("--device", "cuda" if torch.cuda.is_available() else "cpu", "of PyTorch")
bench.option("--at-once", 256, "images of a forward pass", quick=20)
bench.option("--batch-size", 480, "images of a training step", quick=12)
bench.option("--epochs", 3, "passes over the file", quick=1)
bench.option("--bags", 4, "of the file", quick=1)
bench.option("--bag-size", BAG, "images", quick=60)
bench.option("--steps", 1_000_000, "of the training, at most", quick=1)


def residual_network() -> nn.Module:
    """18 layers for images of 112 x 112."""

    class Block(nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.PReLU(after),
                nn.Conv2d(after, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
            )
            self.skip = nn.Conv2d(before, after, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.skip(x)

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
        layers += [Block(before, after, 2), Block(after, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 128))


class Network:
    """An embedder that runs a PyTorch module and counts how long the device was busy."""

    description = "a residual network in PyTorch"
    needs_images = True

    def __init__(self, device: str, at_once: int) -> None:
        self.device, self.at_once = torch.device(device), at_once
        self.module = residual_network().to(self.device)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01)
        self.busy = 0.0
        self._events: list[tuple[Any, Any]] = []

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Forward the images: as bytes to the device, there to planes of numbers."""
        assert images is not None
        assert rows.height == len(images)
        outputs = []
        self.module.eval()
        with torch.inference_mode(), self._autocast():
            for start in range(0, len(images), self.at_once):
                some = torch.from_numpy(images[start : start + self.at_once]).to(self.device)
                outputs.append(self._timed(partial(self._forward, some)))
        embeddings: NDArray[np.float32] = torch.cat(outputs).float().cpu().numpy()
        self.settle()
        return embeddings

    def _forward(self, images: Any) -> Any:
        return self.module(normal(images.permute(0, 3, 1, 2)))

    def train(self, batch: ft.TripletBatch) -> None:
        """One step of SGD with the triplet loss on squared L2 of unit rows."""
        self.module.train()
        images = torch.from_numpy(batch.images).to(self.device)
        self._timed(partial(self._step, images))

    def _step(self, images: Any) -> None:
        with self._autocast():
            rows = nn.functional.normalize(self.module(normal(images)).float())
            anchor, positive, negative = rows.chunk(3)
            d_ap, d_an = (((anchor - other) ** 2).sum(1) for other in (positive, negative))
            loss = torch.relu(d_ap - d_an + 0.3).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _timed(self, work: Callable[[], Any]) -> Any:
        if self.device.type != "cuda":
            started = time.perf_counter()
            done = work()
            self.busy += time.perf_counter() - started
            return done
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        done = work()
        end.record()
        self._events.append((begin, end))
        return done

    def settle(self) -> None:
        """Wait for the device and count what it did."""
        if self._events:
            torch.cuda.synchronize(self.device)
            self.busy += sum(begin.elapsed_time(end) for begin, end in self._events) / 1e3
            self._events.clear()


def normal(pixels: Any) -> Any:
    return (pixels.float() - 127.5) * 0.0078125


def one_after_another(rec: Path, network: Network, bag_size: int, epochs: int) -> int:
    """Images that went through decode, embed and mine."""
    index, decode, images = ft.index_rec(rec), decoder(rec), 0
    for epoch in range(epochs):
        for bag in ft.bags(ft.triplet_seq(index, PER_IDENTITY, 0, epoch), bag_size):
            embeddings = network.embed(bag.rows, decode(bag.rows))
            ft.mine(embeddings, bag.rows["label"], ids=bag.rows["key"], band="any")
            images += bag.rows.height
    return images


def train(rec: Path, network: Network, steps: int, **options: Any) -> int:
    """Steps of a training from a feed."""
    with ft.Feed(rec, model=network, band="any", **options) as feed:
        for batch in feed:
            network.train(batch)
            if feed.summary.batches == steps:
                break
        network.settle()
        return feed.summary.batches


def ways(
    *, rec: str, device: str, at_once: int, batch_size: int, bag_size: int, epochs: int, steps: int
) -> dict[str, Way]:
    path = Path(rec)
    options: dict[str, Any] = {"epochs": epochs, "bag_size": bag_size}
    network = Network(device, at_once)
    first = ft.index_rec(path).head(at_once)
    network.embed(first, decoder(path)(first))  # kernels are chosen at the first use

    def reset() -> None:
        network.busy = 0.0

    def facts(count: int) -> dict[str, float]:
        return {"busy": network.busy, "count": count}

    def mining() -> int:
        return ft.mine_rec(path, model=network, band="any", **options).summary.images

    calls: dict[str, Callable[[], int]] = {
        IN_TURN: lambda: one_after_another(path, network, bag_size, epochs),
        MINING: mining,
        TRAINING: lambda: train(path, network, steps, batch_size=batch_size, **options),
    }
    return {name: Way(call, before=reset, facts=facts) for name, call in calls.items()}


def tables(options: Namespace) -> Iterator[Table]:
    case = {
        name: getattr(options, name)
        for name in ("device", "at_once", "batch_size", "bag_size", "epochs", "steps")
    }
    with tempfile.TemporaryDirectory() as folder:
        rec = write_dataset(options.rec, Path(folder) / "train.rec", options.bags * options.bag_size)
        took = bench.measure(ways, rec=str(rec), warm_up=False, **case)
    where = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    found = Table(f"{options.bags} bags of {options.bag_size:,} images, on {where}")
    for name, one in took.items():
        seconds = one.seconds[-1]  # of the call that the facts are about
        unit = "steps/s" if name == TRAINING else "images/s"
        found.rows[name] = {"busy, %": 100 * one.facts["busy"] / seconds, unit: one.facts["count"] / seconds}
    yield found


if __name__ == "__main__":
    bench.main(tables)
