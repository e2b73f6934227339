"""How fast networks train and embed on the CPU: MXNet's own, and the same ones on PyTorch and ONNX Runtime.

First the built-in MXNet networks with PReLU in both of its forms. Then MXNet's checkpoints as three specs run
them: `mxnet:`, `torch:mxnet:` and `onnx:`, the last from a file that PyTorch exported. Each embeds the same
images alone, decoded before, and in a run of `mine_rec` from a `.rec`. InsightFace's network `y1` is measured
where its files are; `mobilefacenet` has random weights.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fasttriplet as ft
from data import FACES, SHARED, decoder, draw_faces, write_dataset
from fasttriplet.mxnet import import_mxnet, mobilefacenet, save_untrained, small_convnet, triplet_loss
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
Y1 = SHARED / "model-y1" / "model"
MXNET = "mxnet:{prefix},0"
SPECS = (MXNET, "torch:mxnet:{prefix},0", "onnx:{onnx}")
ALONE, MINING = "alone", "`mine_rec`"

bench = Bench(__file__, __doc__, rounds=5, packages=["mxnet", "torch", "onnxruntime"])
bench.option("--images", 60, "of 112 x 112, at a time", quick=6)
bench.option("--embedded", 1024, "images that each spec embeds", quick=20)


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


def ways_of_specs(prefixes: dict[str, str], rec: str, folder: str) -> dict[str, Way]:
    index = ft.index_rec(rec)
    images = decoder(Path(rec))(index)
    found = {}
    for name, prefix in prefixes.items():
        if not Path(f"{prefix}-symbol.json").exists():
            save_untrained(prefix, mobilefacenet(), (112, 112), seed=0)
        onnx = Path(folder) / f"{Path(prefix).name}.onnx"
        export(prefix, onnx)
        for spec in SPECS:
            embedder = ft.load_embedder(spec.format(prefix=prefix, onnx=onnx), devices="cpu")
            mine = partial(ft.mine_rec, rec, model=embedder, bag_size=index.height, band="any")
            found[f"{name}, {of(spec)}, {ALONE}"] = Way(partial(embedder.embed, index, images))
            found[f"{name}, {of(spec)}, {MINING}"] = Way(mine)
    return found


def export(prefix: str, path: Path) -> None:
    """Write a checkpoint of MXNet as an ONNX file for any number of images."""
    import torch  # noqa: PLC0415  only in the process that is measured
    from fasttriplet.torch import from_mxnet  # noqa: PLC0415

    module, example = from_mxnet(prefix, 0).eval(), torch.zeros(2, 3, 112, 112)
    shapes = ({0: torch.export.Dim("images")},)
    torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)


def of(spec: str) -> str:
    """The scheme of a spec, as the table has it."""
    return f"`{spec.partition('{')[0]}`"


def tables(options: Namespace) -> Iterator[Table]:
    took = bench.measure(ways, images=options.images)
    found = Table(f"Images a second, {options.images} of 112 x 112 at a time")
    for name in NETWORKS:
        found.rows[name] = {
            what: took[f"{name}, {what}"].per_second(options.images) for what in (TRAINING, EMBEDDING)
        }
    yield found
    yield by_spec(options.embedded, options.rounds)


def by_spec(count: int, rounds: int) -> Table:
    """Networks on three frameworks: alone, and in a run."""
    with tempfile.TemporaryDirectory() as folder:
        prefixes = {"`mobilefacenet`": f"{folder}/mobilefacenet"}
        if Path(f"{Y1}-symbol.json").exists():
            prefixes["InsightFace's `y1`"] = str(Y1)
        source = FACES if FACES.is_file() else draw_faces(Path(folder) / "drawn.rec")
        rec = write_dataset(source, Path(folder) / "train.rec", count)
        took = bench.measure(ways_of_specs, rounds=rounds, prefixes=prefixes, rec=str(rec), folder=folder)
    found = Table(f"{count:,} images of 112 x 112 with each spec")
    for name in prefixes:
        mxnet = took[f"{name}, {of(MXNET)}, {ALONE}"]
        for spec in SPECS:
            alone, mined = (took[f"{name}, {of(spec)}, {what}"] for what in (ALONE, MINING))
            found.rows[f"{name}, {of(spec)}"] = {
                "images/s, the network alone": alone.per_second(count),
                "times MXNet's": mxnet.best / alone.best,
                "`mine_rec`, times as long as the network alone": mined.over(alone),
            }
    return found


if __name__ == "__main__":
    bench.main(tables)
