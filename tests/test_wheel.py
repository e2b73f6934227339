"""The wheel of `make wheel`, in clean environments: with NumPy 1, which MXNet needs, and with NumPy 2."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CODE = """
import sys
from pathlib import Path
import numpy as np
import fasttriplet as ft
from tests.small_rec import identities, write_rec

assert np.__version__.startswith(sys.argv[1]), np.__version__
assert Path(ft.__file__).is_relative_to(sys.prefix), ft.__file__
rec = write_rec(Path("train.rec"), identities(12, 6))
index = ft.index_rec(rec)
assert index.height == 72
images = ft.RecordFile(rec).decode(index["key"])
assert images.shape == (72, 24, 24, 3)
embeddings = images.reshape(72, -1).astype(np.float32)
anchor, positive, negative = ft.mine(embeddings, index["label"], band="any")
assert len(anchor) == len(positive) == len(negative) == 12 * 15
try:
    ft.load_embedder("mxnet:model,0")
except ImportError as error:
    assert f"{sys.executable} -m pip install mxnet==1.9.1 'numpy" in str(error), error
    assert ("needs NumPy 1" in str(error)) == (sys.argv[1] == "2"), error
else:
    raise AssertionError("MXNet in a clean environment?")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel() -> Path:
    found = sorted((CHECKOUT / "dist").glob("fasttriplet-*.whl"))
    if len(found) != 1:
        pytest.skip("`make wheel` leaves one wheel in dist/")
    return found[0]


def test_it_fits_every_python_from_3_11_on_and_holds_types_and_license(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as opened:
        names = {name.partition("/")[2] for name in opened.namelist() if name.startswith("fasttriplet/")}
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in opened.namelist())
    assert {"py.typed", "_core.pyi", "_core.abi3.so", "reporting/style.css", "reporting/script.js"} <= names
    package = CHECKOUT / "python" / "fasttriplet"
    sources = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


@pytest.mark.parametrize("numpy", ["1", "2"])
def test_it_works_in_a_clean_environment(wheel: Path, numpy: str, tmp_path: Path) -> None:
    """Fetches packages."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    bin_ = tmp_path / "venv" / "bin"
    install: list[str | Path] = [
        bin_ / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        wheel,
        f"numpy=={numpy}.*",
    ]
    subprocess.run(install, check=True, timeout=900)

    def run(*words: str | Path) -> str:
        here = os.environ | {"PYTHONPATH": str(tmp_path / "helpers")}
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env=here
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "tests").symlink_to(CHECKOUT / "tests")  # without the package beside them
    run(bin_ / "python", "-W", "error", "-c", CODE, numpy)
    assert "mine" in run(bin_ / "fasttriplet", "--help")
    run(bin_ / "fasttriplet", "mine", "--rec", "train.rec", "--out", "triplets.parquet")
    assert (tmp_path / "triplets.parquet").exists()
