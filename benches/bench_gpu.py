"""How busy a GPU is kept: mining and training with a PyTorch network.

Needs PyTorch; with `--device cpu` it shows that the script works, no more (`--bag-size 200 --bags 1`). The
real faces beside the checkout are copied into a `.rec` of bags of 7,200 images, 5 an identity. The network is
a residual one of 18 layers with 128 outputs, in half precision on a GPU. "Busy" is the time between CUDA
events around its work, with the gaps between kernels and without the copies to the device; the share is of
the wall time of the run.

Beside it, in the same run: the same network fed one stage after another, decode, embed, mine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

import fasttriplet as ft
from faces import BAG, FACES, PER_IDENTITY, write_dataset
from machine import report


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


def one_after_another(rec: Path, network: Network, bag_size: int, epochs: int) -> None:
    file, index = ft.RecordFile(rec), ft.index_rec(rec)
    for epoch in range(epochs):
        for bag in ft.bags(ft.triplet_seq(index, PER_IDENTITY, 0, epoch), bag_size):
            embeddings = network.embed(bag.rows, ft.decode_rows([file], bag.rows).pixels)
            ft.mine(embeddings, bag.rows["label"], ids=bag.rows["key"], band="any")


def train(rec: Path, network: Network, steps: int | None, **options: Any) -> int:
    with ft.Feed(rec, model=network, band="any", **options) as feed:
        for batch in feed:
            network.train(batch)
            if feed.summary.batches == steps:
                break
        network.settle()
        return feed.summary.batches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rec", type=Path, default=FACES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--at-once", type=int, default=256, help="images of a forward pass")
    parser.add_argument("--batch-size", type=int, default=480, help="images of a training step")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--bags", type=int, default=4)
    parser.add_argument("--bag-size", type=int, default=BAG)
    parser.add_argument("--steps", type=int, help="of training, at most")
    arguments = parser.parse_args()
    if not arguments.rec.is_file():
        parser.error(f"no file {arguments.rec}; give one with --rec")
    epochs, bag_size = arguments.epochs, arguments.bag_size
    count = arguments.bags * bag_size
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        rec = write_dataset(arguments.rec, Path(folder) / "train.rec", count)
        ft.index_rec(rec)
        network = Network(arguments.device, arguments.at_once)
        file = ft.RecordFile(rec)
        keys = file.keys[: arguments.at_once]
        network.embed(pl.DataFrame({"key": keys}), file.decode(keys))  # kernels are chosen at the first use
        options = {"epochs": epochs, "bag_size": bag_size}
        ways: dict[str, Callable[[], Any]] = {
            "one stage after another": lambda: one_after_another(rec, network, bag_size, epochs),
            "mine_rec": lambda: ft.mine_rec(rec, model=network, band="any", **options),
            "training from a Feed": lambda: train(
                rec, network, arguments.steps, batch_size=arguments.batch_size, **options
            ),
        }
        for name, way in ways.items():
            network.busy = 0.0
            started = time.perf_counter()
            done = way()
            wall = time.perf_counter() - started
            results[f"{name}, share of the time the device was busy"] = network.busy / wall
            if name.startswith("training"):
                results[f"{name}, steps/s"] = done / wall
            else:
                results[f"{name}, images/s"] = round(epochs * count / wall)
    where = torch.cuda.get_device_name() if network.device.type == "cuda" else "cpu"
    title = f"{arguments.bags} bags of {bag_size:,} images on {where}, PyTorch {torch.__version__}"
    report(title, results, as_json=arguments.json)


if __name__ == "__main__":
    main()
