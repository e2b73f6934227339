"""The package beside NumPy 2: developers have NumPy 1 here, which MXNet needs; users of the core may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CODE = """
from pathlib import Path
import numpy as np
import fasttriplet as ft
from tests.small_rec import identities, write_rec

assert np.__version__.startswith("2."), np.__version__
rec = write_rec(Path("train.rec"), identities(12, 6))
index = ft.index_rec(rec)
assert index.height == 72
images = ft.RecordFile(rec).decode(index["key"])
assert images.shape == (72, 24, 24, 3)
embeddings = images.reshape(72, -1).astype(np.float32)
anchor, positive, negative = ft.mine(embeddings, index["label"], band="any")
assert len(anchor) == len(positive) == len(negative) == 12 * 15
result = ft.mine_rec(rec, out="triplets.parquet")
assert result.triplets.collect().height == result.summary.triplets > 0
try:
    ft.load_embedder("mxnet:model,0")
except ImportError as error:
    assert "needs NumPy 1" in str(error), error
else:
    raise AssertionError("MXNet beside NumPy 2?")
"""


@pytest.mark.slow
def test_index_decode_and_mine_beside_numpy_2(tmp_path: Path) -> None:
    """Installs the checkout as a user would; fetches packages."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", CHECKOUT, "numpy>=2"]
    subprocess.run(install, check=True, timeout=900)
    subprocess.run(
        [python, "-W", "error", "-c", CODE],
        check=True,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
