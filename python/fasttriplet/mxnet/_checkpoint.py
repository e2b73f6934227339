"""Checkpoints as objects of MXNet. Their files are read and written without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fasttriplet.checkpoint._checkpoint import Checkpoint, existing_paths, read_checkpoint, write_checkpoint
from fasttriplet.checkpoint._symbol import Symbol
from fasttriplet.mxnet._compat import import_mxnet, reason_of


def load_checkpoint(prefix: str | os.PathLike[str], epoch: int) -> Checkpoint[Any]:
    """Read a checkpoint whose arrays are MXNet's; its errors are those of `read_checkpoint`."""
    existing_paths(prefix, epoch)
    import_mxnet()
    checkpoint = read_checkpoint(prefix, epoch)
    args, auxs = _moved(checkpoint.arg_params), _moved(checkpoint.aux_params)
    return replace(checkpoint, arg_params=args, aux_params=auxs)


def _moved(weights: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Make them arrays of MXNet, one after the other, so that they do not need their memory twice."""
    mx, moved = import_mxnet(), {}
    for name in list(weights):
        array = weights.pop(name)
        moved[name] = mx.nd.array(array, dtype=array.dtype)
    return moved


def load_symbol(symbol: Symbol, path: Path) -> Any:
    """Make a network from `path` an object of MXNet; a ValueError if it has operators that MXNet lacks."""
    mx = import_mxnet()
    try:
        return mx.sym.load_json(symbol.to_json())
    except mx.base.MXNetError as error:
        raise ValueError(f"{path}: MXNet cannot load the network: {reason_of(error)}") from error


def save_checkpoint(
    prefix: str | os.PathLike[str],
    epoch: int,
    symbol: Any,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> None:
    """Write a checkpoint from objects of MXNet; see `write_checkpoint`."""
    args, auxs = (
        {name: value.asnumpy() for name, value in params.items()} for params in (arg_params, aux_params)
    )
    write_checkpoint(prefix, epoch, symbol.tojson(), args, auxs, overwrite=overwrite)
