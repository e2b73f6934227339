"""How a spec string such as ``mxnet:model,0`` becomes an embedder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from fasttriplet._checks import output_name
from fasttriplet._forks import importing
from fasttriplet.checkpoint._checkpoint import spec_of
from fasttriplet.embedders._base import EMBEDDER_HAS, Embedder, faults_of
from fasttriplet.errors import OptionError, SpecError


class _Form(NamedTuple):
    """One form of a spec."""

    form: str
    example: str
    meaning: str


class _Backend(NamedTuple):
    """A scheme, and where its embedders are made."""

    forms: tuple[_Form, ...]
    # It has `from_spec(text, **options)`, which takes what comes after the colon.
    module: str
    endings: tuple[str, ...] = ()  # of files that the scheme takes
    runs_network: bool = False

    def load(self) -> Any:
        with importing():
            return import_module(f"fasttriplet.{self.module}")

    @property
    def takes_text(self) -> bool:
        return ":" in self.forms[0].form


_BACKENDS = {
    "mxnet": _Backend(
        (_Form("mxnet:PREFIX,EPOCH", "mxnet:models/model,0", "an MXNet checkpoint, run by MXNet"),),
        "mxnet._embedder",
        runs_network=True,
    ),
    "torch": _Backend(
        (
            _Form(
                "torch:mxnet:PREFIX,EPOCH",
                "torch:mxnet:models/model,0",
                "an MXNet checkpoint, run by PyTorch",
            ),
            _Form("torch:PREFIX", "torch:models/face", "a network that `train` made with PyTorch"),
            _Form("torch:FILE", "torch:r50.pt2", "a network saved by torch.export or as TorchScript"),
            _Form(
                "torch:PACKAGE.MODULE:FACTORY",
                "torch:mynet:iresnet50,weights=r50.safetensors",
                "a PyTorch module that a function makes",
            ),
        ),
        "torch._embedder",
        (".pt2", ".pt", ".pth"),
        runs_network=True,
    ),
    "onnx": _Backend(
        (_Form("onnx:FILE.onnx", "onnx:models/r50.onnx", "an ONNX model"),),
        "onnx._embedder",
        (".onnx",),
        runs_network=True,
    ),
    "python": _Backend(
        (_Form("python:PACKAGE.MODULE:NAME", "python:mynet:Embedder", "an embedder of your own"),),
        "embedders._python",
    ),
    "npy": _Backend(
        (
            _Form(
                "npy:FILE", "npy:embeddings.npy", "embeddings computed before, one row per image in key order"
            ),
        ),
        "embedders._precomputed",
        (".npy",),
    ),
    "pixels": _Backend((_Form("pixels", "pixels", "a baseline that needs no model"),), "embedders._pixels"),
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
        What the embedder is, by its scheme:

        * ``mxnet:PREFIX,EPOCH``, an MXNet checkpoint: ``PREFIX-symbol.json`` and, for epoch 0,
          ``PREFIX-0000.params``. ``torch:mxnet:PREFIX,EPOCH`` runs it with PyTorch, without MXNet;
        * ``torch:PREFIX``: a network that ``fasttriplet train`` trained with PyTorch, ``PREFIX.json`` and
          ``PREFIX.safetensors``;
        * ``torch:FILE``: what ``torch.export.save`` wrote (``.pt2``), or TorchScript (``.pt``);
        * ``torch:PACKAGE.MODULE:FACTORY``: the ``torch.nn.Module`` that this function returns;
          ``,weights=FILE`` loads a ``.safetensors`` file or a saved ``state_dict`` into it;
        * ``onnx:FILE.onnx``: an ONNX model;
        * ``python:PACKAGE.MODULE:NAME``: an :class:`Embedder` of your own, or what makes one when it is
          called without arguments;
        * ``npy:FILE``: embeddings that were computed before, one row per image in key order;
        * ``pixels``: a baseline that needs no model.

        Modules are looked for in the current folder first. A spec of a network may end in options,
        ``,name=value``. ``output`` chooses the output. For PyTorch and ONNX, ``color`` (``rgb`` or ``bgr``),
        ``mean`` and ``std`` (a number, or three as in ``104/117/123``) and ``size`` (``112x112``, height
        first) say what the network expects: by default RGB, ``(pixel - 127.5) / 128``, unless the file says
        something else. MXNet's networks get RGB 0..255 and normalise it themselves. ``precision=tf32`` and
        ``precision=bfloat16`` (or ``bf16``) make PyTorch faster and less exact.
    batch_size : int, optional
        Images that a network is given at a time, on each device. By default what suits the framework on the
        CPU (64 for MXNet, 16 for PyTorch, 8 for ONNX Runtime), and 128 on a GPU.
    devices : str or sequence of str, optional
        Where a network runs: ``"cpu"``, or GPUs in the words of the framework: ``"gpu"`` (all of them) or
        ``"gpu:0,2"`` for MXNet, ``"cuda"`` or ``"cuda:0,2"`` for PyTorch and ONNX Runtime, and ``"mps"`` for
        PyTorch. A list such as ``["cuda:0", "cuda:2"]`` will do. By default all GPUs (``"mps"`` only if it is
        named), or the CPU where there is none.
    output : str, optional
        The embedding among the outputs of a network: a name such as ``"fc1"``, or a number where outputs have
        no names. Most networks need none.

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
        If the framework is not installed, or a module of the user's cannot be imported.
    """
    text = os.fspath(spec)
    scheme, colon, rest = text.partition(":")
    given = {"batch_size": batch_size, "devices": devices, "output": output}
    options = {name: value for name, value in given.items() if value is not None}
    output_name(output)
    backend = _BACKENDS.get(scheme)
    if backend is not None and options and not backend.runs_network:
        raise OptionError(next(iter(options)), f"cannot be given with {text!r}: there is no network to run")
    if backend is None or (not colon and backend.takes_text):
        raise SpecError(_unknown(text))
    if bool(rest) != backend.takes_text or bool(rest) != bool(colon):
        forms = ", ".join(form.form for form in backend.forms)
        raise SpecError(f"{text!r} is not of the form {forms}, for example {backend.forms[0].example}")
    return cast(Embedder, backend.load().from_spec(rest, **options))


def embedder_of(model: str | Embedder) -> Embedder:
    """Return the embedder that a user gives as `model`, or as its spec."""
    if isinstance(model, str):
        return load_embedder(model)
    if isclass(model):
        raise OptionError("model", f"must be an embedder, not a class of them; give {model.__name__}(...)")
    if faults := faults_of(model):
        kind = type(model)
        is_module = any(base.__module__ == "torch.nn.modules.module" for base in kind.__mro__)
        hint = "fasttriplet.torch.TorchEmbedder(module) makes one of it" if is_module else EMBEDDER_HAS
        raise OptionError(
            "model",
            f"must be a spec, such as 'onnx:model.onnx', or an embedder, but a {kind.__name__} "
            f"{' and '.join(faults)}; {hint}",
        )
    return model


def runs_network(spec: str) -> bool:
    """Whether a spec is of an embedder that runs a network, on devices."""
    backend = _BACKENDS.get(spec.partition(":")[0])
    return backend is not None and backend.runs_network


def _unknown(spec: str) -> str:
    """Say that a spec names no scheme, and which spec was probably meant."""
    if (meant := _meant(spec)) is not None:
        return f"{spec!r} does not say what it is; did you mean {meant!r}?"
    forms = [form for backend in _BACKENDS.values() for form in backend.forms]
    width = max(len(form.form) for form in forms)
    lines = (f"  {form.form:<{width}}  {form.meaning}, for example {form.example}" for form in forms)
    return "\n".join([f"unknown embedder {spec!r}; known are", *lines])


def _meant(spec: str) -> str | None:
    """The full spec of a file or a checkpoint that exists, or of a function in a module."""
    for scheme, backend in _BACKENDS.items():
        if spec.endswith(backend.endings or ("\0",)) and Path(spec).is_file():
            return f"{scheme}:{spec}"
    if spec.endswith(".safetensors") and Path(spec).is_file():
        return f"torch:PACKAGE.MODULE:FACTORY,weights={spec}"
    meant = spec_of(spec)
    if meant is not None and find_spec("mxnet") is None:
        return f"torch:{meant}"
    return meant
