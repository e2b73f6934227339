"""Train an embedding on triplets of a `.rec` dataset, in one process or in several.

    python examples/train.py train.rec
    torchrun --nproc-per-node 2 examples/train.py train.rec

A run that was stopped continues after its last epoch when it is started again.
"""

import argparse
import os
from pathlib import Path

from torch.nn.parallel import DistributedDataParallel

import fasttriplet as ft
import torch
from fasttriplet.torch import TripletFeed, triplet_losses
from torch import distributed, nn


def network() -> nn.Module:
    """Make a small network for images of any size; yours goes here."""

    def halving(given: int, made: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()
        )

    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(halving(3, 16), halving(16, 32), halving(32, 64), pooled, nn.Linear(256, 64))


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rec")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--checkpoint", type=Path, default="triplets.pt")
    options = parser.parse_args()
    several = "RANK" in os.environ  # torchrun has started this process
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if several:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(0)
    module = network().to(device)
    model = DistributedDataParallel(module) if several else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    with TripletFeed(options.rec, model, batch_size=60, augment=ft.Augment(mirror=True)) as feed:
        if options.checkpoint.exists():
            state = torch.load(options.checkpoint, map_location=device, weights_only=True)
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            feed.load_state_dict(state["feed"])
        for epoch in range(feed.epoch, options.epochs):
            found = []
            for images, _, _ in feed:
                losses = triplet_losses(model(images.to(device, non_blocking=True)), margin=0.3)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                found.append(losses.detach())
            if found and (not several or distributed.get_rank() == 0):
                losses = torch.cat(found)
                print(f"epoch {epoch}: loss {losses.mean():.4f}, active {(losses > 0).float().mean():.4f}")
                parts = {"module": module, "optimizer": optimizer, "feed": feed}
                unfinished = options.checkpoint.with_suffix(".part")
                torch.save({name: part.state_dict() for name, part in parts.items()}, unfinished)
                unfinished.replace(options.checkpoint)  # which is whole, whenever the process is killed
    if several:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
