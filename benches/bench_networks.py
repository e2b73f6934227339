"""How fast the built-in MXNet networks train and embed on the CPU, with PReLU in both of its forms."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fasttriplet.mxnet import triplet_loss
from fasttriplet.mxnet.compat import import_mxnet
from fasttriplet.mxnet.networks import mobilefacenet, small_convnet
from fasttriplet.mxnet.quiet import quiet
from machine import report

IMAGES = 60  # at a time, of 112 x 112
NETWORKS: dict[str, Callable[[], Any]] = {
    "small": small_convnet,
    "mobilefacenet": mobilefacenet,
    "mobilefacenet, MXNet's PReLU operator": lambda: mobilefacenet(prelu="operator"),
}


def per_second(work: Callable[[], object], wait: Callable[[], object], seconds: float) -> float:
    """Images a second, behind a first time."""
    work()
    wait()
    times, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        wait()
        times += 1
    return IMAGES * times / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number (default: 5)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    mx = import_mxnet()
    images = mx.nd.array(np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 112, 112)))
    batch = mx.io.DataBatch([images], [mx.nd.zeros(IMAGES)])
    results = {}
    for name, build in NETWORKS.items():
        module = mx.mod.Module(triplet_loss(build(), 0.3, IMAGES))
        with quiet():
            module.bind([("data", images.shape)], [("softmax_label", (IMAGES,))])
        module.init_params(mx.init.Xavier())
        module.init_optimizer(optimizer_params={"learning_rate": 1e-9, "momentum": 0.9})

        def step(module: Any = module) -> None:
            module.forward_backward(batch)
            module.update()

        def embed(module: Any = module) -> None:
            module.forward(batch, is_train=False)

        results[f"{name}: training, images/s"] = per_second(step, mx.nd.waitall, arguments.seconds)
        results[f"{name}: embedding, images/s"] = per_second(embed, mx.nd.waitall, arguments.seconds)
    report("MXNet networks, 60 images of 112 x 112", results, as_json=arguments.json)


if __name__ == "__main__":
    main()
