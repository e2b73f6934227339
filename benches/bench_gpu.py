"""How busy a GPU is kept: mining and training with a PyTorch network.

Needs PyTorch and a GPU, and neither MXNet nor files: without real faces it draws pictures. With
`--device cpu --quick` it shows that the script works, no more. A `.rec` of bags of 7,200 images, 5 an
identity, is written from copies of the pictures. The network has the shape of InsightFace's IResNet-50, with
512 outputs. "Busy" is the time between CUDA events around its work, with the gaps between kernels and without
the copies to the device; the share is of the wall time of the run.

Beside it, in the same run: the embedder over images that are decoded already, and the same network fed one
stage after another, decode, embed, mine. A network that a spec names is folded when it is loaded and has no
places for events, so its rows have no share.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

import fasttriplet as ft
import torch
from data import BAG, FACES, PER_IDENTITY, decoder, draw_faces, write_dataset
from fasttriplet.torch import TorchEmbedder
from harness import Bench
from process import Way
from tables import Table
from torch import nn

ALONE, IN_TURN = "the embedder alone", "one stage after another"
MINING, TRAINING = "`mine_rec`", "training from a `Feed`"
ALONE_OF_SPEC, MINING_OF_SPEC = "the embedder of a spec alone", "`mine_rec` with the spec"
BASELINE = {IN_TURN: ALONE, MINING: ALONE, MINING_OF_SPEC: ALONE_OF_SPEC}
SPEC = "torch:bench_gpu:residual_network,precision={}"

bench = Bench(__file__, __doc__, rounds=1, packages=["torch"])
bench.option("--rec", None, "file of images of 112 x 112 instead of real faces or drawn ones", kind=Path)
bench.option("--device", "cuda" if torch.cuda.is_available() else "cpu", "of PyTorch")
bench.option("--precision", "bfloat16", "of PyTorch: float32, tf32 or bfloat16", quick="float32")
bench.option("--at-once", 256, "images of a forward pass", quick=5)
bench.option("--batch-size", 480, "images of a training step", quick=3)
bench.option("--epochs", 2, "passes over the file", quick=1)
bench.option("--bags", 4, "of the file", quick=1)
bench.option("--bag-size", BAG, "images", quick=10)
bench.option("--steps", 200, "of the training, at most", quick=1)


class Block(nn.Module):  # type: ignore[misc,unused-ignore]
    """Two convolutions beside a short cut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the two."""
        found: torch.Tensor = self.body(x) + self.skip(x)
        return found


def residual_network() -> nn.Module:
    """3, 4, 14 and 3 blocks for images of 112 x 112, and 512 numbers: the shape of IResNet-50."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    for blocks, before, after in ((3, 64, 64), (4, 64, 128), (14, 128, 256), (3, 256, 512)):
        layers += [Block(before, after, 2), *(Block(after, after, 1) for _ in range(blocks - 1))]
    layers += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class Busy:
    """Seconds that a device took for pieces of work."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._seconds = device, 0.0
        self._began: Any = None
        self._events: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """Begin a piece."""
        self._began = self._now()

    def end(self) -> None:
        """End the piece."""
        self._events.append((self._began, self._now()))

    def settle(self) -> float:
        """Wait for the device; the seconds since the last call."""
        events, self._events = self._events, []
        if self._device.type != "cuda":
            return float(sum(end - began for began, end in events))
        torch.cuda.synchronize(self._device)
        return float(sum(began.elapsed_time(end) for began, end in events)) / 1e3

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call,unused-ignore]
        event.record()
        return event


class Network:
    """A network in training, which embeds the images that it is trained on."""

    def __init__(self, device: str, at_once: int, precision: Any) -> None:
        self.device = torch.device(device)
        self.module = residual_network().to(self.device)
        self.embedder = TorchEmbedder(self.module, batch_size=at_once, precision=precision)
        self.busy = Busy(self.device)
        self._half = precision == "bfloat16"
        self._optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01)
        self.module.register_forward_pre_hook(self._before)
        self.module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, *_: Any) -> None:
        if not module.training:
            self.busy.begin()

    def _after(self, module: nn.Module, *_: Any) -> None:
        if not module.training:
            self.busy.end()

    def train(self, images: Any) -> None:
        """One step of SGD with the triplet loss on squared L2 of unit rows."""
        pixels = torch.from_numpy(images).to(self.device)
        self.module.train()
        self.busy.begin()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            rows = self.module((pixels - 127.5) / 128)
        anchor, positive, negative = nn.functional.normalize(rows.float()).chunk(3)
        d_ap, d_an = (((anchor - other) ** 2).sum(1) for other in (positive, negative))
        loss = torch.relu(d_ap - d_an + 0.3).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        self._optimizer.step()
        self.busy.end()


def embed_only(rows: pl.DataFrame, images: Any, embedder: ft.Embedder, times: int) -> int:
    """Images that an embedder was given, all of them decoded before."""
    for _ in range(times):
        embedder.embed(rows, images)
    return times * rows.height


def one_after_another(rec: Path, embedder: ft.Embedder, bag_size: int, epochs: int) -> int:
    """Images that went through decode, embed and mine."""
    index, decode, images = ft.index_rec(rec), decoder(rec), 0
    for epoch in range(epochs):
        for bag in ft.bags(ft.triplet_seq(index, PER_IDENTITY, 0, epoch), bag_size):
            embeddings = embedder.embed(bag.rows, decode(bag.rows))
            ft.mine(embeddings, bag.rows["label"], ids=bag.rows["key"], band="any")
            images += bag.rows.height
    return images


def train(rec: Path, network: Network, steps: int, **options: Any) -> int:
    """Steps of a training from a feed."""
    with ft.Feed(rec, model=network.embedder, band="any", **options) as feed:
        for batch in feed:
            network.train(batch.images)
            if feed.summary.batches == steps:
                break
        if network.device.type == "cuda":
            torch.cuda.synchronize(network.device)
        return feed.summary.batches


def ways(
    *,
    rec: str,
    device: str,
    precision: str,
    at_once: int,
    batch_size: int,
    bag_size: int,
    epochs: int,
    steps: int,
) -> dict[str, Way]:
    path = Path(rec)
    options: dict[str, Any] = {"epochs": epochs, "bag_size": bag_size}
    network = Network(device, at_once, precision)
    of_spec = ft.load_embedder(SPEC.format(precision), devices=device, batch_size=at_once)
    bag = ft.index_rec(path).head(bag_size)
    images = decoder(path)(bag)
    times = epochs * (ft.index_rec(path).height // bag_size)

    def mining(embedder: ft.Embedder) -> int:
        return ft.mine_rec(path, model=embedder, band="any", **options).summary.images

    calls: dict[str, Callable[[], int]] = {
        ALONE: lambda: embed_only(bag, images, network.embedder, times),
        IN_TURN: lambda: one_after_another(path, network.embedder, bag_size, epochs),
        MINING: lambda: mining(network.embedder),
        ALONE_OF_SPEC: lambda: embed_only(bag, images, of_spec, times),
        MINING_OF_SPEC: lambda: mining(of_spec),
        TRAINING: lambda: train(path, network, steps, batch_size=batch_size, **options),
    }
    # Memory is taken and kernels are chosen at the first use.
    for embedder in (network.embedder, of_spec):
        embedder.embed(bag.head(at_once), images[:at_once])
    network.train(images[:batch_size].transpose(0, 3, 1, 2).copy())
    network.busy.settle()

    def facts(count: int) -> dict[str, float]:
        return {"busy": network.busy.settle(), "count": count}

    return {name: Way(call, facts=facts) for name, call in calls.items()}


def tables(options: Namespace) -> Iterator[Table]:
    case = {
        name: getattr(options, name)
        for name in ("device", "precision", "at_once", "batch_size", "bag_size", "epochs", "steps")
    }
    with tempfile.TemporaryDirectory() as folder:
        source = options.rec or (FACES if FACES.is_file() else draw_faces(Path(folder) / "drawn.rec"))
        rec = write_dataset(source, Path(folder) / "train.rec", options.bags * options.bag_size)
        took = bench.measure(ways, rec=str(rec), warm_up=False, **case)
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "the CPU"
    images = f"{options.bags} bags of {options.bag_size:,} images of {source.name}"
    found = Table(f"{images}, on {where}, {options.precision}")
    rate = {name: one.facts["count"] / one.seconds[-1] for name, one in took.items()}  # of the facts' call
    for name, one in took.items():
        cells = found.rows[name] = {}
        if name not in (ALONE_OF_SPEC, MINING_OF_SPEC):
            cells["busy, %"] = 100 * one.facts["busy"] / one.seconds[-1]
        cells["steps/s" if name == TRAINING else "images/s"] = rate[name]
        if name in BASELINE:
            cells["of the embedder alone, %"] = 100 * rate[name] / rate[BASELINE[name]]
    yield found


if __name__ == "__main__":
    bench.main(tables)
