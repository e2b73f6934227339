"""A bag that processes share: each embeds some of its images, and decodes what its triplets need besides."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fasttriplet.dataset._ids import image_ids, positions_of
from fasttriplet.run._group import Group
from fasttriplet.run._image_triplets import ImageTriplets
from fasttriplet.run._running import RunningGraph
from fasttriplet.run._shares import Dealt
from fasttriplet.run._stages import PART, Mined, Part, Stages

Embeddings = list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class SharedStages:
    """The stages of a bag in one process of a group; parts are the shares of this process."""

    stages: Stages
    group: Group
    running: RunningGraph | None  # which takes the embeddings of all processes, and so is the same in all

    def mine(
        self, part: Part, images: NDArray[np.uint8], *, explain: bool
    ) -> tuple[Mined, NDArray[np.int64]]:
        """Mine the whole bag, and tell where among its rows the share of each process ends."""
        whole, embedded, ends = self._gathered(part, self._embedded(part, images))
        if self.running is not None:
            with self.stages.summary.clock("neighbors"):
                self.running.add(whole.rows, embedded)
        return self.stages.mine(whole, embedded, explain=explain, overlapped=False), ends

    def _embedded(self, part: Part, images: NDArray[np.uint8]) -> Embeddings:
        stages = self.stages
        pieces = [slice(start, start + PART) for start in range(0, part.rows.height, PART)]
        together = getattr(stages.embedder, "together", None)
        with nullcontext() if together is None or self.group.size == 1 else together(self.group):
            started = [stages.embed(part, part.rows[piece], images[piece]) for piece in pieces]
            return [
                stages.embedded(part, part.rows[piece], one)
                for piece, one in zip(pieces, started, strict=True)
            ]

    def _gathered(self, part: Part, embedded: Embeddings) -> tuple[Part, Embeddings, NDArray[np.int64]]:
        """The whole bag, its embeddings, and where the shares end."""
        group, summary = self.group, self.stages.summary
        if group.size == 1:
            return part, embedded, np.array([part.rows.height])
        own = np.concatenate(embedded) if embedded else np.empty((0, 0), np.float32)
        with summary.clock("gather"):
            shares = group.gather([image_ids(part.rows), own])
        widths = {rank: rows.shape[1] for rank, (_, rows) in enumerate(shares) if len(rows)}
        for rank, width in widths.items():
            first = min(widths)
            if width != widths[first]:
                raise ValueError(
                    f"{summary.embedder}: vectors of {width} numbers in process {rank}, and of "
                    f"{widths[first]} in process {first}"
                )
        bag = part.bag.rows
        rows = bag[positions_of(image_ids(bag), np.concatenate([ids for ids, _ in shares]))]
        ends = np.cumsum([len(ids) for ids, _ in shares])
        return replace(part, rows=rows), [rows for _, rows in shares if len(rows)], ends

    def restored(self, waiting: Dealt) -> ImageTriplets:
        """The triplets of this process that were mined before, with their images."""
        triplets = waiting.of[self.group.rank]
        rows, images = self.stages.decode_ids(triplets)
        ids, labels = image_ids(rows), rows["label"].to_numpy()
        return ImageTriplets(waiting.epoch, waiting.bag, images, labels, ids, positions_of(ids, triplets))

    def triplets(self, waiting: Dealt, start: int, part: Part, images: NDArray[np.uint8]) -> ImageTriplets:
        """The triplets of this process from `start` on, with their images; its share may lack some."""
        triplets = waiting.of[self.group.rank][start:]
        ids, labels = image_ids(part.rows), part.rows["label"].to_numpy()
        lacking = np.setdiff1d(triplets, ids)
        if len(lacking):
            rows, more = self.stages.decode_ids(lacking)
            at = np.flatnonzero(np.isin(ids, triplets))
            pixels = np.empty((len(at) + len(more), *more.shape[1:]), np.uint8)
            np.take(images, at, axis=0, out=pixels[: len(at)])
            pixels[len(at) :] = more
            images = pixels
            ids = np.concatenate([ids[at], image_ids(rows)])
            labels = np.concatenate([labels[at], rows["label"].to_numpy()])
        return ImageTriplets(waiting.epoch, waiting.bag, images, labels, ids, positions_of(ids, triplets))
