"""What the package replaces: the loops of InsightFace's `triplet_image_iter.py`, and that file itself."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What keeps the file from running today, and what stands there instead.
REPAIRS = {
    "import sklearn\n": "",  # for one function; see `batches`
    "import face_preprocess\n": "",  # a file that is gone, and is not used
    "np.NaN": "np.nan",  # NumPy 2
    "mx.gpu(i)": "mx.cpu(i)",
    "_list = range(*v)\n            random": "_list = list(range(*v))\n            random",  # Python 3
}


def mxnet() -> Any:
    """MXNet, however the checkout that runs calls the function that imports it."""
    homes = ("fasttriplet.mxnet", "fasttriplet.mxnet.compat")
    home = next(home for home in map(importlib.import_module, homes) if hasattr(home, "import_mxnet"))
    return home.import_mxnet()


def mining(embeddings: NDArray[np.float32], each: int, margin: float) -> int:
    """How it mines, in NumPy on the CPU: one row of distances at a time, then Python loops."""
    rng = np.random.default_rng(0)
    distances = np.empty((len(embeddings), len(embeddings)), dtype=np.float32)
    for i, row in enumerate(embeddings):
        distances[i] = np.square(embeddings - row).sum(axis=1)
    picked = 0
    for first in range(0, len(embeddings), each):
        for a in range(first, first + each - 1):
            to_negatives = distances[a].copy()
            to_negatives[first : first + each] = np.nan
            for p in range(a + 1, first + each):
                d_ap = distances[a, p]
                band = np.flatnonzero((to_negatives > d_ap) & (to_negatives - d_ap < margin))
                if len(band):
                    rng.integers(len(band))
                    picked += 1
    return picked


def loading(path: Path, keys: Sequence[int], shape: Sequence[int]) -> Callable[[], NDArray[np.float32]]:
    """How it loads images of a shape (H, W, C): read, decode, transpose and copy one at a time."""
    mx = mxnet()
    records = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")

    def load() -> NDArray[np.float32]:
        batch = np.empty((len(keys), shape[2], shape[0], shape[1]), np.float32)
        for row, key in enumerate(keys):
            _, content = mx.recordio.unpack(records.read_idx(key))
            image = mx.nd.transpose(mx.image.imdecode(content), axes=(2, 0, 1))
            batch[row] = image.asnumpy()
        return batch

    return load


def batches(source: Path, **options: Any) -> Generator[Any, None, None]:
    """Batches of all epochs from its `FaceImageIter`, repaired only so far that it runs."""

    def unit(rows: Any) -> Any:
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    text = source.read_text(encoding="utf-8")
    for broken, repaired in REPAIRS.items():
        if broken not in text:
            raise ValueError(f"{source} is another version: it has no {broken.strip()!r}")
        text = text.replace(broken, repaired)
    original = ModuleType("triplet_image_iter")
    original.__file__ = str(source)
    vars(original)["sklearn"] = SimpleNamespace(preprocessing=SimpleNamespace(normalize=unit))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints much
        exec(compile(text, str(source), "exec"), vars(original))
        iterator = original.FaceImageIter(shuffle=True, ctx_num=1, **options)
    while True:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                batch = iterator.next()
            except StopIteration:
                iterator.reset()
                continue
        yield batch
