"""The saved state of a module: from a file into a network that code has made."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch.nn.parameter import is_lazy

import torch
from fasttriplet._contents import check_regular, describe_wrong_file
from fasttriplet._extras import how_to_install
from fasttriplet._words import first_names
from fasttriplet.embedders._batches import is_shortage
from fasttriplet.torch._archives import kind_of

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
_MOST_NESTED = 8
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
    where = f"{path}{entry}"
    wanted = network.state_dict()
    # PyTorch counts batches there, and only for a training without a momentum.
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    prefix = _prefix(where, state, needed)
    own = {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
    # Beside its state, a training may keep numbers, such as that of its steps.
    others = [name for name in state if not name.startswith(prefix)]
    others += [prefix + name for name in own if name not in wanted and not _is_tensor(own[name])]
    missing = [name for name in wanted if name in needed and name not in own]
    unexpected = [name for name in own if name not in wanted and _is_tensor(own[name])]
    kind = type(network).__name__
    if missing or unexpected:
        lines = [
            f"{what}: {first_names(names)}"
            for what, names in (("it lacks", missing), ("unknown to the network", unexpected))
            if names
        ]
        raise ValueError(f"{where} does not fit {kind}; {'; '.join(lines)}")
    own = {name: values for name, values in own.items() if name in wanted}
    for name, values in own.items():
        if (fault := _fault(values, wanted[name])) is not None:
            raise ValueError(f"{where}: {prefix}{name} {fault[0]}, and {kind} needs {fault[1]}")
    try:
        network.load_state_dict(own, strict=False)  # the names were compared
    except Exception as error:  # a module may have code of its own for that
        raise ValueError(f"{where} does not fit {kind}: {str(error).strip()}") from error
    if prefix:
        where += f" without the prefix {prefix!r}"
    return f"{where}, not used: {first_names(others)}" if others else where


def read_state(path: Path) -> Mapping[str, Any]:
    """Read a ``.safetensors`` file, or what ``torch.save`` wrote, without running code that it may hold."""
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    check_regular(path, "a file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    kind_of(path)  # which refuses what would fill the memory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages in old files
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file may lead to any
        if is_shortage(error):
            raise MemoryError(f"not enough memory to load {path}") from error
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error).upper():
            raise ValueError(
                f"{path} holds Python objects, and reading those runs code of whoever wrote the file. If you "
                "trust it, load it with torch.load(FILE, weights_only=False) and save its state_dict()"
            ) from error
        raise ValueError(_damaged(path)) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state_dict")
    return found


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415  only for such files
        from safetensors.torch import load_file  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(f"{path}: safetensors is not installed. {how_to_install('torch')}") from error
    try:
        found: Mapping[str, Any] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{describe_wrong_file(path, 'a safetensors file')} ({error})") from error
    return found


def _damaged(path: Path) -> str:
    wrong = describe_wrong_file(path, "a file that torch.save wrote", magic=_ARCHIVE)
    with path.open("rb") as file:
        return f"{wrong}, or is damaged" if file.read(len(_ARCHIVE)) == _ARCHIVE else wrong


def _nested(path: Path, found: Mapping[Any, Any]) -> tuple[Mapping[str, Any], str]:
    """The state itself, and where it is in the file: "" or entries in brackets."""
    entry = ""
    for _ in range(_MOST_NESTED):
        inner = next((name for name in _NESTED if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            strange = [name for name in found if not isinstance(name, str)]
            if strange:
                raise ValueError(f"{path}{entry} has the key {strange[0]!r:.100}; names of weights are text")
            if not any(map(_is_tensor, found.values())):
                names = first_names(list(found)) or "none"
                raise ValueError(f"{path}{entry} holds no state_dict; its entries are: {names}")
            return found, entry
        found, entry = found[inner], f"{entry}[{inner!r}]"
    raise ValueError(f"{path}{entry} is nested deeper than any checkpoint, or holds itself")


def _prefix(where: str, state: Mapping[str, Any], needed: Set[str]) -> str:
    """What names of the file begin with and those of the network do not; "" if none fits.

    A ValueError if several prefixes fit equally well, as those of a teacher and a student do.
    """
    counts = Counter(
        name[:start]
        for name in state
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        if name[start:] in needed
    )
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if len(best) > 1:
        listed = first_names([repr(prefix) if prefix else "no prefix" for prefix in best])
        raise ValueError(
            f"{where} holds weights for the network several times, with the prefixes {listed}; save those "
            "that are meant in a file of their own"
        )
    return best[0] if best else ""


def _is_tensor(values: object) -> bool:
    return isinstance(values, torch.Tensor)


def _fault(values: Any, needed: Any) -> tuple[str, str] | None:
    """What a weight is and what it has to be; None if it fits. Extra state of modules may be anything."""
    if _is_tensor(values) != _is_tensor(needed):
        what = "a tensor" if _is_tensor(needed) else f"a {type(needed).__name__}"
        return f"is a {type(values).__name__}", what
    if not _is_tensor(needed) or is_lazy(needed) or values.shape == needed.shape:
        return None
    return f"has the shape {tuple(values.shape)}", str(tuple(needed.shape))
