"""One pass over all images of a dataset, in the order of its index: each is decoded once and embedded."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import advising, counted
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._options import OnError
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import Started, check_embeddings, one_ahead, started
from fasttriplet.embedders._vectors import Skipped
from fasttriplet.errors import RecordError
from fasttriplet.run._machines import Machines, Needs
from fasttriplet.run._probe import Probe, ProbedEmbedder
from fasttriplet.run._stages import NICE, PART
from fasttriplet.run._worker import Ahead, Worker

T = TypeVar("T")

# Of decoded images that are held at a time, in bytes: those in use, and as many ahead. 1,024 images of
# 112 x 112 have 39 MB.
_BYTES = 2**28
_SAMPLE = 1024  # images whose headers say which size is usual
_PIECES, _AHEAD = 4, 4  # pieces of a job for another process, and jobs ahead for each that is done at once


@dataclass(frozen=True, slots=True, eq=False)
class Piece(Generic[T]):
    """Consecutive images of a dataset.

    Attributes
    ----------
    rows : DataFrame
        Of the index, one per image.
    start : int
        The position of the first in the dataset.
    kept : (K,) int64
        Positions among the rows, of those that could be decoded; all, if nothing is decoded.
    failed : list of (int, RecordError)
        Positions of the rest, and what is wrong with them.
    seen : T or None
        What :class:`Pass` was to look for in the pixels.
    """

    rows: pl.DataFrame
    start: int
    kept: NDArray[np.int64]
    failed: list[tuple[int, RecordError]]
    seen: T | None

    @property
    def skipped(self) -> list[Skipped]:
        """The images that could not be decoded."""
        keys, files = self.rows["key"], self.rows["file"] if "file" in self.rows.columns else None
        return [
            Skipped(self.start + at, keys[at], 0 if files is None else files[at], error.reason)
            for at, error in self.failed
        ]


Take = Callable[[Piece[T], NDArray[np.float32] | None], object]
_Pieces = tuple[list[tuple[Piece[T], NDArray[np.float32] | None]], dict[str, float]]


class Pass(Generic[T]):
    """Decodes, looks at and embeds the images of a dataset; the next are decoded while some are embedded.

    Parameters
    ----------
    dataset : Dataset
    embedder : Embedder, optional
        With none, images are only looked at.
    look : callable, optional
        Called with decoded pixels, on the thread that decodes. With it, images are decoded even if the
        embedder does not need them.
    on_error : {"raise", "skip"}
        What to do about an image that cannot be decoded, or is of another size than the rest. The size is
        that of the first image, with ``"skip"`` the most frequent one of a sample.
    threads : int, optional
        Threads that decode, one per core by default.

    Attributes
    ----------
    decodes : bool
        Whether images are decoded at all.
    size : (int, int) or None
        Height and width of the images; None if none is decoded.
    seconds : dict of str to float
        How long ``decode`` and ``embed`` were busy; they overlap.
    """

    def __init__(
        self,
        dataset: Dataset,
        embedder: Embedder | None,
        *,
        look: Callable[[NDArray[np.uint8]], T] | None = None,
        on_error: OnError,
        threads: int | None,
    ) -> None:
        self._dataset, self._embedder, self._look = dataset, embedder, look
        self._on_error: OnError = on_error
        self._threads = threads
        self.decodes = look is not None or (embedder is not None and embedder.needs_images)
        self.size = self._usual_size() if self.decodes else None
        self.seconds = {"decode": 0.0, "embed": 0.0}

    def _usual_size(self) -> tuple[int, int]:
        dataset, count = self._dataset, len(self._dataset)
        samples = [np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64)), np.arange(count)]
        for rows in samples if self._on_error == "skip" else [np.arange(1)]:
            size = dataset.image_size(rows, on_error=self._on_error, threads=self._threads)
            if size is not None:
                return size
        try:
            dataset.decode([0], threads=1)
        except RecordError as error:
            raise ValueError(
                f"none of {counted(count, 'image')} can be decoded; the first: {error}"
            ) from error
        raise ValueError(f"none of {counted(count, 'image')} can be decoded")

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        """Count the time of the block; each stage is clocked on one thread."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began

    def run(self, take: Take[T], start: int = 0, end: int | None = None) -> None:
        """Go through the images from `start` to before `end`; give each piece and its embeddings to `take`.

        Embedding i is that of the image ``kept[i]`` of the piece; None if there are none.
        """
        with Worker("decode", nice=NICE) as decoder:
            pieces = Ahead(decoder, self._pieces(start, len(self._dataset) if end is None else end), 1)
            for piece, pending in one_ahead(self._begun(pieces)):
                take(piece, None if pending is None else self._finished(piece, pending))

    @property
    def _step(self) -> int:
        """Most images of a piece."""
        if self.size is None:
            return PART
        return max(1, min(PART, _BYTES // (2 * self.size[0] * self.size[1] * 3)))

    def _pieces(
        self, start: int, end: int
    ) -> Generator[tuple[Piece[T], NDArray[np.uint8] | None], None, None]:
        for first in range(start, end, self._step):
            rows = self._dataset.index[first : min(first + self._step, end)]
            if not self.decodes:
                yield Piece(rows, first, np.arange(rows.height), [], None), None
                continue
            with (
                self._clock("decode"),
                advising(f"free some memory: {counted(rows.height, 'image')} are decoded at a time"),
            ):
                decoded = self._dataset.decode(
                    rows, size=self.size, threads=self._threads, on_error=self._on_error
                )
                seen = None if self._look is None else self._look(decoded.pixels)
            yield Piece(rows, first, decoded.kept, decoded.failed, seen), decoded.pixels
            del decoded  # not to be held while the next are decoded

    def _begun(
        self, pieces: Iterable[tuple[Piece[T], NDArray[np.uint8] | None]]
    ) -> Iterator[tuple[Piece[T], Started | None]]:
        for piece, pixels in pieces:
            pending = None
            if self._embedder is not None and len(piece.kept):
                with self._clock("embed"), advising("lower the batch_size of the model"):
                    needed = pixels if self._embedder.needs_images else None
                    pending = started(self._embedder, piece.rows[piece.kept], needed)
                del needed
            del pixels  # not to be held while waiting for the next
            yield piece, pending

    def _finished(self, piece: Piece[T], pending: Started) -> NDArray[np.float32]:
        assert self._embedder is not None
        with self._clock("embed"), advising("lower the batch_size of the model"):
            found, rows = pending.result(), piece.rows[piece.kept]
            return check_embeddings(found, rows, self._embedder.description, np.float32)

    def for_jobs(self, machines: Machines) -> Pass[T]:
        """Make the pass that other processes get, which compare their model with that of the first one."""
        alike = copy(self)
        alike._threads = machines.threads
        if self._embedder is not None and self.size is not None and not machines.is_here:
            probe = Probe.of(machines, self._embedder, self._dataset, self.size)
            if probe is not None:
                alike._embedder = ProbedEmbedder(self._embedder, probe)
        return alike

    def run_on(
        self, machines: Machines, take: Take[T], start: int = 0, check: Callable[[], object] | None = None
    ) -> None:
        """Do what :meth:`run` does on machines, and `take` the same pieces in the same order.

        Each job first calls `check`, where it runs.
        """
        step, count, needs = _PIECES * self._step, len(self._dataset), Needs(embeds=True)
        ready: dict[int, _Pieces[T]] = {}
        given, taken = start, start  # positions up to which jobs are given, and results are taken

        def give() -> tuple[int, int] | None:
            nonlocal given
            # What is done waits in memory for what is before it, so no job is far ahead of the first.
            if given >= min(count, taken + _AHEAD * machines.at_once(needs) * step):
                return None
            first, given = given, min(given + step, count)
            return first, given

        for (first, _), found in machines.run(_pieces_of, (self.for_jobs(machines), check), give, needs):
            ready[first] = found
            while taken in ready:
                pieces, seconds = ready.pop(taken)
                for stage, more in seconds.items():
                    self.seconds[stage] += more
                for piece, vectors in pieces:
                    take(piece, vectors)
                taken = min(taken + step, count)

    def embed_again(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Embed some images, to compare: positions of those that can be decoded, and their vectors."""
        assert self._embedder is not None
        pixels = None
        if self._embedder.needs_images:
            decoded = self._dataset.decode(rows, size=self.size, threads=self._threads, on_error="skip")
            rows, pixels = rows[decoded.kept], decoded.pixels
        if not len(rows):
            return rows, np.empty((0, 0), np.float32)
        index = self._dataset.index[rows]
        vectors = self._embedder.embed(index, pixels)
        return rows, check_embeddings(vectors, index, self._embedder.description, np.float32)


def _pieces_of(what: tuple[Pass[T], Callable[[], object] | None], rows: tuple[int, int]) -> _Pieces[T]:
    """Go through some images, in whatever process this is; also tell how long each stage was busy."""
    some, check = what
    if check is not None:
        check()
    found: list[tuple[Piece[T], NDArray[np.float32] | None]] = []
    some.seconds = dict.fromkeys(some.seconds, 0.0)
    some.run(lambda piece, vectors: found.append((piece, vectors)), *rows)
    return found, some.seconds
