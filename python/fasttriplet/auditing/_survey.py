"""The pass of an audit over the images of a dataset: each is decoded once, looked at, and embedded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet.auditing._pictures import Looks
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.embedders import Embedder
from fasttriplet.run._pass import Pass, Piece

Progress = Callable[[str, int, int], None]
_Seen: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]  # measures and sketches


class Sink(Protocol):
    """What takes the embeddings."""

    def append(self, piece: Piece[_Seen], vectors: NDArray[np.float32] | None) -> None:
        """Take those of the next images; see :meth:`fasttriplet.run._pass.Pass.run`."""


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
        self._count = len(dataset)
        self._step = "embedding" if embedder is not None else "looking at pictures"
        decodes = looking or (embedder is not None and embedder.needs_images)
        look = partial(_core.looks_of, threads=threads) if decodes else None
        self._pass: Pass[_Seen] = Pass(dataset, embedder, look=look, on_error="skip", threads=threads)
        self.embed_again = self._pass.embed_again

    def run(self, sink: Sink | None, progress: Progress) -> Looks | None:
        """Go through all images; the embeddings go to the sink. Returns what was seen if any was decoded."""
        looks = Looks.unseen(self._count) if self._pass.decodes else None
        progress(self._step, 0, self._count)

        def take(piece: Piece[_Seen], vectors: NDArray[np.float32] | None) -> None:
            if looks is not None and piece.seen is not None:
                looks.add(piece.start, piece.kept, *piece.seen, piece.failed)
            if sink is not None:
                sink.append(piece, vectors)
            progress(self._step, piece.start + piece.rows.height, self._count)

        self._pass.run(take)
        return looks
