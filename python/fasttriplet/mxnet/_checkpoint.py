"""MXNet checkpoints: ``PREFIX-symbol.json`` with the network, ``PREFIX-0000.params`` with its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttriplet._checks import whole_number
from fasttriplet._contents import describe_wrong_file
from fasttriplet._files import replacing
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._params import check_params
from fasttriplet.mxnet._quiet import quiet


@dataclass(frozen=True)
class Checkpoint:
    """A network and its weights, as they were saved."""

    symbol: Any  # the whole graph, with a loss where it was saved with one
    arg_params: dict[str, Any]  # weights
    aux_params: dict[str, Any]  # running statistics
    symbol_path: Path
    params_path: Path


def load_checkpoint(prefix: str | os.PathLike[str], epoch: int) -> Checkpoint:
    """Read a checkpoint.

    A file that does not exist is a FileNotFoundError, which names the epochs that do; one that is not what
    its name says is a ValueError.
    """
    symbol_path, params_path = checkpoint_paths(prefix, whole_number("epoch", epoch, 0))
    if not symbol_path.is_file():
        raise FileNotFoundError(f"no network at {symbol_path}; PREFIX is the path without '-symbol.json'")
    if not params_path.is_file():
        epochs = ", ".join(map(str, epochs_beside(prefix)))
        beside = f"epochs found beside it: {epochs}" if epochs else "no epoch lies beside it"
        raise FileNotFoundError(f"no weights at {params_path}; {beside}")
    mx = import_mxnet()
    symbol = load_symbol(symbol_path)
    check_params(params_path)
    try:
        params = mx.nd.load(str(params_path)) or {}  # of no arrays it makes a list
    except mx.base.MXNetError as error:
        raise ValueError(describe_wrong_file(params_path, "a file of MXNet parameters")) from error
    if not isinstance(params, dict) or not all(name.startswith(("arg:", "aux:")) for name in params):
        raise ValueError(
            f"{params_path} holds arrays whose names lack 'arg:' or 'aux:'; Gluon's save_parameters() writes "
            "such files, its export() writes a checkpoint"
        )
    args, auxs = (
        {name[4:]: value for name, value in params.items() if name.startswith(kind)}
        for kind in ("arg:", "aux:")
    )
    return Checkpoint(symbol, args, auxs, symbol_path, params_path)


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
    mx = import_mxnet()
    params = {f"arg:{name}": value for name, value in arg_params.items()}
    params |= {f"aux:{name}": value for name, value in aux_params.items()}
    symbol_path, params_path = checkpoint_paths(prefix, epoch)
    text = symbol.tojson()
    if not symbol_path.is_file() or symbol_path.read_text(encoding="utf-8", errors="replace") != text:
        with replacing(symbol_path, overwrite=overwrite) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    with replacing(params_path, overwrite=overwrite) as unfinished:
        try:
            mx.nd.save(str(unfinished), params)
            # MXNet does not check that the last block was written; reading finds that the end is missing.
            if mx.nd.load(str(unfinished)).keys() != params.keys():
                raise mx.base.MXNetError("arrays are missing")
        except mx.base.MXNetError as error:
            raise OSError(f"cannot write {params_path}; is the disk full?") from error


def checkpoint_paths(prefix: str | os.PathLike[str], epoch: int) -> tuple[Path, Path]:
    """The files of a checkpoint: the network and its weights."""
    return Path(f"{os.fspath(prefix)}-symbol.json"), Path(f"{os.fspath(prefix)}-{epoch:04d}.params")


def epochs_beside(prefix: str | os.PathLike[str]) -> list[int]:
    """List the epochs for which ``PREFIX-0000.params`` files exist, in ascending order."""
    path = Path(prefix)
    name = re.compile(re.escape(path.name) + r"-(\d{4,})\.params")
    if not path.parent.is_dir():
        return []
    found = (name.fullmatch(file.name) for file in path.parent.iterdir())
    return sorted(int(match[1]) for match in found if match)


def first_names(names: list[str]) -> str:
    """The first five of some names, for a message."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
