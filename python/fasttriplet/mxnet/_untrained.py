"""Checkpoints of networks that were not trained, for a first run and for tests."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import image_size as checked_size
from fasttriplet._checks import seed_number
from fasttriplet._files import check_can_be_written
from fasttriplet.checkpoint._checkpoint import checkpoint_paths
from fasttriplet.mxnet._checkpoint import save_checkpoint
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._quiet import quiet

_PICTURES = 64  # for running statistics
# Changes to a network after which training differs from inference only in its batch normalisation.
_TRAINING_AS_INFERENCE = {"Dropout": {"p": "0"}, "BatchNorm": {"use_global_stats": "False"}}


def save_untrained(
    prefix: str | os.PathLike[str],
    symbol: Any,
    image_size: tuple[int, int],
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Give a network random weights and save it as epoch 0 of a checkpoint.

    The weights are drawn from He's normal distribution ("Delving Deep into Rectifiers", 2015); slopes of
    PReLU and other variables with a constant as their initializer get that constant. The running statistics
    of batch normalisations are those of smooth random pictures: with zeros and ones instead, the embeddings
    of different faces had a mean cosine of 0.71, with these 0.23 (:func:`small_convnet`). The same arguments
    give the same files.

    Parameters
    ----------
    prefix : path
        Path without ``-symbol.json`` and ``-0000.params``.
    symbol : mxnet.symbol.Symbol
        A network with the input ``data`` and no labels, such as :func:`small_convnet` builds.
    image_size : (int, int)
        Height and width of the images.
    seed : int, default 0
        Seed for the weights and the pictures.
    overwrite : bool, default False
        Whether files that are there may be replaced.

    Raises
    ------
    FileExistsError
        If a file is there and `overwrite` is not set.
    ImportError
        If MXNet cannot be imported.
    OSError
        If the files cannot be written.
    ValueError
        If the network has labels, or does not take images of this size, or an argument is out of its range.
    """
    mx = import_mxnet()
    if not isinstance(symbol, mx.symbol.Symbol):
        raise ValueError(f"symbol must be an mxnet.symbol.Symbol, not {symbol!r:.100}")
    height, width = checked_size(image_size, name="image_size")
    for path in checkpoint_paths(prefix, 0):
        check_can_be_written(path, overwrite=overwrite)
    rng = np.random.default_rng(seed_number(seed))
    try:
        arg_shapes, _, aux_shapes = symbol.infer_shape_partial(data=(_PICTURES, 3, height, width))
    except mx.base.MXNetError as error:
        raise ValueError(f"the network does not take images of {height} x {width} (H x W)") from error
    shapes = dict(zip(symbol.list_arguments(), arg_shapes, strict=True))
    if unknown := [name for name, shape in shapes.items() if not shape or 0 in shape]:
        raise ValueError(f"only the input 'data' can be fed, and it does not determine: {', '.join(unknown)}")
    shapes.pop("data", None)
    constants = _constants(symbol)
    args = {
        name: mx.nd.array(_initial(name, shape, constants.get(name), rng)) for name, shape in shapes.items()
    }
    auxs = {
        name: mx.nd.array(np.full(shape, float(name.endswith("_var"))))
        for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes, strict=True)
    }
    _set_running_statistics(symbol, args, auxs, _pictures(rng, height, width))
    save_checkpoint(prefix, 0, symbol, args, auxs, overwrite=overwrite)


def _constants(symbol: Any) -> dict[str, Any]:
    """Find the variables that start at a constant, such as the slopes of PReLU."""
    return {
        name: json.loads(attributes["__init__"])[1]["value"]
        for name, attributes in symbol.attr_dict().items()
        if attributes.get("__init__", "").lower().startswith('["constant"')
    }


def _initial(
    name: str, shape: tuple[int, ...], constant: Any, rng: np.random.Generator
) -> NDArray[np.float64]:
    if constant is None and name.endswith("_weight"):
        return rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return np.full(shape, name.endswith("_gamma") if constant is None else constant, dtype=np.float64)


def _pictures(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Draw pictures of random colour patches at several scales, (N, 3, H, W), 0 to 255."""
    total = np.zeros((_PICTURES, 3, height, width), dtype=np.float32)
    for patches in (2, 4, 8, 16, 32):
        colours = rng.random((_PICTURES, 3, patches, patches), dtype=np.float32)
        down, across = np.arange(height) * patches // height, np.arange(width) * patches // width
        total += colours[:, :, down][:, :, :, across]
    total -= total.min(axis=(1, 2, 3), keepdims=True)
    total *= 255 / total.max(axis=(1, 2, 3), keepdims=True)
    return total


def _set_running_statistics(
    symbol: Any, args: dict[str, Any], auxs: dict[str, Any], images: NDArray[np.float32]
) -> None:
    """Set the running statistics of each batch normalisation to those of its input.

    In training each normalises by the batch, whatever its running statistics, so one pass is enough.
    """
    mx = import_mxnet()
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    for node in nodes:
        node.setdefault("attrs", {}).update(_TRAINING_AS_INFERENCE.get(node["op"], {}))
    layers = [
        [nodes[source[0]]["name"] for source in node["inputs"]] for node in nodes if node["op"] == "BatchNorm"
    ]
    if not layers:
        return
    internals = mx.sym.load_json(json.dumps(graph)).get_internals()
    inputs = [internals[name if name == "data" else f"{name}_output"] for name, *_ in layers]
    module = mx.mod.Module(mx.sym.Group(inputs), label_names=None)
    with quiet():
        module.bind([("data", images.shape)], for_training=False)
        module.set_params(args, auxs, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=True)
    for (_, _, _, mean, variance), output in zip(layers, module.get_outputs(), strict=True):
        layer = output.asnumpy().astype(np.float64)
        axes = tuple(axis for axis in range(layer.ndim) if axis != 1)
        auxs[mean], auxs[variance] = mx.nd.array(layer.mean(axes)), mx.nd.array(layer.var(axes))
