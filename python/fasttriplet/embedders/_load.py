"""How a spec string such as ``mxnet:model,0`` becomes an embedder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, cast

from fasttriplet._forks import importing
from fasttriplet.embedders._base import Embedder
from fasttriplet.errors import OptionError, SpecError


class _Backend(NamedTuple):
    """A scheme, and where its embedders are made."""

    form: str
    example: str
    meaning: str
    # It has `from_spec(text, **options)`, which takes what comes after the colon. It may have
    # `spec_of(path)`: the spec that was meant by a path alone, or None.
    module: str
    runs_network: bool = False

    def load(self) -> Any:
        with importing():
            return import_module(f"fasttriplet.{self.module}")


_BACKENDS = {
    "mxnet": _Backend(
        "mxnet:PREFIX,EPOCH", "mxnet:models/model,0", "an MXNet checkpoint", "mxnet._embedder", True
    ),
    "onnx": _Backend("onnx:FILE.onnx", "onnx:models/r50.onnx", "an ONNX model", "onnx._embedder", True),
    "npy": _Backend(
        "npy:FILE",
        "npy:embeddings.npy",
        "embeddings computed before, rows in key order",
        "embedders._precomputed",
    ),
    "pixels": _Backend("pixels", "pixels", "a baseline that needs no model", "embedders._pixels"),
}


def load_embedder(
    spec: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    devices: str | Sequence[str] | None = None,
    output: str | None = None,
) -> Embedder:
    """Make the embedder that a spec string describes.

    Parameters
    ----------
    spec : str
        ``mxnet:PREFIX,EPOCH`` (the files ``PREFIX-symbol.json`` and ``PREFIX-0000.params`` for epoch 0),
        ``mxnet:PREFIX,EPOCH,output=NAME`` to choose the output, ``npy:FILE`` or ``pixels``.
    batch_size : int, optional
        Images per forward pass of a network. By default 64 on the CPU and 128 for each GPU.
    devices : str or sequence of str, optional
        Where a network runs: ``"cpu"``, ``"gpu"`` (all of them), ``"gpu:0,2"``, or a list such as
        ``["gpu:0", "gpu:2"]``. By default all GPUs, or the CPU where there is none.
    output : str, optional
        Name of the network's embedding output, for instance ``"fc1"``. Most networks need none: it is found.

    Returns
    -------
    Embedder

    Raises
    ------
    SpecError
        If the spec is not one of the forms above; a ValueError.
    OptionError
        If an option does not apply to the spec, or is out of its range; a ValueError.
    ValueError
        If a model is damaged or incomplete.
    FileNotFoundError
        If a file of the model does not exist.
    ImportError
        If the backend's package is not installed.
    """
    text = os.fspath(spec)
    scheme, colon, rest = text.partition(":")
    given = {"batch_size": batch_size, "devices": devices, "output": output}
    options = {name: value for name, value in given.items() if value is not None}
    backend = _BACKENDS.get(scheme)
    if backend is not None and options and not backend.runs_network:
        raise OptionError(next(iter(options)), f"cannot be given with {text!r}: there is no network to run")
    if backend is None or (not colon and ":" in backend.form):
        raise SpecError(_unknown(text))
    if bool(rest) != (":" in backend.form) or bool(rest) != bool(colon):
        raise SpecError(f"{text!r} is not of the form {backend.form}, for example {backend.example}")
    return cast(Embedder, backend.load().from_spec(rest, **options))


def _unknown(spec: str) -> str:
    """Say that a spec names no scheme, and which spec was probably meant."""
    for backend in _BACKENDS.values():
        spec_of = getattr(backend.load(), "spec_of", None)
        if spec_of is not None and (meant := spec_of(spec)) is not None:
            return f"{spec!r} does not say what it is; did you mean {meant!r}?"
    forms = "\n".join(f"  {b.form:<20} {b.meaning}, for example {b.example}" for b in _BACKENDS.values())
    return f"unknown embedder {spec!r}; known are\n{forms}"
