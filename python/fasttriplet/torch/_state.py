"""The saved state of a module: from a file into a network that code has made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from fasttriplet._contents import describe_wrong_file
from fasttriplet._extras import how_to_install

# Entries of a checkpoint under which trainings put the state of the network.
_NESTED = (
    "state_dict",
    "model_state_dict",
    "state_dict_backbone",
    "state_dict_ema",
    "model",
    "net",
    "network",
)
_MOST_NAMES = 5
_ARCHIVE = b"PK\x03\x04"


def load_state(network: torch.nn.Module, path: Path) -> str:
    """Give a network the state that a file holds.

    The file may hold more: the state may be one entry of a checkpoint, and all names may begin with a prefix,
    such as ``module.`` or ``backbone.``.

    Returns
    -------
    str
        The file, and what was done about an entry, a prefix and names outside of it, for the description.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not one of tensors.
    ValueError
        If names or shapes are not those of the network.
    """
    state, entry = _nested(path, read_state(path))
    wanted = network.state_dict()
    prefix = _prefix(state, wanted)
    own = {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
    others = [name for name in state if not name.startswith(prefix)]
    # PyTorch counts batches there, and only for a training without a momentum.
    missing = [name for name in wanted if name not in own and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in own if name not in wanted]
    if missing or unexpected:
        lines = [
            f"{what}: {_first(names)}"
            for what, names in (("it lacks", missing), ("unknown to the network", unexpected))
            if names
        ]
        raise ValueError(f"{path}{entry} does not fit {type(network).__name__}; {'; '.join(lines)}")
    for name, values in own.items():
        if values.shape != wanted[name].shape:
            raise ValueError(
                f"{path}{entry}: {name} has the shape {tuple(values.shape)}, and {type(network).__name__} "
                f"needs {tuple(wanted[name].shape)}"
            )
    network.load_state_dict(own, strict=False)  # the names were compared
    said = f"{path}{entry}"
    if prefix:
        said += f" without the prefix {prefix!r}"
    return f"{said}, not used: {_first(others)}" if others else said


def read_state(path: Path) -> Mapping[str, Any]:
    """Read a ``.safetensors`` file, or what ``torch.save`` wrote, without running code that it may hold."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError  # noqa: PLC0415  only for such files
            from safetensors.torch import load_file  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ImportError(f"{path}: safetensors is not installed. {how_to_install('torch')}") from error
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{describe_wrong_file(path, 'a safetensors file')} ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages in old files
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "GLOBAL" in str(error).upper():
            raise ValueError(
                f"{path} holds Python objects, and reading those runs code of whoever wrote the file. If you "
                "trust it, load it with torch.load(FILE, weights_only=False) and save its state_dict()"
            ) from error
        raise ValueError(_damaged(path)) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(_damaged(path)) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state_dict")
    return found


def _damaged(path: Path) -> str:
    wrong = describe_wrong_file(path, "a file that torch.save wrote", magic=_ARCHIVE)
    with path.open("rb") as file:
        return f"{wrong}, or is damaged" if file.read(len(_ARCHIVE)) == _ARCHIVE else wrong


def _nested(path: Path, found: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], str]:
    """The state itself, and where it is in the file: "" or an entry in brackets."""
    if found and all(isinstance(values, torch.Tensor) for values in found.values()):
        return dict(found), ""
    entries = [name for name in _NESTED if isinstance(found.get(name), Mapping)]
    if not entries:
        # A state_dict may hold extra state of modules beside tensors.
        tensors = {name: values for name, values in found.items() if isinstance(values, torch.Tensor)}
        if not tensors:
            raise ValueError(f"{path} holds no state_dict; its entries are: {_first(list(map(str, found)))}")
        return tensors, ""
    tensors, inner = _nested(path, found[entries[0]])
    return tensors, f"[{entries[0]!r}]{inner}"


def _prefix(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What names of the file begin with and those of the network do not; "" if some are the same."""
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if not names or any(name in state for name in names):
        return ""
    first = names[0]
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    return max(prefixes, key=lambda prefix: sum(prefix + name in state for name in names), default="")


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES:,} more"
