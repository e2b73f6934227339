"""All stages of a run, from ``.rec`` files to a table of triplets, bag by bag."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import whole_number
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset, Rec, files_of
from fasttriplet.dataset._options import BagOptions
from fasttriplet.dataset._own_files import check_not_read, files_read
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import Started, one_ahead
from fasttriplet.errors import OptionError
from fasttriplet.run._options import RunKeywords, RunOptions
from fasttriplet.run._sink import Sink, check_ending, open_sink
from fasttriplet.run._stages import NICE, Images, Mined, Part, Stages
from fasttriplet.run._summary import Progress, Summary
from fasttriplet.run._whole import may_overwrite, mine_whole, work_folder
from fasttriplet.run._worker import Ahead, Worker

# Of a triplet on its way to the output: three positions, what is looked up for each, and two distances.
_BYTES = 3 * (8 + 20) + 3 * 8


@dataclass(frozen=True, slots=True, eq=False)
class MineResult:
    """What :func:`mine_rec` returns.

    Attributes
    ----------
    triplets : pl.LazyFrame
        One row per triplet: ``epoch, bag, anchor_key, positive_key, negative_key, anchor_label,
        negative_label, d_ap, d_an``, and for several files ``anchor_file, positive_file, negative_file``.
        Distances are on the scale of the metric, by default squared L2.
    summary : Summary
    """

    triplets: pl.LazyFrame
    summary: Summary


@shows(RunOptions)
def mine_rec(
    rec: Rec,
    *,
    model: str | Embedder = "pixels",
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    epochs: int = 1,
    max_triplets: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Unpack[RunKeywords],
) -> MineResult:
    """Mine the triplets of a dataset: index, order, decode, embed and mine, bag by bag.

    While a bag is embedded the next one is decoded and the one before is mined, so that a run takes as long
    as the slowest of the three.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : str or Embedder, default "pixels"
        What turns images into embeddings: an embedder, or a spec for :func:`fasttriplet.load_embedder`.
        The default is a baseline that needs no model.
    out : path, optional
        A file for the triplets, in the format that its ending says: ``.parquet``, ``.csv``, ``.ndjson`` or
        ``.jsonl``, ``.arrow`` or ``.feather``. It is written bag by bag under another name, and appears when
        it is complete. Its folder is made if it is missing. Without `out` the triplets are kept in memory.
        Parquet files say where they are from; see :func:`fasttriplet.read_metadata`.
    overwrite : bool, default False
        Whether a file that is there may be replaced.
    resume : bool, default False
        With ``bag_size=None``, whether to continue with what an unfinished run has kept beside `out`.
    epochs : int, default 1
        Passes over the dataset, each in another order and with other picks.
    max_triplets : int, optional
        Stop when this many are found.
    progress : callable, optional
        Called with a :class:`Progress` before the first image is embedded, every thousand images and after
        each bag.
    labels, cache
        See :func:`fasttriplet.index_rec`. With ``labels="separate"``, the labels of the triplets are the
        shifted ones. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.
    exclude : path, (K,) int or DataFrame, optional
        Images to leave out, as if the files did not have them: a Parquet file, keys, or a Polars frame. Of a
        table, the column `key` is taken and, with several ``.rec`` files, `file`, the number of each image's
        file from 0. Of a table of suspects, which says in the column `kind` what was found, the images of
        `exclude_kinds` are left out, except those whose `action` is ``"keep"``. A file that says in its
        metadata that it is of another dataset is an error.
    exclude_kinds : sequence of str, optional
        The kinds of findings whose images are left out. By default those about single images:
        ``"mislabelled"``, ``"outlier"``, ``"duplicate"`` and ``"bad-picture"``. The others are
        ``"same-person"`` and ``"two-people"``.
    margin, band, ranks, pick, negatives_per_pair, fallback
    pairs, positives_per_anchor, triplets_per_anchor, max_ap, metric, normalize
        See :func:`fasttriplet.mine`. Semi-hard is ``d_ap < d_an < d_ap + margin``, by default on squared L2.
    images_per_identity, bag_size, boundary, tail, neighbors, random_share
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`. ``bag_size=None`` mines the whole
        dataset at once, with all images of each identity: the triplets are those that one call of
        :func:`fasttriplet.mine` would give for all embeddings. These are computed first, into a file, and
        mined in blocks, so that they may be larger than the memory.
    on_error : {"raise", "skip"}, default "raise"
        What to do about an image that cannot be read or decoded, or is of another size than the rest:
        end the run, or leave the image out and list it in the summary (and in a note on the error, if the run
        fails for another reason). The size is that of the first image, with ``"skip"`` the most frequent one
        of the first bag.
    seed : int, default 0
        Seed for the order and the picks. ``mine`` runs with ``epoch_seed(seed, epoch)`` and with
        :attr:`Dataset.ids <fasttriplet.Dataset>`, so that a bag can be mined again by hand.
    threads : int, optional
        Threads that decode and threads that mine; one per core by default. A network's own threads are not
        counted.
    prefetch : int, default 1
        How many bags may be decoded ahead of the images that are embedded. With 0, decoding and embedding
        take turns.
    memory : int, optional
        Most bytes of decoded images to hold, ahead and in use; by default what `prefetch` takes. A bag of
        7,200 images of 112 x 112 has 271 MB.

    Returns
    -------
    MineResult
        The triplets (a scan of `out`, or in memory) and a summary.

    Raises
    ------
    FileExistsError
        If `out` is there and `overwrite` is not set, or another run is writing it.
    NoTripletsError
        If the dataset can give none, or the whole run finds none; the message says why. Nothing is written.
    CollapsedError
        If in all bags of an epoch the embeddings of different identities are all but equal. Nothing is
        written. The run warns of the first such bag (:class:`CollapseWarning`).
    RecordError
        If a record is damaged, unless it is to be skipped; names file, key and offset.
    OSError
        If a file cannot be read or written.
    MemoryError
        If a bag does not fit the memory: its images, its rows or its triplets. The message says which, and
        what to change.
    RuntimeError
        In a process that was forked after its parent had used Polars.
    ValueError
        For wrong options, before anything is read; and if the images do not fit the model or the memory.
    """
    chosen = RunOptions.of(mine_rec, options)
    whole = chosen.bag_size is None
    if not isinstance(rec, (str, os.PathLike, Dataset)):
        rec = list(rec)  # an iterator would be used up by the first look
    whole_number("epochs", epochs, 1)
    if max_triplets is not None:
        whole_number("max_triplets", max_triplets, 1)
    _check_whole(chosen, epochs, max_triplets, out, resume=resume, overwrite=overwrite)
    stages = Stages(model, chosen)
    summary = stages.summary
    target = None if out is None else Path(out)
    if target is not None:
        check_ending(target)
        cache = rec.options.cache if isinstance(rec, Dataset) else chosen.cache
        check_not_read(target, files_read(files_of(rec), cache))
    if target is not None and resume:
        overwrite = may_overwrite(target)
    tell = progress or (lambda _: None)
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(target, overwrite=overwrite))
        stack.enter_context(summary.in_errors())
        if whole:
            folder = stack.enter_context(work_folder(target, resume=resume, overwrite=overwrite))
            keeps = target is not None
            for some in mine_whole(stages, rec, folder, keeps=keeps, overwrite=overwrite, tell=tell):
                summary.triplets += len(some.triplets)
                with summary.clock("write"):
                    sink.append(_frame(some))
        else:
            stages.open(rec)
            _Run(stages, sink, epochs, max_triplets, tell).through()
            stages.end_epoch()  # which max_triplets may have cut short
        if summary.triplets == 0:
            raise stages.no_triplets()
        with summary.clock("write"):
            about = stages.about() | {"epochs": epochs, "max_triplets": max_triplets}
            with sink.join(about) as joined:  # before others can replace the file
                summary.measure(joined)
            triplets = sink.publish()
            summary.out = None if target is None else str(target)
    return MineResult(triplets, summary)


def _check_whole(
    options: RunOptions,
    epochs: int,
    max_triplets: int | None,
    out: str | os.PathLike[str] | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Raise an OptionError for what does not go with, or without, mining the whole dataset at once."""
    if options.bag_size is not None:
        if resume:
            raise OptionError("resume", "is for bag_size=None, the whole dataset at once")
        return
    if resume and overwrite:
        raise OptionError("resume", "does not go with overwrite=True, which starts again")
    if resume and out is None:
        raise OptionError("resume", "needs out: the work of an unfinished run is kept beside it")
    without = "has no meaning with bag_size=None, where the whole dataset is mined at once"
    if epochs != 1:
        raise OptionError("epochs", f"{without}: take another seed for other picks")
    if max_triplets is not None:
        raise OptionError("max_triplets", without)
    if options.neighbors is not None:
        raise OptionError("neighbors", without)
    for name in ("images_per_identity", "boundary", "tail"):
        if getattr(options, name) != getattr(BagOptions, name):
            raise OptionError(name, without)


@dataclass(slots=True)
class _Run:
    """While a part is embedded, the next ones are decoded, and the bag before is mined."""

    stages: Stages
    sink: Sink
    epochs: int
    max_triplets: int | None
    progress: Callable[[Progress], object]
    embedded: int = 0  # images

    def through(self) -> None:
        """Take all bags through."""
        stages = self.stages
        step = stages.part_size
        depth = stages.depth(step)
        of_bag: list[tuple[pl.DataFrame, NDArray[np.float32]]] = []
        mining: Future[tuple[Mined, pl.DataFrame]] | None = None
        with Worker("decode", nice=NICE) as decoder, Worker("mine", nice=NICE) as miner:
            for part, embeddings in self._embedded(
                Ahead(decoder, self._parts(step), depth, stages.waiting_for_images)
            ):
                if embeddings is not None:
                    of_bag.append((part.rows, embeddings))
                    self.embedded += part.rows.height
                if mining is not None and (part.last or mining.done()):
                    self._take(miner, mining)
                    mining = None
                self._report(part)
                if stages.summary.stopped_at_max_triplets:
                    return
                if part.last:
                    mining = miner.submit(self._mine, part, of_bag)
                    of_bag = []
            if mining is not None:
                self._take(miner, mining)
                self._report(part)

    def _parts(self, step: int) -> Generator[tuple[Part, Images], None, None]:
        for epoch in range(self.epochs):
            yield from self.stages.parts(epoch, step)

    def _embedded(
        self, parts: Iterable[tuple[Part, Images]]
    ) -> Generator[tuple[Part, NDArray[np.float32] | None], None, None]:
        """Embed parts, except those of which no image is left."""
        for part, started in one_ahead(self._begun(parts)):
            yield part, None if started is None else self.stages.embedded(part, part.rows, started)

    def _begun(self, parts: Iterable[tuple[Part, Images]]) -> Iterator[tuple[Part, Started | None]]:
        first = True
        for part, images in parts:
            if first:  # opening the dataset is over
                self._report(part)
            first = False
            started = self.stages.embed(part, part.rows, images) if part.rows.height else None
            del images  # not to be held while waiting for the next
            yield part, started

    def _mine(
        self, part: Part, of_bag: list[tuple[pl.DataFrame, NDArray[np.float32]]]
    ) -> tuple[Mined, pl.DataFrame]:
        """Mine a bag, and make the rows of the output here, where no network waits for it."""
        whole = replace(part, rows=pl.concat([part.bag.rows.clear(), *(rows for rows, _ in of_bag)]))
        explain = self.stages.summary.why_no_triplets is None
        embedded = [some for _, some in of_bag]
        mined = self.stages.mine(whole, embedded, explain=explain, overlapped=True)
        self.stages.explain_pairs(mined, embedded)
        return mined, _frame(mined)

    def _take(self, miner: Worker, mining: Future[tuple[Mined, pl.DataFrame]]) -> None:
        summary = self.stages.summary
        with summary.waiting("mine"):
            mined, found = miner.result(mining)
        self.stages.record(mined)
        if self.max_triplets is not None:
            found = found.head(self.max_triplets - summary.triplets)
        summary.triplets += found.height
        summary.stopped_at_max_triplets = summary.triplets == self.max_triplets
        with summary.clock("write"):
            self.sink.append(found)

    def _report(self, part: Part) -> None:
        summary = self.stages.summary
        self.progress(
            Progress(
                part.epoch + 1,
                self.epochs,
                part.bag.number + 1,
                part.bags,
                self.embedded,
                self.epochs * part.images_of_epoch,
                summary.triplets,
                summary.bags,
            )
        )


def _frame(mined: Mined) -> pl.DataFrame:
    """The triplets as rows of the output."""
    triplets, rows = mined.triplets, mined.rows.select(pl.col("^(key|label|file)$"))
    _core.probe_memory(_BYTES * len(triplets), f"the output's rows of {counted(len(triplets), 'triplet')}")
    anchor, positive, negative = (rows[at] for at in mined.positions())
    roles = {"anchor": anchor, "positive": positive, "negative": negative}
    columns = {
        "epoch": pl.repeat(mined.epoch, len(triplets), dtype=pl.Int32, eager=True),
        "bag": pl.repeat(mined.bag.number, len(triplets), dtype=pl.Int32, eager=True),
        **{f"{role}_key": of_role["key"] for role, of_role in roles.items()},
        "anchor_label": anchor["label"],
        "negative_label": negative["label"],
        "d_ap": triplets.d_ap,
        "d_an": triplets.d_an,
    }
    if "file" in rows.columns:
        columns |= {f"{role}_file": of_role["file"] for role, of_role in roles.items()}
    return pl.DataFrame(columns)
