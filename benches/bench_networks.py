"""How fast the built-in MXNet networks train and embed on the CPU, with PReLU in both of its forms."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fasttriplet.mxnet import import_mxnet, mobilefacenet, small_convnet, triplet_loss
from fasttriplet.mxnet._quiet import quiet
from harness import Bench
from process import Way
from tables import Table

NETWORKS: dict[str, Callable[[], Any]] = {
    "`small`": small_convnet,
    "`mobilefacenet`": mobilefacenet,
    "`mobilefacenet` with MXNet's PReLU operator": lambda: mobilefacenet(prelu="operator"),
}
TRAINING, EMBEDDING = "training", "embedding"

bench = Bench(__file__, __doc__, rounds=5, packages=["mxnet"])
bench.option("--images", 60, "of 112 x 112, at a time", quick=6)


def ways(images: int) -> dict[str, Way]:
    mx = import_mxnet()
    pixels = mx.nd.array(np.random.default_rng(0).integers(0, 256, (images, 3, 112, 112)))
    batch = mx.io.DataBatch([pixels], [mx.nd.zeros(images)])
    found = {}
    for name, build in NETWORKS.items():
        module = mx.mod.Module(triplet_loss(build(), 0.3, images))
        with quiet():
            module.bind([("data", pixels.shape)], [("softmax_label", (images,))])
        module.init_params(mx.init.Xavier())
        module.init_optimizer(optimizer_params={"learning_rate": 1e-9, "momentum": 0.9})

        def step(module: Any = module) -> None:
            module.forward_backward(batch)
            module.update()
            mx.nd.waitall()

        def embed(module: Any = module) -> None:
            module.forward(batch, is_train=False)
            mx.nd.waitall()

        found[f"{name}, {TRAINING}"] = Way(step)
        found[f"{name}, {EMBEDDING}"] = Way(embed)
    return found


def tables(options: Namespace) -> Iterator[Table]:
    took = bench.measure(ways, images=options.images)
    found = Table(f"Images a second, {options.images} of 112 x 112 at a time")
    for name in NETWORKS:
        found.rows[name] = {
            what: took[f"{name}, {what}"].per_second(options.images) for what in (TRAINING, EMBEDDING)
        }
    yield found


if __name__ == "__main__":
    bench.main(tables)
