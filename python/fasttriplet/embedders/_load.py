"""How a spec string such as ``mxnet:model,0`` becomes an embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fasttriplet.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fasttriplet.embedders._base import Embedder


class _Backend(NamedTuple):
    form: str
    example: str
    meaning: str


_BACKENDS = {
    "mxnet": _Backend("mxnet:PREFIX,EPOCH", "mxnet:models/model,0", "an MXNet checkpoint"),
    "npy": _Backend("npy:FILE", "npy:embeddings.npy", "embeddings computed before, rows in key order"),
    "pixels": _Backend("pixels", "pixels", "a baseline that needs no model"),
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
        Name of the network's embedding output, for instance ``"fc1"``; found by itself in most networks.

    Returns
    -------
    Embedder

    Raises
    ------
    SpecError
        If the spec is not one of the forms above, or an option does not apply to it; a ValueError.
    ValueError
        If a model is damaged or incomplete, or an option is out of its range.
    FileNotFoundError
        If a file of the model does not exist.
    ImportError
        If the backend's package is not installed.
    """
    text = os.fspath(spec)
    scheme, colon, rest = text.partition(":")
    options = {"batch_size": batch_size, "devices": devices, "output": output}
    given = [name for name, value in options.items() if value is not None]
    if given and scheme in ("npy", "pixels"):
        raise SpecError(f"{' and '.join(given)} cannot be given with {text!r}: there is no network to run")
    if scheme == "mxnet" and rest:
        from fasttriplet.mxnet._embedder import MXNetEmbedder, parse_spec  # noqa: PLC0415

        prefix, epoch, named = parse_spec(rest)
        if named is not None and output is not None and named != output:
            raise SpecError(f"two outputs are chosen: {named!r} in {text!r} and output={output!r}; give one")
        return MXNetEmbedder(prefix, epoch, output=output or named, batch_size=batch_size, devices=devices)
    if scheme == "npy" and rest:
        from fasttriplet.embedders._precomputed import PrecomputedEmbedder  # noqa: PLC0415

        return PrecomputedEmbedder(rest)
    if scheme == "pixels" and not colon:
        from fasttriplet.embedders._pixels import PixelEmbedder  # noqa: PLC0415

        return PixelEmbedder()
    raise SpecError(_unknown(text))


def _unknown(spec: str) -> str:
    """Why the spec cannot be used, with the spec that was probably meant."""
    scheme = spec.partition(":")[0]
    if ":" in spec and scheme in _BACKENDS:
        known = _BACKENDS[scheme]
        return f"{spec!r} is not of the form {known.form}, for example {known.example}"
    meant = _probably_meant(spec)
    if meant is not None:
        return f"{spec!r} does not say what it is; did you mean {meant!r}?"
    forms = "\n".join(f"  {b.form:<20} {b.meaning}, for example {b.example}" for b in _BACKENDS.values())
    return f"unknown embedder {spec!r}; known are\n{forms}"


def _probably_meant(spec: str) -> str | None:
    """Return the full spec when the user gave only a path or a prefix that exists."""
    if spec.endswith(".npy"):
        return f"npy:{spec}" if Path(spec).is_file() else None
    prefix, comma, epoch = spec.rpartition(",")
    if not comma:
        prefix, epoch = spec, ""
    if spec.endswith("-symbol.json"):
        prefix = spec.removesuffix("-symbol.json")
    elif spec.endswith(".params"):
        prefix, _, epoch = spec.removesuffix(".params").rpartition("-")
    if not Path(f"{prefix}-symbol.json").is_file():
        return None
    if not epoch.isdigit():
        from fasttriplet.mxnet._checkpoint import epochs_beside  # noqa: PLC0415

        epoch = str(max(epochs_beside(prefix), default=0))
    return f"mxnet:{prefix},{int(epoch)}"
