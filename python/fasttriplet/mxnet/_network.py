"""The network that a training begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fasttriplet._contents import describe_wrong_file
from fasttriplet.mxnet._checkpoint import load_checkpoint
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._networks import PReLU, build_network
from fasttriplet.mxnet._outputs import find_data, find_embedding
from fasttriplet.mxnet._quiet import quiet
from fasttriplet.training._settings import TrainSettings


def network(settings: TrainSettings, image_size: tuple[int, int], device: Any) -> Any:
    """The network without a loss: its input is ``data``, its output the embedding.

    A built-in one has the form of PReLU that suits the device.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the name is not known, the file holds no symbol, or its embedding cannot be told.
    """
    if settings.network is not None:
        prelu: PReLU = "convolutions" if device.device_type == "cpu" else "operator"
        return build_network(settings.network, image_size, settings.embedding_size, prelu=prelu)
    assert settings.symbol is not None
    path = Path(settings.symbol)
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    mx = import_mxnet()
    with quiet():
        try:
            symbol = mx.sym.load(str(path))
        except (mx.base.MXNetError, UnicodeDecodeError) as error:
            raise ValueError(describe_wrong_file(path, "an MXNet symbol")) from error
    # Without a file of weights, all that is neither the image nor a label is one.
    params = [name for name in symbol.list_arguments() if name != "data" and not name.endswith("label")]
    try:
        if find_data(symbol, params) != "data":
            raise ValueError("the input for images must be called data")
        output = find_embedding(symbol, data="data", params=params)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}. For a training, save the symbol with the embedding as its only output"
        ) from error
    embedding = symbol.get_internals()[output]
    try:
        _, shapes, _ = embedding.infer_shape_partial(data=(1, 3, *image_size))
    except mx.base.MXNetError:  # told where the network is bound
        return embedding
    # (B, D, 1, 1) counts as (B, D).
    return mx.sym.Flatten(embedding) if shapes and len(shapes[0]) > 2 else embedding


def pretrained(settings: TrainSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and running statistics to begin with, by name; none if none are asked for.

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If it is not named as it should be, or damaged.
    """
    if settings.pretrained is None:
        return {}, {}
    prefix, _, epoch = settings.pretrained.rpartition(",")
    if not prefix or not epoch.isdecimal():
        raise ValueError(f"pretrained must be PREFIX,EPOCH, not {settings.pretrained!r}")
    checkpoint = load_checkpoint(prefix, int(epoch))
    for name, value in (checkpoint.arg_params | checkpoint.aux_params).items():
        if not np.isfinite(value.asnumpy()).all():
            raise ValueError(f"pretrained: {checkpoint.params_path} holds NaN or infinity, in {name}")
    return checkpoint.arg_params, checkpoint.aux_params
