"""One pass over the images of a dataset: each is decoded once, looked at, and embedded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._words import advising, counted
from fasttriplet.auditing._pictures import Looks
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import Started, check_embeddings, one_ahead, started
from fasttriplet.errors import RecordError
from fasttriplet.run._stages import NICE, PART
from fasttriplet.run._worker import Ahead, Worker

Progress = Callable[[str, int, int], None]

# Of decoded images that are held at a time, in bytes: those in use, and as many ahead. 1,024 images of
# 112 x 112 have 39 MB.
_BYTES = 2**28
_SAMPLE = 1024  # images whose headers say which size is usual


class Sink(Protocol):
    """What takes the embeddings."""

    def append(self, vectors: NDArray[np.float32] | None, at: NDArray[np.int64], count: int) -> None:
        """Take those of the next `count` images: that of the image ``at[i]`` of them is ``vectors[i]``.

        The rest, or all of them if there are no vectors, have none.
        """


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Consecutive images of the dataset."""

    rows: pl.DataFrame
    start: int
    kept: NDArray[np.int64]  # positions among the rows, of those that could be decoded
    failed: list[tuple[int, RecordError]]
    measures: NDArray[np.float32]
    sketches: NDArray[np.float32]


class Survey:
    """The pass over a dataset, for what an audit does not know yet.

    Parameters
    ----------
    dataset : Dataset
    embedder : Embedder, optional
        With none, images are only looked at.
    looking : bool
        Whether images are decoded even if the embedder does not need them.
    threads : int, optional
        Threads that decode and look, one per core by default.
    """

    def __init__(
        self, dataset: Dataset, embedder: Embedder | None, *, looking: bool, threads: int | None
    ) -> None:
        self._dataset, self._embedder, self._threads = dataset, embedder, threads
        self._decodes = looking or (embedder is not None and embedder.needs_images)
        self._size = self._usual_size() if self._decodes else None

    def _usual_size(self) -> tuple[int, int]:
        dataset, count = self._dataset, len(self._dataset)
        for rows in (np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64)), np.arange(count)):
            size = dataset.image_size(rows, on_error="skip", threads=self._threads)
            if size is not None:
                return size
        try:
            dataset.decode([0], threads=1)
        except RecordError as error:
            raise ValueError(
                f"none of {counted(count, 'image')} can be decoded; the first: {error}"
            ) from error
        raise ValueError(f"none of {counted(count, 'image')} can be decoded")

    def run(self, sink: Sink | None, progress: Progress) -> Looks | None:
        """Go through all images; the embeddings go to the sink. Returns what was seen if any was decoded."""
        count, done = len(self._dataset), 0
        step = "embedding" if self._embedder is not None else "looking at pictures"
        looks = Looks.unseen(count) if self._decodes else None
        progress(step, 0, count)
        with Worker("decode", nice=NICE) as decoder:
            parts = Ahead(decoder, self._parts(), 1)
            for part, pending in one_ahead(self._begun(parts)):
                if looks is not None:
                    looks.add(part.start, part.kept, part.measures, part.sketches, part.failed)
                if sink is not None:
                    vectors = None if pending is None else self._finished(part, pending)
                    sink.append(vectors, part.kept, part.rows.height)
                done += part.rows.height
                progress(step, done, count)
        return looks

    def _parts(self) -> Generator[tuple[_Part, NDArray[np.uint8] | None], None, None]:
        step = PART
        if self._size is not None:
            step = max(1, min(PART, _BYTES // (2 * self._size[0] * self._size[1] * 3)))
        for start in range(0, len(self._dataset), step):
            rows = self._dataset.index[start : start + step]
            if not self._decodes:
                none = np.empty((0, 0), np.float32)
                yield _Part(rows, start, np.arange(rows.height), [], none, none), None
                continue
            with advising(f"free some memory: {counted(rows.height, 'image')} are decoded at a time"):
                decoded = self._dataset.decode(rows, size=self._size, threads=self._threads, on_error="skip")
                measures, sketches = _core.looks_of(decoded.pixels, threads=self._threads)
            yield _Part(rows, start, decoded.kept, decoded.failed, measures, sketches), decoded.pixels
            del decoded  # not to be held while the next are decoded

    def _begun(
        self, parts: Iterable[tuple[_Part, NDArray[np.uint8] | None]]
    ) -> Iterator[tuple[_Part, Started | None]]:
        for part, pixels in parts:
            pending = None
            if self._embedder is not None and len(part.kept):
                with advising("lower the batch_size of the model"):
                    needed = pixels if self._embedder.needs_images else None
                    pending = started(self._embedder, part.rows[part.kept], needed)
                del needed
            del pixels  # not to be held while waiting for the next
            yield part, pending

    def _finished(self, part: _Part, pending: Started) -> NDArray[np.float32]:
        assert self._embedder is not None
        with advising("lower the batch_size of the model"):
            found, rows = pending.result(), part.rows[part.kept]
            return check_embeddings(found, rows, self._embedder.description, np.float32)

    def embed_again(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Embed some images, to compare: positions of those that can be decoded, and their vectors."""
        assert self._embedder is not None
        pixels = None
        if self._embedder.needs_images:
            decoded = self._dataset.decode(rows, size=self._size, threads=self._threads, on_error="skip")
            rows, pixels = rows[decoded.kept], decoded.pixels
        if not len(rows):
            return rows, np.empty((0, 0), np.float32)
        index = self._dataset.index[rows]
        vectors = self._embedder.embed(index, pixels)
        return rows, check_embeddings(vectors, index, self._embedder.description, np.float32)
