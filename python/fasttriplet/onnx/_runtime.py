"""ONNX Runtime: its import, its devices, its sessions and its errors."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fasttriplet._extras import how_to_install
from fasttriplet._forks import importing
from fasttriplet.errors import OptionError

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FATAL = 4  # what is less arrives as an exception, which would be printed a second time
# What is not for users in "[ONNXRuntimeError] : 1 : FAIL : failed:/src/model.cc:181 Model::Model(const Path&)
# Unsupported" and "utils.cc:7 Read External data".
_CODES = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|/\S+\.(?:cc|h|cu):\d+ [^()]*\((?:[^()]|\([^()]*\))*\) "
    r"|\w+\.(?:cc|h|cu):\d+ \w+ "
)
_alive: weakref.WeakSet[Any] = weakref.WeakSet()  # sessions


def import_onnxruntime() -> Any:
    """Import ONNX Runtime; an ImportError that says how to install it where it is missing.

    From 1.29 on it reports what it runs, and on what, to its makers, and its thread for that lets forks hang
    when they end. ``ORT_DISABLE_TELEMETRY=1`` turns that off, unless you have set another value, or have
    imported ONNX Runtime before.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return _import("onnxruntime", "ONNX Runtime")


def import_onnx() -> Any:
    """Import the package that reads ONNX files; an ImportError that says how to install it."""
    return _import("onnx", "The package onnx, which reads the files,")


def _import(module: str, name: str) -> Any:
    with importing():
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise ImportError(f"{name} is not installed. {how_to_install('onnx')}", name=module) from None


def devices_of(wanted: str | Sequence[str] | None) -> list[str]:
    """The devices that a user names, such as ``["cuda:0", "cuda:1"]``; a ValueError if there are none."""
    built = _CUDA in import_onnxruntime().get_available_providers()
    if wanted is None:
        wanted = "cuda" if built and gpus() else "cpu"
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if names == ["cpu"]:
        return names
    numbers: list[int] = []
    for name in names:
        match = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", name)
        if not match:
            raise OptionError("devices", f"must be 'cpu', 'cuda', or GPUs such as 'cuda:0,2', not {wanted!r}")
        numbers += map(int, match[1].split(",")) if match[1] else range(gpus())
    if not built:
        raise ValueError(
            f"devices={wanted!r}: this ONNX Runtime is for the CPU only; for CUDA, uninstall the package "
            "onnxruntime and install onnxruntime-gpu"
        )
    if not gpus():
        raise ValueError(f"devices={wanted!r}: CUDA finds no GPU")
    if not numbers or max(numbers) >= gpus() or len(set(numbers)) != len(numbers):
        raise OptionError(
            "devices", f"must name each GPU once, numbered from 0 to {gpus() - 1}, not {wanted!r}"
        )
    return [f"cuda:{number}" for number in numbers]


def gpus() -> int:
    """How many GPUs CUDA's driver shows to this process; ONNX Runtime does not tell."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    found = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0


def session_on(path: Path, device: str, content: bytes | None) -> Any:
    """Load a model for one device; its `content` if that is given, else its file.

    A ValueError if the file is not a model that this ONNX Runtime runs; a RuntimeError if the device cannot
    be used: it does not fall back to another one.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.use_deterministic_compute = True
    options.intra_op_num_threads = 1  # each batch has its own thread, see `deal`
    providers: list[Any] = [_CPU]
    if device != "cpu":
        # Not the algorithms that are fastest in a trial, which differ from run to run, nor TF32's 10 bits.
        exact = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        providers.insert(0, (_CUDA, {"device_id": device.removeprefix("cuda:"), **exact}))
        _load_cuda(ort)
    try:
        session = ort.InferenceSession(content or str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # of a dozen classes, whose only common base is this
        if not is_of_runtime(error):
            raise
        raise ValueError(
            f"{path}: ONNX Runtime {ort.__version__} does not load it on {device}: {reason_of(error)}"
        ) from error
    if device != "cpu" and _CUDA not in session.get_providers():
        raise RuntimeError(
            f"{path}: ONNX Runtime {ort.__version__} cannot use {device}: its CUDA provider does not load. "
            "Are CUDA and cuDNN of the versions that it needs installed? For the CPU, give devices='cpu'"
        )
    _alive.add(session)
    return session


def _keep_for_ever() -> None:
    """Let no session be freed: it would wait for its threads, which a fork does not copy."""
    for session in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_keep_for_ever)


def _load_cuda(ort: Any) -> None:
    """Load CUDA's libraries from the packages of PyPI, where ONNX Runtime itself does not look."""
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, needed or not
            ort.preload_dlls()


def is_of_runtime(error: Exception) -> bool:
    """Whether ONNX Runtime raised this."""
    return type(error).__module__.startswith("onnxruntime") or "ONNXRuntimeError" in str(error)


def reason_of(error: Exception) -> str:
    """What an error of ONNX Runtime says, without its codes and places in C++, in one line."""
    return " ".join(_CODES.sub(" ", str(error)).split()).rstrip(".")
