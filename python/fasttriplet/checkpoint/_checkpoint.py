"""MXNet checkpoints: ``PREFIX-symbol.json`` with the network, ``PREFIX-0000.params`` with its weights."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from fasttriplet._callers import stacklevel_of_user
from fasttriplet._checks import whole_number
from fasttriplet._files import naming, opened, publish, replacing
from fasttriplet._words import first_names
from fasttriplet.checkpoint._outputs import find_data, find_embedding
from fasttriplet.checkpoint._params import read_arrays, writer_of
from fasttriplet.checkpoint._symbol import Symbol, read_symbol

_Array = TypeVar("_Array")
Weights = dict[str, NDArray[Any]]
_WITH_EPOCH = re.compile(r"(?P<prefix>.+),(?P<epoch>[0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint(Generic[_Array]):
    """A network and its weights, as they were saved."""

    symbol: Symbol  # the whole graph, with a loss where it was saved with one
    arg_params: dict[str, _Array]  # weights
    aux_params: dict[str, _Array]  # running statistics
    symbol_path: Path
    params_path: Path


@dataclass(frozen=True)
class Embedding:
    """The part of a network that computes the embedding."""

    symbol: Symbol  # its only output is the embedding
    data: str  # the variable that is the images
    output: str  # name of the output, such as "fc1_output"


def read_checkpoint(prefix: str | os.PathLike[str], epoch: int) -> Checkpoint[NDArray[Any]]:
    """Read a checkpoint.

    A file that does not exist is a FileNotFoundError, which names the epochs that do; one that is not what
    its name says is a ValueError.
    """
    symbol_path, params_path = existing_paths(prefix, epoch)
    symbol = read_symbol(symbol_path)
    return Checkpoint(symbol, *read_weights(params_path), symbol_path, params_path)


def existing_paths(prefix: str | os.PathLike[str], epoch: int) -> tuple[Path, Path]:
    """The files of a checkpoint that is there; a FileNotFoundError names the epochs that are."""
    symbol_path, params_path = checkpoint_paths(prefix, whole_number("epoch", epoch, 0))
    if not symbol_path.is_file():
        raise FileNotFoundError(f"no network at {symbol_path}; PREFIX is the path without '-symbol.json'")
    if not params_path.is_file():
        epochs = ", ".join(map(str, epochs_beside(prefix)))
        beside = f"epochs found beside it: {epochs}" if epochs else "no epoch lies beside it"
        raise FileNotFoundError(f"no weights at {params_path}; {beside}")
    return symbol_path, params_path


def read_weights(path: Path) -> tuple[Weights, Weights]:
    """Read the weights and the running statistics of a ``.params`` file, by their names in the network."""
    names, arrays = read_arrays(path)
    if len(names) != len(arrays) or not all(name.startswith(("arg:", "aux:")) for name in names):
        raise ValueError(
            f"{path} holds arrays whose names lack 'arg:' or 'aux:'; Gluon's save_parameters() writes "
            "such files, its export() writes a checkpoint"
        )
    args, auxs = (
        {name[4:]: array for name, array in zip(names, arrays, strict=True) if name.startswith(kind)}
        for kind in ("arg:", "aux:")
    )
    return args, auxs


def write_checkpoint(
    prefix: str | os.PathLike[str],
    epoch: int,
    symbol: Symbol | str,
    arg_params: Mapping[str, NDArray[Any]],
    aux_params: Mapping[str, NDArray[Any]],
    *,
    overwrite: bool = True,
) -> None:
    """Write a checkpoint, whose files appear when both are complete; an equal symbol stays as it is.

    Nothing is changed if a weight cannot be written. At no moment is a new symbol there with the old weights
    of its epoch.
    """
    symbol_path, params_path = checkpoint_paths(prefix, epoch)
    content = (symbol if isinstance(symbol, str) else symbol.to_json()).encode()
    params = {f"arg:{name}": value for name, value in arg_params.items()}
    params |= {f"aux:{name}": value for name, value in aux_params.items()}
    write = writer_of(params)
    if symbol_path.is_file() and symbol_path.read_bytes() == content:
        with replacing(params_path, overwrite=overwrite) as unfinished:
            write(unfinished)
        return
    with opened(symbol_path, params_path, overwrite=overwrite) as (network, weights):
        with naming(network):
            network.unfinished.write_bytes(content)
        with naming(weights):
            write(weights.unfinished)
        publish(network, weights)


def embedding_of(checkpoint: Checkpoint[Any], wanted: str | None = None) -> Embedding:
    """Find the embedding in a checkpoint, and check that the file has all weights that it needs.

    It warns if the file holds weights that are not in the network. A ValueError names the file if the network
    has no image input, its output cannot be found, or weights are missing.
    """
    symbol, params = checkpoint.symbol, checkpoint.arg_params
    try:
        data = find_data(symbol, params)
        entry = find_embedding(symbol, data=data, params=params, wanted=wanted)
    except ValueError as error:
        raise ValueError(f"{checkpoint.symbol_path}: {error}") from error
    inner = symbol.up_to(entry)
    missing = [name for name in inner.arguments() if name != data and name not in params]
    missing += [name for name in inner.auxiliary_states() if name not in checkpoint.aux_params]
    if missing:
        raise ValueError(
            f"{checkpoint.params_path} lacks {first_names(missing)}, which {checkpoint.symbol_path} needs"
        )
    known = {*symbol.arguments(), *symbol.auxiliary_states()}
    extra = [name for name in (*params, *checkpoint.aux_params) if name not in known]
    if extra:
        unknown = f"{first_names(extra)}, unknown to {checkpoint.symbol_path}"
        warnings.warn(f"{checkpoint.params_path} holds {unknown}; not used", stacklevel=stacklevel_of_user())
    return Embedding(inner, data, symbol.name_of(entry))


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


def split_epoch(text: str) -> tuple[str, int] | None:
    """Split ``PREFIX,EPOCH``; None if the text is not of this form."""
    match = _WITH_EPOCH.fullmatch(text)
    return None if match is None else (match["prefix"], int(match["epoch"]))


def spec_of(path: str) -> str | None:
    """Return the full spec of a checkpoint that exists, given by its prefix or one of its files."""
    prefix, _, epoch = path.rpartition(",") if "," in path else (path, "", "")
    if path.endswith("-symbol.json"):
        prefix = path.removesuffix("-symbol.json")
    elif path.endswith(".params"):
        prefix, _, epoch = path.removesuffix(".params").rpartition("-")
    if not Path(f"{prefix}-symbol.json").is_file():
        return None
    if split_epoch(f"{prefix},{epoch}") is None:
        epoch = str(max(epochs_beside(prefix), default=0))
    return f"mxnet:{prefix},{int(epoch)}"
