"""The two files of a network that was trained here: ``PREFIX.json`` describes it, ``PREFIX.safetensors``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fasttriplet._contents import describe_wrong_file
from fasttriplet._extras import how_to_install
from fasttriplet._files import naming, opened, publish
from fasttriplet._words import prefixing
from fasttriplet.torch._architecture import Architecture
from fasttriplet.torch._state import load_state, read_state
from torch import nn

WEIGHTS = ".safetensors"
ENDINGS = (".json", WEIGHTS)

_FORMAT = "fasttriplet network"
_VERSION = 1  # raised when older versions could not read it


def write_network(prefix: str, architecture: Architecture, network: nn.Module) -> None:
    """Write ``PREFIX.json`` and ``PREFIX.safetensors``, which appear when both are complete."""
    from safetensors.torch import save  # noqa: PLC0415  an extra

    plain = {"format": _FORMAT, "version": _VERSION, **architecture.to_dict()}
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":")) + "\n"
    state = {
        name: values.detach().cpu().contiguous().clone() for name, values in network.state_dict().items()
    }
    described, weights = _files_of(prefix)
    with opened(described, weights, overwrite=True) as (first, second):
        with naming(first):
            first.unfinished.write_text(text, encoding="utf-8")
        with naming(second):
            second.unfinished.write_bytes(save(state))  # save_file would make another file, with mode 0600
        publish(first, second)


def exists(prefix: str) -> bool:
    """Whether one of the two files is there."""
    return any(path.exists() for path in _files_of(prefix))


def read_network(prefix: str | os.PathLike[str]) -> tuple[Architecture, nn.Module]:
    """Read a trained network from its two files; the module is in evaluation mode, on the CPU."""
    if not os.fspath(prefix):
        raise ValueError("a network is read from PREFIX.json and PREFIX.safetensors, and the prefix is empty")
    described, weights = _files_of(prefix)
    for path in (described, weights):
        if not path.is_file():
            raise FileNotFoundError(f"no network at {prefix}: {path} is missing")
    try:
        plain = json.loads(described.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{described} is damaged: {error}") from error
    if not isinstance(plain, dict) or plain.pop("format", None) != _FORMAT:
        raise ValueError(describe_wrong_file(described, "the description of a network that was trained"))
    if (version := plain.pop("version", None)) != _VERSION:
        raise ValueError(f"{described} has the version {version!r}, and this fasttriplet reads {_VERSION}")
    with prefixing(str(described)):
        architecture = Architecture.from_dict(plain)
    numbers = sum(values.numel() for values in read_state(weights).values())
    try:
        network = architecture.make(numbers=2 * numbers)  # gammas that are fixed at 1 are not in the file
    except ValueError as error:
        raise ValueError(f"{described}: {error}") from error
    load_state(network, weights)
    return architecture, network.eval()


def load_network(prefix: str | os.PathLike[str]) -> nn.Module:
    """Load a network that :func:`fasttriplet.training.train_rec` trained with PyTorch.

    Networks by name and symbols of MXNet are modules as :func:`from_mxnet` makes them, and take images
    (B, 3, H, W) of float32 with RGB from 0 to 255. A network that a function makes is made by that function,
    of the module that was named for the training, and takes what it took then: ``(pixel - mean) / std``.

    Parameters
    ----------
    prefix : path
        Path without ``.json`` and ``.safetensors``.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU. It returns the embeddings, (B, D), not normalised, or all outputs of a
        network that has several.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If safetensors is not installed, or the module with the function cannot be imported.
    ValueError
        If a file is damaged, the files do not fit each other, or the function fails.

    Examples
    --------
    >>> from fasttriplet.torch import load_network
    >>> module = load_network("models/face-best")  # doctest: +SKIP
    """
    return read_network(prefix)[1]


def _files_of(prefix: str | os.PathLike[str]) -> tuple[Path, Path]:
    first, second = (Path(f"{os.fspath(prefix)}{ending}") for ending in ENDINGS)
    return first, second


def check_safetensors() -> None:
    """Raise an ImportError if the package for files of weights is missing."""
    try:
        import safetensors.torch  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(
            f"weights are files of safetensors, which is not installed. {how_to_install('torch')}",
            name="safetensors",
        ) from error
