"""The embeddings of a dataset: computed once, and kept in the folder of an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasttriplet._files import naming, opened, publish
from fasttriplet._words import counted, naming_file
from fasttriplet.auditing._pictures import Looks
from fasttriplet.auditing._survey import Progress, Survey
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.embedders import Embedder

NAME, ABOUT = "embeddings.npy", "embeddings.json"
_KIND, _VERSION = "embeddings", 1

# Images that are embedded again to see whether a kept file is of this model, and how far their vectors may be
# from those in the file, relative to their norms. Another device or precision gives up to 0.005.
_PROBED = 32
_SAME = 0.01


class Kept:
    """Whether the folder has the embeddings of this dataset and model.

    Attributes
    ----------
    vectors : (N, D) float32, mapped, or None
        NaN where an image has none.
    why_not : str or None
        What is wrong with the file that is there; None if there is none.
    """

    def __init__(self, folder: Path, dataset: Dataset, survey: Survey) -> None:
        self.vectors: NDArray[np.float32] | None = None
        self.why_not: str | None = None
        if (folder / NAME).exists():
            self.why_not = self._read(folder, dataset, survey)

    def _read(self, folder: Path, dataset: Dataset, survey: Survey) -> str | None:
        try:
            with naming_file(folder / ABOUT):
                about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            vectors = _mapped(folder)
            known = about["fasttriplet"] == _KIND and about["version"] == _VERSION
            known = (
                known and vectors.shape == (about["images"], about["size"]) and vectors.dtype == np.float32
            )
        except (FileNotFoundError, ValueError, EOFError, KeyError, TypeError):
            known = False
        if not known:
            return "an audit did not write it, or did not complete it"
        if about["dataset"] != dataset.fingerprint or about["max_pixels"] != dataset.options.max_pixels:
            return "it is of another dataset, or of one that has changed"
        rows = np.unique(np.linspace(0, len(dataset) - 1, _PROBED).astype(np.int64))
        rows = rows[np.isfinite(vectors[rows]).all(axis=1)]
        rows, again = survey.embed_again(rows)
        if not len(rows) or again.shape[1] != vectors.shape[1]:
            return f"it is of another model ({about['model']})"
        far = np.linalg.norm(again - vectors[rows], axis=1)
        if (far > _SAME * np.linalg.norm(again, axis=1)).any():
            return f"it is of another model ({about['model']}), or of the same one with other weights"
        self.vectors = vectors
        return None


def embed(
    folder: Path,
    dataset: Dataset,
    embedder: Embedder,
    survey: Survey,
    *,
    overwrite: bool,
    progress: Progress,
) -> tuple[NDArray[np.float32], Looks | None]:
    """Embed all images into the folder, and look at them if they are decoded.

    The file gets its name when it is complete. Vectors go into it as they come, so memory holds none.
    """
    with opened(folder / NAME, folder / ABOUT, overwrite=overwrite) as (vectors, beside):
        with naming(vectors), vectors.unfinished.open("wb") as file:
            writer = _Writer(file, len(dataset), embedder.description)
            looks = survey.run(writer, progress)
        about = {
            "fasttriplet": _KIND,
            "version": _VERSION,
            "dataset": dataset.fingerprint,
            "files": [str(path) for path in dataset.paths],
            "max_pixels": dataset.options.max_pixels,
            "model": embedder.description,
            "images": len(dataset),
            "size": writer.size,
        }
        with naming(beside):
            beside.unfinished.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        publish(vectors, beside)
    return _mapped(folder), looks


def _mapped(folder: Path) -> NDArray[np.float32]:
    with naming_file(folder / NAME):
        found: NDArray[np.float32] = np.load(folder / NAME, mmap_mode="r", allow_pickle=False)
    return found


class _Writer:
    """Writes a ``.npy`` file row by row; it is written and not mapped, so that a full disk is an error."""

    def __init__(self, file: BinaryIO, count: int, model: str) -> None:
        self._file, self._count, self._model = file, count, model
        self._blank = 0  # rows before the first vector says how long they are
        self.size = 0

    def append(self, vectors: NDArray[np.float32] | None, at: NDArray[np.int64], count: int) -> None:
        """Write the next rows; see :class:`fasttriplet.auditing._survey.Sink`."""
        if vectors is None and not self.size:
            self._blank += count
            return
        if vectors is not None and not self.size:
            self._begin(vectors.shape[1])
        rows = np.full((count, self.size), np.nan, np.float32)
        if vectors is not None:
            if vectors.shape[1] != self.size:
                raise ValueError(
                    f"{self._model}: vectors of {counted(vectors.shape[1], 'number')}, after some of "
                    f"{self.size:,}"
                )
            rows[at] = vectors
        self._file.write(rows.data)

    def _begin(self, size: int) -> None:
        self.size = size
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._count, size)}
        np.lib.format.write_array_header_1_0(self._file, header)  # type: ignore[no-untyped-call]
        blank = np.full((1, size), np.nan, np.float32)
        for _ in range(self._blank):
            self._file.write(blank.data)
