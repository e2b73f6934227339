"""The embeddings of a dataset: computed once, and kept in the folder of an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._files import naming, opened, publish
from fasttriplet._npy import Table
from fasttriplet._words import naming_file
from fasttriplet.auditing._pictures import Looks
from fasttriplet.auditing._survey import Progress, Survey
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._vectors import (
    KIND,
    VERSION,
    Skipped,
    Writer,
    as_text,
    describe,
    probed,
    why_of_another_model,
)
from fasttriplet.run._pass import Piece

NAME, ABOUT = "embeddings.npy", "embeddings.json"


class KeptEmbeddings:
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
            Table(folder / NAME)  # raises a ValueError about what NumPy would fail at in its own ways
            vectors = _mapped(folder)
            known = about["fasttriplet"] == KIND and about["version"] == VERSION
            known = known and {"dataset", "max_pixels", "model"} <= about.keys()
            known = (
                known and vectors.shape == (about["images"], about["size"]) and vectors.dtype == np.float32
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            return "an audit did not write it, or did not complete it"
        if about["dataset"] != dataset.fingerprint or about["max_pixels"] != dataset.options.max_pixels:
            return "it is of another dataset, or of one that has changed"
        rows = probed(len(dataset))
        rows = rows[np.isfinite(vectors[rows]).all(axis=1)]
        rows, again = survey.embed_again(rows)
        if not len(rows):
            return f"it is of another model ({about['model']})"
        why = why_of_another_model(about["model"], vectors[rows], again)
        if why is None:
            self.vectors = vectors
        return why


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
            sink = _Sink(Writer(file, len(dataset), embedder.description))
            looks = survey.run(sink, progress)
        about = describe(
            dataset,
            model=embedder.description,
            size=sink.writer.size,
            dtype="float32",
            skipped=sink.skipped,
        )
        with naming(beside):
            beside.unfinished.write_text(as_text(about), encoding="utf-8")
        publish(vectors, beside)
    return _mapped(folder), looks


def _mapped(folder: Path) -> NDArray[np.float32]:
    with naming_file(folder / NAME):
        found: NDArray[np.float32] = np.load(folder / NAME, mmap_mode="r", allow_pickle=False)
    return found


class _Sink:
    """Takes embeddings into a file, and notes which images have none."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.skipped: list[Skipped] = []

    def append(self, piece: Piece[Any], vectors: NDArray[np.float32] | None) -> None:
        """Take those of the next images; see :class:`fasttriplet.auditing._survey.Sink`."""
        self.skipped += piece.skipped
        self.writer.append(piece.rows, piece.kept, vectors)
