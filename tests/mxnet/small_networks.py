"""Small networks as checkpoints, images for them, and what a plain module gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

SIZE = (32, 24)


def rows_of(count: int) -> pl.DataFrame:
    return pl.DataFrame({"key": np.arange(1, count + 1)})


def random_images(count: int, height: int = SIZE[0], width: int = SIZE[1]) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def save(
    mx: Any, prefix: Path, symbol: Any, changes: dict[str, Any] | None = None, size: tuple[int, int] = SIZE
) -> str:
    """Random weights for any symbol; `changes` replace or (None) remove some of them."""
    args, auxs = {}, {}
    arg_shapes, _, aux_shapes = symbol.infer_shape_partial(data=(6, 3, *size))
    rng = np.random.default_rng(7)
    for name, shape in zip(symbol.list_arguments(), arg_shapes, strict=True):
        if name != "data" and not name.endswith("label"):
            args[name] = mx.nd.array(rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))
    for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes, strict=True):
        auxs[name] = mx.nd.array(rng.random(shape) + 0.5)
    for name, value in (changes or {}).items():
        args.pop(name, None)
        auxs.pop(name, None)
        if value is not None:
            (auxs if name in symbol.list_auxiliary_states() else args)[name] = mx.nd.array(value)
    mx.model.save_checkpoint(str(prefix), 0, symbol, args, auxs)
    return f"mxnet:{prefix},0"


def body(mx: Any, name: str = "fc1", width: int = 8) -> Any:
    data = mx.sym.Variable("data")
    layer = mx.sym.Convolution(data * 0.01, name="conv", num_filter=4, kernel=(3, 3), stride=(2, 2))
    layer = mx.sym.Activation(mx.sym.BatchNorm(layer, name="bn"), act_type="relu", name="relu")
    return mx.sym.FullyConnected(mx.sym.Flatten(layer, name="flat"), name=name, num_hidden=width)


def triplet_loss(mx: Any, embedding: Any) -> Any:
    """The loss of InsightFace's train_triplet.py."""
    norm = mx.sym.L2Normalization(embedding, mode="instance", name="norm")
    a, p, n = (mx.sym.slice_axis(norm, axis=0, begin=2 * i, end=2 * (i + 1)) for i in range(3))
    ap, an = (mx.sym.sum(mx.sym.square(a - other), axis=1, keepdims=1) for other in (p, n))
    return mx.sym.MakeLoss(mx.sym.mean(mx.sym.Activation(ap - an + 0.3, act_type="relu")))


def softmax(mx: Any, embedding: Any) -> Any:
    logits = mx.sym.FullyConnected(embedding, name="fc7", num_hidden=10, no_bias=True)
    return mx.sym.SoftmaxOutput(logits, mx.sym.Variable("softmax_label"), name="softmax")


def direct(mx: Any, prefix: Path, output: str, images: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    """What a Module gives whose batches are made by hand."""
    symbol, args, auxs = mx.model.load_checkpoint(str(prefix), 0)
    module = mx.mod.Module(symbol.get_internals()[output], label_names=None)
    module.bind([("data", (batch, 3, *images.shape[1:3]))], for_training=False)
    module.set_params(args, auxs, allow_extra=True)
    found = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        padded = np.zeros((batch, *images.shape[1:]), np.uint8)
        padded[: len(chunk)] = chunk
        array = mx.nd.array(np.ascontiguousarray(padded.transpose(0, 3, 1, 2)).astype(np.float32))
        module.forward(mx.io.DataBatch([array]), is_train=False)
        found.append(module.get_outputs()[0].asnumpy()[: len(chunk)])
    return np.concatenate(found)


def trained_with_triplets(mx: Any, name: str) -> Any:
    """Build what InsightFace's train_triplet.py saves."""
    embedding = body(mx, name)
    label = mx.sym.Variable("softmax_label")
    return mx.sym.Group([mx.sym.BlockGrad(embedding), mx.sym.BlockGrad(label), triplet_loss(mx, embedding)])


def trained_with_softmax(mx: Any) -> Any:
    """Build what InsightFace's train.py saves."""
    embedding = body(mx)
    head = softmax(mx, embedding)
    label = mx.sym.one_hot(mx.sym.Variable("softmax_label"), depth=10)
    cross_entropy = -mx.sym.sum(mx.sym.log(head + 1e-6) * label)
    return mx.sym.Group([mx.sym.BlockGrad(embedding), head, mx.sym.BlockGrad(cross_entropy)])


NETWORKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "plain": (body, "fc1"),
    "plain, other name": (lambda mx: body(mx, "emb"), "emb"),
    "plain, fc1 inside": (lambda mx: mx.sym.FullyConnected(body(mx), name="emb", num_hidden=5), "emb"),
    "trained with triplets": (lambda mx: trained_with_triplets(mx, "fc1"), "fc1"),
    "trained with triplets, other name": (lambda mx: trained_with_triplets(mx, "emb"), "emb"),
    "trained with softmax": (trained_with_softmax, "fc1"),
    "softmax after fc1": (lambda mx: softmax(mx, body(mx)), "fc1"),
    "softmax on the embedding": (lambda mx: mx.sym.SoftmaxOutput(body(mx, "emb"), name="softmax"), "emb"),
    "softmax without a label": (lambda mx: mx.sym.softmax(body(mx, "emb"), name="prob"), "emb"),
    "triplet loss alone": (lambda mx: triplet_loss(mx, body(mx, "emb")), "emb"),
    "regression": (lambda mx: mx.sym.LinearRegressionOutput(body(mx, "emb"), mx.sym.Variable("y")), "emb"),
}
