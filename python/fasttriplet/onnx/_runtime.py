"""ONNX Runtime: its import, its devices, its sessions and its errors."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from fasttriplet._extras import how_to_install
from fasttriplet._forks import importing
from fasttriplet.embedders import _devices
from fasttriplet.embedders._batches import is_shortage

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_WORDS = _devices.Words("ONNX Runtime", "cuda")
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
        except ImportError as error:  # of one of its libraries
            raise ImportError(
                f"{module} is installed, but its import failed: {error}", name=module
            ) from error


def devices_of(wanted: str | Sequence[str] | None) -> list[str]:
    """The devices that a user names, such as ``["cuda:0", "cuda:1"]``; a ValueError if there are none.

    CUDA is not touched where ONNX Runtime is built without it: a process that has begun to use it cannot go
    on with that in a fork.
    """
    built = _CUDA in import_onnxruntime().get_available_providers()

    def why_none() -> str:
        if built:
            return "CUDA finds no GPU"
        return (
            "this ONNX Runtime is for the CPU only; for CUDA, uninstall the package onnxruntime and install "
            "onnxruntime-gpu"
        )

    return _devices.devices_of(wanted, _WORDS, lambda: gpus() if built else 0, why_none)


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

    A ValueError if the file is not a model that this ONNX Runtime runs; a MemoryError if it does not fit; a
    RuntimeError if the device cannot be used: it does not fall back to another one.
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
        if is_shortage(error):
            raise MemoryError(f"not enough memory to load {path} on {device}") from error
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
    load = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if load is not None:
        # It prints what it does not find, needed or not. To redirect stdout would silence other threads, too.
        silent = load.__globals__ | {"print": lambda *_: None}
        FunctionType(load.__code__, silent, load.__name__, load.__defaults__, load.__closure__)()


def is_of_runtime(error: Exception) -> bool:
    """Whether ONNX Runtime raised this. Its messages quote names in the model, which may not be UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        return True
    return type(error).__module__.startswith("onnxruntime") or "ONNXRuntimeError" in str(error)


def reason_of(error: Exception) -> str:
    """What an error of ONNX Runtime says, without its codes and places in C++, in one line."""
    return " ".join(_CODES.sub(" ", str(error)).split()).rstrip(".")
