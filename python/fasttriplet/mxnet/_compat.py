"""Imports MXNet 1.9.1 beside a NumPy that is newer than it, and shortens its errors."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np

from fasttriplet._cores import cores
from fasttriplet._extras import how_to_install
from fasttriplet._forks import importing


def import_mxnet() -> Any:
    """Import MXNet, whichever NumPy 1 is installed.

    It works around five obstacles:

    * MXNet 1.9.1 reads ``numpy.bool``, which NumPy 1.24 removed. The name exists while MXNet is being
      imported and is gone again afterwards, so that other packages see NumPy as it is.
    * Its import emits several ``DeprecationWarning``, fatal where warnings are errors.
    * Its oneDNN graph rewriting breaks some networks on the CPU ("We can't generate TBlob for MKLDNN data").
      ``MXNET_SUBGRAPH_BACKEND=NONE`` turns the rewriting off. MXNet reads the variable whenever a network is
      bound, so this also helps an MXNet that was imported before. A value that you have set is kept.
    * It uses half of the cores, as if each were two threads of one. During the import ``OMP_NUM_THREADS`` is
      the number of cores that this process may use, unless you have set it.
    * Where SciPy is installed, ``mx.nd.array`` asks it for a class by a name that warns and that SciPy 2 will
      not have. MXNet, and no other package, is given the class under that name.

    Raises
    ------
    ImportError
        If MXNet is not installed, NumPy is too new for it, or it does not load.
    """
    os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
    with importing():
        loaded = sys.modules.get("mxnet") is not None
        # waits where another thread is still importing it
        mxnet = importlib.import_module("mxnet") if loaded else _import()
        _give_classes_of_scipy(mxnet)
        return mxnet


def _import() -> Any:
    if int(np.__version__.partition(".")[0]) >= 2:
        raise ImportError(
            f"MXNet 1.9.1 does not work with NumPy {np.__version__}: it needs NumPy 1. "
            f"{how_to_install('mxnet')}",
            name="mxnet",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `hasattr` below warns, too, on NumPy 1.20 to 1.23
        lent = not hasattr(np, "bool")
        if lent:
            np.bool = bool  # type: ignore[attr-defined, unused-ignore]
        counted = "OMP_NUM_THREADS" not in os.environ
        if counted:
            os.environ["OMP_NUM_THREADS"] = str(cores())
        try:
            return importlib.import_module("mxnet")
        except ModuleNotFoundError as error:
            if error.name == "distutils":
                raise ImportError(
                    "MXNet 1.9.1 needs distutils, which Python 3.12 left out and setuptools brings. "
                    f"{how_to_install('mxnet')}",
                    name="mxnet",
                ) from error
            if error.name != "mxnet":
                raise
            raise ImportError(f"MXNet is not installed. {how_to_install('mxnet')}", name="mxnet") from None
        except OSError as error:  # of libmxnet.so, or of a library that it needs
            raise ImportError(
                f"MXNet is installed but does not load: {error}{_how_to_load(str(error))}", name="mxnet"
            ) from error
        finally:
            if lent:
                del np.bool  # type: ignore[attr-defined, unused-ignore]
            if counted:
                del os.environ["OMP_NUM_THREADS"]


def _how_to_load(reason: str) -> str:
    """What to do about an error of the dynamic loader."""
    if "cannot open shared object file" in reason:
        return ". Install the library that is missing with the package manager of your system"
    if "failed to map segment" in reason or "cannot allocate memory" in reason.lower():
        return ". There is too little memory for it; raise the limit on memory, if there is one (ulimit -v)"
    return ""


def _give_classes_of_scipy(mxnet: Any) -> None:
    """Let MXNet, but no other package, find SciPy's classes under the names that it knows."""
    for module in (mxnet.ndarray.utils, mxnet.ndarray.sparse):
        if (scipy := module.spsp) is not None:
            csr, coo = scipy.csr_matrix, scipy.coo_matrix
            module.spsp = SimpleNamespace(csr_matrix=csr, coo_matrix=coo, csr=SimpleNamespace(csr_matrix=csr))


def reason_of(error: Exception) -> str:
    """The line of an MXNet error that says what is wrong, without the C++ stack trace."""
    lines = [line for line in str(error).splitlines() if "rror" in line or "Check failed" in line]
    return (lines or [str(error)])[-1].strip()
