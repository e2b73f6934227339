"""The file from which a training is resumed."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._contents import describe_wrong_file
from fasttriplet._files import replacing

_FORMAT = 2  # raised when older versions could not read it
_KIND = "the state of a training"
_PLAIN = ("batch", "verified", "best", "verify_on", "sums", "settings", "options", "network", "feed")
# Names that format 1 had for them.
_BEFORE = {"pairs": "verify_on", "metric": "sums", "how": "options", "symbol": "network"}


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that a training consists of, between two batches."""

    plain: dict[str, Any]  # what JSON can hold
    arrays: dict[str, NDArray[Any]]  # of the network, and `triplets`: those that are still to be handed out


def save_state(path: Path, state: State) -> None:
    """Write a state to an ``.npz`` file, which appears when it is complete."""
    text = json.dumps({"format": _FORMAT, **state.plain})
    plain = np.frombuffer(text.encode(), dtype=np.uint8)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as file:
        # np.savez would leave the file half closed when the disk is full.
        for name, array in {"plain": plain, **state.arrays}.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def load_state(path: Path) -> State:
    """Read a state: a FileNotFoundError if there is none, a ValueError if it is damaged or something else."""
    if not path.is_file():
        raise FileNotFoundError(f"no training to resume: there is no {path}")
    try:
        # np.load would not close a file that it opened and cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
        plain: dict[str, Any] = json.loads(arrays.pop("plain").tobytes())
        if plain.get("format") == 1:
            plain = {_BEFORE.get(name, name): value for name, value in plain.items()} | {"format": _FORMAT}
            plain["options"]["verify_on"] = plain["options"].pop("pairs")
    except Exception as error:  # whatever the formats' readers say of damage
        raise ValueError(describe_wrong_file(path, _KIND, magic=b"PK")) from error
    if plain.get("format") != _FORMAT:
        raise ValueError(f"{path} is not {_KIND} that this version can read")
    if missing := [name for name in _PLAIN if name not in plain] + ["triplets"] * ("triplets" not in arrays):
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}")
    return State(plain, arrays)
