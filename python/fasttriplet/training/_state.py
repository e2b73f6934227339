"""The file from which a training is resumed: an ``.npz`` of arrays, one of which, ``plain``, is JSON."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._contents import describe_wrong_file
from fasttriplet._files import replacing
from fasttriplet.dataset._options import MAX_PIXELS
from fasttriplet.run._running import ARRAYS
from fasttriplet.training._fields import check_fields

_FORMAT = 7  # raised when older versions could not read it
_KIND = "the state of a training"
# Names that format 1 had for fields.
_BEFORE = {"pairs": "verify_on", "metric": "sums", "how": "options", "symbol": "network"}
# Settings that states before a format may lack, with the values that they stand for.
_ADDED: dict[int, dict[str, Any]] = {
    3: {
        "labels": None,
        "cache": True,
        "max_pixels": MAX_PIXELS,
        "metric": "sqeuclidean",
        "normalize": True,
        "loss_margin": None,
    },
    4: {
        "framework": "mxnet",
        "optimizer": "sgd",
        "clip_norm": None,
        "lr_schedule": "steps",
        "lr_end": None,
        "warmup": 0,
        "precision": "float32",
    },
    5: {"exclude": None, "exclude_kinds": None},
    6: {"neighbors": None, "random_share": 0.0},
    7: {"refresh_epochs": 1},
}
_LONGEST_HEAD = 10 + 2**16
ADVICE = "Resume from a copy that is whole, or begin another training with overwrite=True"


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that a training consists of, between two batches."""

    plain: dict[str, Any]  # what JSON can hold
    arrays: dict[str, NDArray[Any]]  # of the network and of the feed

    @property
    def new(self) -> bool:
        """Whether nothing has happened yet, so that files beside it may be of a training that it replaces."""
        return bool(self.plain["batch"] == 0 and self.plain["verified"] < 0)


def of_feed(state: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a feed: triplets that are still to be handed out, and a running graph if it has one."""
    return {name: state[name] for name in ("triplets", *ARRAYS) if name in state}


def save_state(path: Path, state: State) -> None:
    """Write a state, which appears when it is complete; equal states are equal files."""
    text = json.dumps({"format": _FORMAT, **state.plain})
    plain = np.frombuffer(text.encode(), dtype=np.uint8)
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as file:
        # np.savez would leave the file half closed when the disk is full.
        for name, array in {"plain": plain, **state.arrays}.items():
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def load_state(path: Path) -> State:
    """Read a state: a FileNotFoundError if there is none, a ValueError if it is damaged or something else.

    Whatever is in the file, no code of it is run, and no more memory is taken than the file is large.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no training to resume: there is no {path}")
    try:
        with path.open("rb") as opened, zipfile.ZipFile(opened) as file:
            arrays = _arrays(file, path.stat().st_size)
            text = arrays.pop("plain", np.empty(0)).tobytes().decode()
            plain: Any = json.loads(text, object_pairs_hook=_fields)
    except MemoryError:
        raise
    except Exception as error:  # whatever the formats' readers say of damage
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a wrong place in a file
            raise OSError(error.errno, error.strerror, str(path)) from error
        wrong = describe_wrong_file(path, _KIND, magic=b"PK")
        raise ValueError(f"{wrong}: {error}. {ADVICE}") from error
    try:
        return State(_current(plain, arrays), arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {ADVICE}") from error


def _arrays(file: zipfile.ZipFile, size: int) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    if sum(member.file_size for member in file.infolist()) > size:
        raise ValueError("its arrays are larger than the file")
    for member in file.infolist():
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"{name} is there twice")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        content = memoryview(file.read(member))
        head = io.BytesIO(content[:_LONGEST_HEAD])
        if np.lib.format.read_magic(head) != (1, 0):  # type: ignore[no-untyped-call]
            raise ValueError(f"{name} is not in version 1.0 of the format of arrays")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(head)  # type: ignore[no-untyped-call]
        if dtype.kind not in "iuf":
            raise ValueError(f"{name} holds {dtype} and not numbers")
        values = np.frombuffer(content[head.tell() :], dtype)
        found[name] = values.reshape(shape, order="F" if by_columns else "C")
    return found


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field of its JSON is there twice")
    return fields


def _current(plain: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Check all fields, and return them as this format has them."""
    if not isinstance(plain, dict):
        raise ValueError(f"its JSON must be an object, not {plain!r:.100}")
    version = plain.pop("format", None)
    if type(version) is not int or version < 1:
        raise ValueError(f"format must be a whole number >= 1, not {version!r}")
    if version > _FORMAT:
        raise ValueError(
            f"format {version} is of a later version of fasttriplet, and this one reads up to {_FORMAT}"
        )
    if version == 1:
        plain = {_BEFORE.get(name, name): value for name, value in plain.items()}
        if isinstance(plain.get("options"), dict):
            options = plain["options"]
            plain["options"] = {_BEFORE.get(name, name): value for name, value in options.items()}
    if version < 3:
        plain = {"log": 2**53, **plain}  # all of it
    if version < 4 and isinstance(plain.get("options"), dict):
        plain["options"] = {"export": [], **plain["options"]}
    for format_with, added in _ADDED.items():
        if version < format_with and isinstance(plain.get("settings"), dict):
            plain["settings"] = {**added, **plain["settings"]}
    check_fields(plain, arrays)
    return dict(plain)
