"""The import shim: MXNet loads beside any NumPy 1, and nothing of it is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from fasttriplet._cores import cores
from fasttriplet.mxnet import _compat as compat

_OF_MXNET = ("MXNET_SUBGRAPH_BACKEND", "OMP_NUM_THREADS")


def run(code: str, **environment: str) -> str:
    """What `code` prints in a fresh interpreter where warnings are errors."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_MXNET}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def without_mxnet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mxnet"]:
        monkeypatch.delitem(sys.modules, name)


def test_importing_the_package_does_not_import_mxnet() -> None:
    code = """
        import sys
        import fasttriplet
        from fasttriplet.mxnet import import_mxnet, small_convnet, triplet_loss
        from fasttriplet.training import train_rec
        print("mxnet" in sys.modules)
    """
    assert run(code) == "False"


# An import of MXNet takes two seconds of a core, so a process answers several questions.
@pytest.mark.heavy
@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
@pytest.mark.parametrize(
    "chosen", [{}, {"MXNET_SUBGRAPH_BACKEND": "MKLDNN", "OMP_NUM_THREADS": "1"}], ids=str
)
def test_import_leaves_numpy_and_warnings_and_chooses_what_is_not_chosen(chosen: dict[str, str]) -> None:
    """Graph rewriting is off, and all cores are used, unless the environment says otherwise."""
    code = """
        import ctypes, os, warnings
        import numpy
        before = "bool" in vars(numpy), list(warnings.filters)
        from fasttriplet.mxnet import import_mxnet
        mxnet = import_mxnet()
        assert mxnet is import_mxnet()
        assert before == ("bool" in vars(numpy), list(warnings.filters)), before
        print(mxnet.nd.array(numpy.array([1.5])).asnumpy())
        import mxnet.libinfo
        library = ctypes.CDLL(mxnet.libinfo.find_lib_path()[0])
        print(os.environ["MXNET_SUBGRAPH_BACKEND"])
        print(library.omp_get_max_threads(), os.environ.get("OMP_NUM_THREADS"))
    """
    threads = chosen.get("OMP_NUM_THREADS")
    assert run(code, **chosen).splitlines() == [
        "[1.5]",
        chosen.get("MXNET_SUBGRAPH_BACKEND", "NONE"),
        f"{threads or cores()} {threads}",
    ]


@pytest.mark.heavy
@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_import_works_after_a_failed_import() -> None:
    code = """
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import mxnet
            except AttributeError:
                pass
        from fasttriplet.mxnet import import_mxnet
        print(import_mxnet().nd.ones(2).asnumpy())
    """
    assert run(code) == "[1. 1.]"


@pytest.mark.mxnet
def test_matrices_of_scipy_are_taken_and_given_without_a_warning(mx: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_matrix(np.array([[0, 1.5], [2, 0]], np.float32))
    for array in (mx.nd.array(matrix), mx.nd.sparse.array(matrix), mx.nd.sparse.csr_matrix(matrix)):
        assert array.stype == "csr"
        assert (array.asscipy() != matrix).nnz == 0
    assert mx.nd.array(np.ones(2)).stype == "default"


@pytest.mark.usefixtures("without_mxnet")
def test_numpy_2_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.4.1")
    with pytest.raises(ImportError, match=r"NumPy 2\.4\.1.*[Ii]nstall.*mxnet"):
        compat.import_mxnet()


@pytest.mark.usefixtures("without_mxnet")
def test_missing_mxnet_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = "bool" in vars(np)
    monkeypatch.setitem(sys.modules, "mxnet", None)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    with pytest.raises(ImportError, match=r"MXNet is not installed\. .*[Ii]nstall.*mxnet"):
        compat.import_mxnet()
    assert ("bool" in vars(np)) == before


@pytest.mark.usefixtures("without_mxnet")
def test_python_3_12_without_setuptools_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'distutils'", name="distutils")

    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ImportError, match=r"needs distutils, .* setuptools brings\. Install it"):
        compat.import_mxnet()


@pytest.mark.usefixtures("without_mxnet")
@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("libx.so: cannot open shared object file: No such file or directory", "Install the library that"),
        ("libx.so: failed to map segment from shared object", r"too little memory .* \(ulimit -v\)"),
        ("libx.so: cannot allocate memory in static TLS block", r"too little memory .* \(ulimit -v\)"),
        ("libx.so: undefined symbol: x", None),
    ],
)
def test_broken_installation_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, reason: str, advice: str | None
) -> None:
    def fail(_name: str) -> None:
        raise OSError(reason)

    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr("importlib.import_module", fail)
    ending = "$" if advice is None else rf"\. .*{advice}"
    with pytest.raises(ImportError, match=f"does not load: {reason}{ending}"):
        compat.import_mxnet()
