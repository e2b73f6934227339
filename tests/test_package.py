"""The package's public names."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("room", ["", "mxnet", "torch", "onnx"])
def test_every_public_name_is_there(room: str, request: pytest.FixtureRequest) -> None:
    if room == "mxnet":
        request.getfixturevalue("mx")
    package = pytest.importorskip(f"fasttriplet.{room}".rstrip("."), exc_type=ImportError)
    homes = [name for names in getattr(package, "_HOMES", {}).values() for name in names]
    assert sorted(homes) == sorted(set(homes))
    assert set(homes) <= set(package.__all__) <= set(dir(package))
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        getattr(package, "nothing")  # noqa: B009


def test_importing_it_waits_for_nothing_heavy() -> None:
    code = (
        "import sys, fasttriplet as ft; heavy = {'numpy', 'polars', 'rich', 'mxnet', 'torch'}; "
        "assert not heavy & set(sys.modules); assert ft.mine; assert 'polars' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_pytorch_its_part_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("fasttriplet.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"needs PyTorch\. Install it.* pip install .*torch"):
        importlib.import_module("fasttriplet.torch")


@pytest.mark.parametrize(
    ("module", "spec"), [("torch", "torch:mxnet:model,0"), ("onnxruntime", "onnx:model.onnx")]
)
def test_a_framework_that_does_not_load_is_named(module: str, spec: str, tmp_path: Path) -> None:
    reason = "libparts.so: failed to map segment from shared object"
    (tmp_path / f"{module}.py").write_text(f"raise ImportError({reason!r})\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", f"import fasttriplet as ft; ft.load_embedder({spec!r})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[-1].endswith(f"is installed, but its import failed: {reason}")
