"""All stages of a run, from ``.rec`` files to a table of triplets, bag by bag."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import polars as pl

from fasttriplet._checks import truth_value, whole_number
from fasttriplet._options import shows
from fasttriplet.dataset._dataset import Dataset, Rec, files_of
from fasttriplet.dataset._index import paths_of
from fasttriplet.dataset._options import BagOptions
from fasttriplet.dataset._own_files import check_not_read, files_read
from fasttriplet.embedders import Embedder
from fasttriplet.errors import OptionError
from fasttriplet.run._bags import Found, OnMachines, Threads, frame
from fasttriplet.run._machines import Machines, machines_at
from fasttriplet.run._options import RunKeywords, RunOptions
from fasttriplet.run._sink import Sink, check_ending, open_sink
from fasttriplet.run._stages import Images, Part, Stages
from fasttriplet.run._summary import Progress, Summary
from fasttriplet.run._whole import mine_whole
from fasttriplet.run._work_folder import WorkFolder, may_overwrite, work_folder


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
    ray: str | None = None,
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
        With ``bag_size=None`` or `ray`, whether to continue with what an unfinished run has kept beside
        `out`.
    epochs : int, default 1
        Passes over the dataset, each in another order and with other picks.
    max_triplets : int, optional
        Stop when this many are found.
    ray : str, optional
        A Ray cluster to run on: the address of its head, such as ``"10.0.0.1:6379"``, ``"auto"`` for the one
        that this machine belongs to, or ``"local"`` for one that is started on this machine for the run. The
        triplets are the same. Each task takes a bag or, with ``bag_size=None``, two blocks of embeddings. All
        machines need the ``.rec`` files and the model under the paths that they have here and, with
        ``bag_size=None``, the folder of `out`. See the page about clusters.
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
        counted. With `ray` it is the number of CPUs that each task asks for, 1 by default.
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
        If in all bags of an epoch the embeddings of different identities are nearly equal. Nothing is
        written. The run warns of the first such bag (:class:`CollapseWarning`).
    RecordError
        If a record is damaged, unless it is to be skipped; names file, key and offset.
    OSError
        If a file cannot be read or written.
    ConnectionError
        If there is no cluster at the address of `ray`, or it no longer answers.
    MemoryError
        If a bag does not fit the memory: its images, its rows or its triplets. The message says which, and
        what to change.
    RuntimeError
        In a process that was forked after its parent had used Polars.
    ValueError
        For wrong options, before anything is read; and if the images do not fit the model or the memory.
    """
    chosen = RunOptions.of(mine_rec, options)
    if not isinstance(rec, (str, os.PathLike, Dataset)):
        rec, _ = paths_of(rec)  # an iterator would be used up by the first look
    whole_number("epochs", epochs, 1)
    if max_triplets is not None:
        whole_number("max_triplets", max_triplets, 1)
    if chosen.bag_size is None:
        _check_whole(chosen, epochs, max_triplets)
        if out is None and ray not in (None, "local"):
            raise OptionError(
                "out", "must be given with bag_size=None and ray, in a folder that all machines share"
            )
    keeps = chosen.bag_size is None or ray is not None
    _check_resume(resume, overwrite=overwrite, out=out, keeps=keeps)
    target = None if out is None else Path(out)
    if target is not None:
        check_ending(target)
        cache = rec.options.cache if isinstance(rec, Dataset) else chosen.cache
        read = files_read(files_of(rec), cache)
        if isinstance(chosen.exclude, str):
            read[Path(chosen.exclude)] = "the table of excluded images"
        if isinstance(chosen.neighbors, str):
            read[Path(chosen.neighbors)] = "the identity graph"
        check_not_read(target, read)
    if target is not None and resume:
        overwrite = may_overwrite(target)
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(target, overwrite=overwrite))
        folder = None
        if keeps:
            folder = stack.enter_context(work_folder(target, resume=resume, overwrite=overwrite))
        machines = stack.enter_context(machines_at(ray, threads=chosen.threads))
        stages = Stages(machines.embedder(model), chosen)
        summary = stages.summary
        stack.enter_context(summary.in_errors())
        run = _Run(stages, sink, epochs, max_triplets, progress or (lambda _: None))
        run.through(rec, machines, folder)
        if summary.triplets == 0:
            raise stages.no_triplets()
        with summary.clock("write"):
            about = stages.about() | {"epochs": epochs, "max_triplets": max_triplets}
            with sink.join(about) as joined:  # before others can replace the file
                summary.measure(joined)
            triplets = sink.publish()
            summary.out = None if target is None else str(target)
    return MineResult(triplets, summary)


def _check_resume(resume: bool, *, overwrite: bool, out: str | os.PathLike[str] | None, keeps: bool) -> None:
    """Raise an OptionError where there is nothing to continue."""
    if not truth_value("resume", resume):
        return
    if not keeps:
        raise OptionError("resume", "is for bag_size=None, the whole dataset at once, and for runs with ray")
    if overwrite:
        raise OptionError("resume", "does not go with overwrite=True, which starts again")
    if out is None:
        raise OptionError("resume", "needs out: the work of an unfinished run is kept beside it")


def _check_whole(options: RunOptions, epochs: int, max_triplets: int | None) -> None:
    """Raise an OptionError for what does not go with mining the whole dataset at once."""
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
    """Collects the triplets of all bags."""

    stages: Stages
    sink: Sink
    epochs: int
    max_triplets: int | None
    progress: Callable[[Progress], object]

    def through(self, rec: Rec, machines: Machines, folder: WorkFolder | None) -> None:
        """Take the dataset through, on machines where work is kept."""
        if self.stages.options.bag_size is None:
            assert folder is not None
            for some in mine_whole(self.stages, rec, folder, machines, self.progress):
                self._append(frame(some), len(some.triplets))
            return
        self.stages.open(rec)
        if folder is None:
            self._here()
        else:
            self._on(machines, folder)
        self.stages.end_epoch()  # which max_triplets may have cut short

    def _here(self) -> None:
        """Take all bags through in this process."""
        threads = Threads(self.stages, lambda part: self._report(part, threads.embedded))
        step = self.stages.part_size

        def parts() -> Generator[tuple[Part, Images], None, None]:
            for epoch in range(self.epochs):
                yield from self.stages.parts(epoch, step)

        for found in threads.through(parts()):
            if self._take(found):
                self._report(threads.part, threads.embedded)
                return

    def _on(self, machines: Machines, folder: WorkFolder) -> None:
        """Take all bags through on machines."""
        bags = OnMachines(machines, self.stages, folder, lambda part: self._report(part, bags.embedded))
        jobs = (job for epoch in range(self.epochs) for job in self.stages.bags_of(epoch))
        for found in bags.through(jobs):
            if self._take(found):
                return

    def _take(self, found: Found) -> bool:
        """Add a bag's triplets to the output; returns whether these are enough."""
        summary, triplets, count = self.stages.summary, found.triplets, found.outcome.triplets
        self.stages.record(found.outcome)
        if self.max_triplets is not None and count > self.max_triplets - summary.triplets:
            count = self.max_triplets - summary.triplets
            if isinstance(triplets, Path):
                triplets = pl.read_parquet(triplets, glob=False)
            triplets = triplets.head(count)
        self._append(triplets, count)
        summary.stopped_at_max_triplets = summary.triplets == self.max_triplets
        return summary.stopped_at_max_triplets

    def _append(self, triplets: pl.DataFrame | Path, count: int) -> None:
        summary = self.stages.summary
        summary.triplets += count
        with summary.clock("write"):
            self.sink.append(triplets)

    def _report(self, part: Part, embedded: int) -> None:
        summary = self.stages.summary
        self.progress(
            Progress(
                part.epoch + 1,
                self.epochs,
                part.bag.number + 1,
                part.bags,
                embedded,
                self.epochs * part.images_of_epoch,
                summary.triplets,
                summary.bags,
            )
        )
