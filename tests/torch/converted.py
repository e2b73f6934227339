"""Networks of our own as modules: their images, what they compute, and a step of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fasttriplet.torch import from_mxnet
from tests.torch import graphs
from tests.torch.graphs import Graph


def images(count: int = 4, seed: int = 0) -> Any:
    return torch.from_numpy(graphs.images(count, seed))


def outputs(module: Any, batch: Any = None) -> Any:
    """What a module computes in inference, by default of four images."""
    with torch.no_grad():
        return module(images() if batch is None else batch)


def take_a_step(module: Any, seed: int = 0) -> None:
    """One step of a training that changes all weights."""
    torch.manual_seed(seed)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(images(seed=seed)).square().mean().backward()
    optimizer.step()
    module.eval()


def converted(graph: Graph, head: str, tmp_path: Path) -> Any:
    return from_mxnet(graph.save(tmp_path / "own", head), 0)
