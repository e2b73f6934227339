"""MXNet checkpoints as objects of MXNet; their files are read and written without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttriplet._contents import describe_wrong_file
from fasttriplet.checkpoint._checkpoint import Checkpoint, existing_paths, read_weights, write_checkpoint
from fasttriplet.checkpoint._symbol import parse_symbol
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._quiet import quiet


@dataclass(frozen=True)
class LoadedCheckpoint(Checkpoint[Any]):
    """A checkpoint whose arrays are MXNet's."""

    loaded: Any  # the symbol as an object of MXNet


def load_checkpoint(prefix: str | os.PathLike[str], epoch: int) -> LoadedCheckpoint:
    """Read a checkpoint; its errors are those of `read_checkpoint`."""
    symbol_path, params_path = existing_paths(prefix, epoch)
    mx = import_mxnet()
    loaded = load_symbol(symbol_path)
    args, auxs = (
        {name: mx.nd.array(value, dtype=value.dtype) for name, value in weights.items()}
        for weights in read_weights(params_path)
    )
    return LoadedCheckpoint(parse_symbol(loaded.tojson()), args, auxs, symbol_path, params_path, loaded)


def load_symbol(path: Path) -> Any:
    """Read a network without its weights: a ValueError if the file holds no symbol."""
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    mx = import_mxnet()
    with quiet():
        try:
            return mx.sym.load(str(path))
        except (mx.base.MXNetError, UnicodeDecodeError) as error:
            raise ValueError(describe_wrong_file(path, "an MXNet symbol")) from error


def save_checkpoint(
    prefix: str | os.PathLike[str],
    epoch: int,
    symbol: Any,
    arg_params: Mapping[str, Any],
    aux_params: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> None:
    """Write a checkpoint, whose files appear when they are complete; an equal symbol stays as it is."""
    args, auxs = (
        {name: value.asnumpy() for name, value in params.items()} for params in (arg_params, aux_params)
    )
    write_checkpoint(prefix, epoch, symbol.tojson(), args, auxs, overwrite=overwrite)
