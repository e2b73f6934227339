"""MXNet checkpoints as modules, and back."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet._checks import output_name, whole_number
from fasttriplet._files import check_can_be_written
from fasttriplet._words import first_names
from fasttriplet.checkpoint._checkpoint import (
    checkpoint_paths,
    embedding_of,
    read_checkpoint,
    write_checkpoint,
)
from fasttriplet.checkpoint._symbol import parse_symbol
from fasttriplet.torch._graph._build import build
from fasttriplet.torch._graph._network import ConvertedNetwork


def from_mxnet(prefix: str | os.PathLike[str], epoch: int, *, output: str | None = None) -> torch.nn.Module:
    """Load an MXNet checkpoint as a PyTorch module, without MXNet.

    The module computes what MXNet 1.9.1 computes, in inference and in training. It is a
    ``torch.fx.GraphModule``: ``module.code`` is its forward pass as Python code. Layers are sub-modules
    such as ``torch.nn.Conv2d``, and have the names of MXNet's nodes, so the weight that MXNet calls
    ``conv0_weight`` is usually ``conv0.weight``. Weights that several operators share, or that other weights
    are computed from, are parameters of the whole module and keep MXNet's names. In names, all but letters,
    digits and underscores become underscores.

    Parameters
    ----------
    prefix : path
        Path without ``-symbol.json`` and ``-0000.params``.
    epoch : int
        Number of the checkpoint, at least 0.
    output : str, optional
        Name of the output inside the network that is the embedding. By default it is found: networks that
        were saved with their losses are cut before them.

    Returns
    -------
    torch.nn.Module
        In inference mode (``eval()``), on the CPU (or PyTorch's default device), with weights of float32. It
        takes images (B, C, H, W) of float32 with the values that the network was trained with: most of
        InsightFace's networks take RGB 0 to 255 and normalise it themselves.

    Raises
    ------
    FileNotFoundError
        If a file is missing; names the epochs that are there.
    ValueError
        If a file is damaged, the embedding cannot be found, or an operator or one of its attributes cannot be
        converted; names the node, the operator, the attribute and its value.

    Warns
    -----
    UserWarning
        If the file has weights that the network does not know.

    Notes
    -----
    What differs from layers with the same name in PyTorch:

    * Where MXNet fixes the gamma of a BatchNorm at 1 (its default), the layer has no ``weight``. The stored
      gamma is kept for :func:`to_mxnet`.
    * In training, the running variance takes the variance of the batch divided by the number of values N;
      PyTorch's layers divide by N - 1. MXNet's momentum m is ``momentum = 1 - m``.
    * A ``Cast`` to float16 in the network is followed, and its weights are float16; ``module.float()`` makes
      all of it float32.
    * Calling the module with images that an operator cannot take is a ValueError that names MXNet's node.

    Learning rates for single weights (``__lr_mult__``) are an optimizer's, and have no effect here.

    Examples
    --------
    >>> import torch
    >>> from fasttriplet.torch import from_mxnet
    >>> module = from_mxnet("model", 0)  # doctest: +SKIP
    >>> module(torch.zeros(8, 3, 112, 112)).shape  # doctest: +SKIP
    torch.Size([8, 128])
    """
    output_name(output)
    checkpoint = read_checkpoint(prefix, epoch)
    embedding = embedding_of(checkpoint, output)
    weights = checkpoint.arg_params | checkpoint.aux_params
    try:
        return build(embedding.symbol, embedding.data, weights).eval()
    except ValueError as error:
        raise ValueError(f"{checkpoint.symbol_path}: {error}") from error


def to_mxnet(
    module: torch.nn.Module, prefix: str | os.PathLike[str], epoch: int = 0, *, overwrite: bool = False
) -> None:
    """Write a module that :func:`from_mxnet` returned as an MXNet checkpoint, without MXNet.

    MXNet computes the same embeddings from it. The network ends with the embedding: losses that the original
    had after it are not written.

    Parameters
    ----------
    module : torch.nn.Module
        Its weights may have changed, by training or ``load_state_dict()``, and be on any device. bfloat16,
        which MXNet does not know, is written as float32.
    prefix : path
        Path without ``-symbol.json`` and ``-0000.params``.
    epoch : int, default 0
        Number of the checkpoint, at least 0.
    overwrite : bool, default False
        Whether files that are there may be replaced. A network that is there and is the same stays, so a
        training may write several epochs.

    Raises
    ------
    FileExistsError
        If a file is there and `overwrite` is not set.
    OSError
        If the files cannot be written.
    ValueError
        If the module did not come from :func:`from_mxnet`, or has other parameters than it had.

    Examples
    --------
    >>> from fasttriplet.torch import from_mxnet, to_mxnet
    >>> module = from_mxnet("model", 0)  # doctest: +SKIP
    >>> to_mxnet(module, "tuned")  # doctest: +SKIP
    """
    origin = getattr(module, "origin", None)
    if not isinstance(module, ConvertedNetwork) or origin is None:
        kind = type(module).__name__
        raise ValueError(f"expected a module that from_mxnet returned, not a {kind}{_inside(module)}")
    symbol_path, params_path = checkpoint_paths(prefix, whole_number("epoch", epoch, 0))
    if not symbol_path.is_file() or symbol_path.read_bytes() != origin.symbol.encode():
        check_can_be_written(symbol_path, overwrite=overwrite)
    check_can_be_written(params_path, overwrite=overwrite)
    weights = weights_of(module)
    states = parse_symbol(origin.symbol).auxiliary_states()
    auxs = {name: weights.pop(name) for name in states}
    write_checkpoint(prefix, epoch, origin.symbol, weights, auxs, overwrite=overwrite)


def weights_of(module: ConvertedNetwork) -> dict[str, NDArray[Any]]:
    """The arrays of the file by MXNet's names; a ValueError if the module has lost some, or has others."""
    origin, state = module.origin, module.state_dict()
    found = {name for name in state if not name.endswith(".num_batches_tracked")}
    if changed := found.symmetric_difference(origin.places):
        raise ValueError(
            f"the module has other parameters than from_mxnet gave it: {first_names(sorted(changed))}"
        )
    for place, (_, shape) in origin.places.items():
        if state[place].shape != shape:
            raise ValueError(f"{place} has the shape {tuple(state[place].shape)} by now; expected {shape}")
    return {**origin.kept, **{name: _array(state[place]) for place, (name, _) in origin.places.items()}}


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return np.ascontiguousarray(tensor.numpy(force=True))


def _inside(module: object) -> str:
    """Where the module is that a wrapper holds."""
    for name in ("module", "_orig_mod"):
        if isinstance(getattr(module, name, None), ConvertedNetwork):
            return f"; give what is inside of it, .{name}"
    return ""
