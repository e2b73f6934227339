"""What PyTorch's files are, looked at before PyTorch loads them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from fasttriplet._contents import check_regular

Kind = Literal["program", "script", "other"]

# PyTorch stores arrays as they are. A file that announces far more than it holds is made to fill memory.
_MOST_INFLATED = 100
# In a program, the folders of weights and constants, and what names of files there mean to PyTorch.
_PAYLOADS = ("data/weights/", "data/constants/")
_OBJECTS = ("custom_obj_", "opaque_obj_")
_COMPILED = "data/aotinductor/"


def kind_of(path: Path) -> Kind:
    """What a file holds, by the names in its archive: endings are the same for different things.

    A FileNotFoundError or another OSError if it is not a file, and a ValueError if it would fill the memory.
    """
    check_regular(path, "a file of PyTorch")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return "other"
    size, announced = path.stat().st_size, sum(entry.file_size for entry in entries)
    if announced > _MOST_INFLATED * size:
        raise ValueError(
            f"{path} is damaged: it has {size:,} bytes, and its entries announce {announced:,}; "
            "PyTorch does not write such files"
        )
    paths = [entry.filename.split("/") for entry in entries]
    names = {path[-1] for path in paths}
    if names & {"serialized_exported_program.json", "archive_format"}:
        return "program"
    folders = {part for path in paths for part in path[:-1]}
    return "script" if "code" in folders and "constants.pkl" in names else "other"


def check_no_code(path: Path) -> None:
    """Raise a ValueError if to load an exported program would run code that is in the file.

    ``torch.export.load`` unpickles example inputs, some kinds of weights, and constants that are objects, and
    it loads compiled libraries. Pickles of tensors alone, which those of example inputs are, hold no code:
    each is loaded as such, in the bytes that PyTorch will read.
    """
    for name, content in _pickles(path):
        try:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever keeps it from being one of tensors
            raise ValueError(
                f"{path} holds Python objects ({name}), and reading those runs code of whoever wrote the "
                "file. If you trust it, load it with torch.export.load, and give its module() to "
                "fasttriplet.torch.TorchEmbedder"
            ) from error


def _pickles(path: Path) -> Iterator[tuple[str, bytes]]:
    """The entries of a program that PyTorch unpickles, or would if it took the file for an older one.

    A RuntimeError if PyTorch cannot read the file.
    """
    with zipfile.ZipFile(path) as archive:
        before_2_8 = "serialized_exported_program.json" in archive.namelist()
        for name in archive.namelist():
            if name.startswith("serialized_") and name != "serialized_exported_program.json":
                yield name, archive.read(name)
    try:
        reader: Any = torch._C.PyTorchFileReader(str(path))
    except RuntimeError:
        if before_2_8:
            return
        raise
    names = reader.get_all_records()
    unpickled = {
        name for name in names if name.endswith(".pt") or name.rpartition("/")[2].startswith(_OBJECTS)
    }
    for name in names:
        if name.startswith(_COMPILED):
            raise ValueError(f"{path} holds compiled code ({name}); give a program of torch.export.save")
        if name.startswith(_PAYLOADS) and name.endswith(".json"):
            for payload in json.loads(reader.get_record(name))["config"].values():
                if payload["use_pickle"] or payload["path_name"].startswith(_OBJECTS):
                    unpickled.add(os.path.join(os.path.dirname(name), payload["path_name"]))  # noqa: PTH118, PTH120
    yield from ((name, content) for name in sorted(unpickled) if (content := reader.get_record(name)))
