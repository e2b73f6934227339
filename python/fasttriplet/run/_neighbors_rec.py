"""The nearest identities, or images, of a dataset as a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import one_of, whole_number
from fasttriplet._files import check_can_be_written, naming, opened, publish
from fasttriplet._metadata import as_parquet
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset, open_dataset
from fasttriplet.dataset._exclude import IncludedImages, included_images
from fasttriplet.dataset._options import ExcludeOptions, OnError
from fasttriplet.dataset._own_files import check_not_read, files_read
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.embedders._vectors import Skipped
from fasttriplet.mining._neighbors import Neighbors, Of, neighbors
from fasttriplet.mining._options import Metric, MiningOptions
from fasttriplet.run._pass import Pass, Piece

Progress = Callable[[str, int, int], object]

_READ = 2**14  # rows of a file of embeddings that are read at once


@dataclass(frozen=True, slots=True, eq=False)
class NeighborsOfRec:
    """What :func:`neighbors_rec` wrote.

    Attributes
    ----------
    out : Path
        The file.
    files : list of str
        The ``.rec`` files, as they were given.
    embedder : str
        What computed the embeddings, and where.
    of : {"identities", "rows"}
        What has neighbors.
    images, identities, neighbors : int
        Images that were compared, their identities, and rows of the file.
    images_excluded : int
        Images that were to be left out.
    skipped : list of Skipped
        Images that cannot be used and were left out.
    seconds : dict of str to float
        How long each stage was busy: ``index``, ``decode``, ``embed`` (these two overlap), ``search`` and
        ``write``, and the wall time in ``total``.
    """

    out: Path
    files: list[str]
    embedder: str
    of: Of
    images: int
    identities: int
    neighbors: int
    images_excluded: int
    skipped: list[Skipped]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"out": str(self.out), "skipped": [one._asdict() for one in self.skipped]}


def check_neighbors_rec(
    rec: tuple[Path, ...], out: Path, options: ExcludeOptions, *, k: int, of: Of, overwrite: bool
) -> None:
    """Raise what :func:`neighbors_rec` raises before it needs a model."""
    whole_number("k", k, 1)
    one_of("of", of, get_args(Of))
    read = files_read(rec, options.cache)
    if isinstance(options.exclude, str):
        read[Path(options.exclude)] = "the table of excluded images"
    check_not_read(out, read)
    check_can_be_written(out, overwrite=overwrite)


def neighbors_rec(
    rec: tuple[Path, ...],
    *,
    model: Embedder,
    out: Path,
    k: int,
    of: Of,
    metric: Metric,
    normalize: bool,
    on_error: OnError,
    threads: int | None,
    overwrite: bool,
    progress: Progress,
    options: ExcludeOptions,
) -> NeighborsOfRec:
    """Write what :func:`fasttriplet.neighbors` gives for all images of a dataset into a Parquet file.

    Of identities, it is an identity graph. Of rows, the file has the columns ``key`` and ``neighbor_key``
    instead of positions, and with several ``.rec`` files ``file`` and ``neighbor_file``. Its metadata say
    which dataset, model and options it is of.

    Embeddings are held in memory, 4 bytes for each number.
    """
    check_neighbors_rec(rec, out, options, k=k, of=of, overwrite=overwrite)
    if isinstance(model, PrecomputedEmbedder):
        check_not_read(out, {model.path: "the embeddings"})
    MiningOptions(metric=metric, normalize=normalize)  # an error now, not when all is embedded
    run = _Run(time.perf_counter(), model, on_error, threads, progress)
    with opened(out, overwrite=overwrite) as (output,):
        dataset = open_dataset(rec, options, threads=threads)
        included = included_images(dataset, options.exclude, options.exclude_kinds)
        rows, vectors = run.embedded(dataset, included)
        progress("searching", 0, 0)
        began = time.perf_counter()
        found = neighbors(
            vectors, dataset.labels[rows], k, of=of, metric=metric, normalize=normalize, threads=threads
        )
        searched = time.perf_counter()
        run.seconds["search"] = searched - began
        table = _table(found, dataset, rows)
        about = {
            "kind": "neighbors",
            "version": _core.__version__,
            "dataset": dataset.fingerprint,
            "files": [path.name for path in dataset.paths],
            "exclude": included.digest,
            "model": model.description,
            "options": {"of": of, "k": k, "metric": metric, "normalize": normalize},
        }
        # Polars opens names in UTF-8 only.
        with naming(output), output.unfinished.open("wb") as file:
            table.write_parquet(file, metadata=as_parquet(about))
        publish(output)
        ended = time.perf_counter()
        run.seconds |= {"write": ended - searched, "total": ended - run.began}
    return NeighborsOfRec(
        out=out,
        files=[os.fspath(path) for path in rec],
        embedder=model.description,
        of=of,
        images=len(rows),
        identities=len(np.unique(dataset.labels[rows])),
        neighbors=table.height,
        images_excluded=len(dataset) - len(included.rows),
        skipped=run.skipped,
        seconds=run.seconds,
    )


class _Run:
    """The pass over all images."""

    def __init__(
        self, began: float, model: Embedder, on_error: OnError, threads: int | None, progress: Progress
    ) -> None:
        self.began, self.skipped = began, list[Skipped]()
        self.seconds: dict[str, float] = {}
        self._model, self._on_error, self._threads, self._progress = model, on_error, threads, progress

    def embedded(
        self, dataset: Dataset, included: IncludedImages
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The images that are left, as positions in the dataset, and their embeddings."""
        self._model.prepare(dataset.index)
        if isinstance(self._model, PrecomputedEmbedder):
            rows, vectors = self._read(self._model, dataset, included.rows)
        else:
            rows, vectors = self._embed(dataset, included.rows)
        if not len(rows):
            raise ValueError(f"none of {counted(len(included.rows), 'image')} can be embedded")
        return rows, vectors

    def _read(
        self, model: PrecomputedEmbedder, dataset: Dataset, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Embeddings that are in a file already."""
        began = time.perf_counter()
        self.seconds["index"] = began - self.began
        if self._on_error == "skip":
            gone = np.isin(rows, [*model.why_skipped])
            self.skipped = [
                Skipped(row, int(dataset.keys[row]), int(dataset.files[row]), model.why_skipped[row])
                for row in rows[gone].tolist()
            ]
            rows = rows[~gone]
        vectors = _room(len(rows), model.table.shape[1])
        for start in range(0, len(rows), _READ):
            some = slice(start, start + _READ)
            vectors[some] = model.embed(dataset.index[rows[some]])
            self._progress("reading embeddings", min(start + _READ, len(rows)), len(rows))
        self.seconds["embed"] = time.perf_counter() - began
        return rows, vectors

    def _embed(
        self, dataset: Dataset, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Embeddings of all images, of which those of some rows are kept."""
        images = Pass[None](dataset, self._model, on_error=self._on_error, threads=self._threads)
        self.seconds["index"] = time.perf_counter() - self.began
        wanted, left = np.zeros(len(dataset), np.bool_), np.zeros(len(dataset), np.bool_)
        wanted[rows] = True
        vectors, used = np.empty((0, 0), np.float32), 0

        def take(piece: Piece[None], found: NDArray[np.float32] | None) -> None:
            nonlocal vectors, used
            self.skipped += [one for one in piece.skipped if wanted[one.row]]
            if found is not None:
                at = piece.start + piece.kept
                some = found[wanted[at]]
                if not vectors.size:
                    vectors = _room(len(rows), found.shape[1])
                if found.shape[1] != vectors.shape[1]:
                    raise ValueError(
                        f"{self._model.description}: vectors of {found.shape[1]} numbers, after some of "
                        f"{vectors.shape[1]}"
                    )
                vectors[used : used + len(some)] = some
                used += len(some)
                left[at] = wanted[at]
            self._progress("embedding", piece.start + piece.rows.height, len(dataset))

        self._progress("embedding", 0, len(dataset))
        images.run(take)
        self.seconds |= images.seconds
        return np.flatnonzero(left), vectors[:used]


def _room(count: int, width: int) -> NDArray[np.float32]:
    _core.probe_memory(4 * count * width, f"embeddings of {counted(count, 'image')}")
    return np.empty((count, width), np.float32)


def _table(found: Neighbors, dataset: Dataset, rows: NDArray[np.int64]) -> pl.DataFrame:
    """The neighbors, with images by their keys."""
    table = found.to_frame()
    if found.of == "identities":
        return table
    columns = ["key", "file"] if len(dataset.paths) > 1 else ["key"]
    images = dataset.index[rows].select(columns)
    ends = [
        images[table[position].to_numpy()].rename({name: f"{prefix}{name}" for name in columns})
        for position, prefix in (("row", ""), ("neighbor", "neighbor_"))
    ]
    return pl.concat([*ends, table.drop("row", "neighbor")], how="horizontal")
