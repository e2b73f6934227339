"""The embeddings of all images of a dataset as a file; a run that was stopped can be continued."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import one_of, thread_count, truth_value
from fasttriplet._files import check_can_be_written, naming, opened, publish
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset, Rec, files_of, open_dataset
from fasttriplet.dataset._index import paths_of
from fasttriplet.dataset._options import DatasetKeywords, DatasetOptions, OnError
from fasttriplet.dataset._own_files import check_not_read, files_read
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.embedders._vectors import (
    About,
    Dtype,
    Skipped,
    as_text,
    describe,
    file_size,
    probed,
    read_about,
    read_rows,
    side_file,
    why_of_another_model,
)
from fasttriplet.errors import OptionError
from fasttriplet.run._machines import Machines, Needs, machines_at, once
from fasttriplet.run._pass import Pass, Piece
from fasttriplet.run._unfinished import Unfinished
from fasttriplet.run._worker import Worker

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """What :func:`embed_rec` wrote.

    Attributes
    ----------
    out : Path
        The file of embeddings. What they are of is in the file of its name and ``.json``.
    files : list of str
        The ``.rec`` files, as they were given.
    embedder : str
        What computed the embeddings, and where.
    images, size : int
        Rows of the file, and numbers in each.
    dtype : str
        ``"float32"`` or ``"float16"``.
    bytes : int
        Size of the file.
    skipped : list of Skipped
        Images that were left out, whose rows are NaN: ``row``, ``key``, ``file`` (number of the ``.rec`` file
        from 0) and ``reason``.
    resumed_after : int
        Images that earlier runs had done.
    seconds : dict of str to float
        How long each stage was busy: ``index``, ``decode``, ``embed`` and ``write``, which overlap but for
        the first, and the wall time in ``total``.
    """

    out: Path
    files: list[str]
    embedder: str
    images: int
    size: int
    dtype: Dtype
    bytes: int
    skipped: list[Skipped]
    resumed_after: int
    seconds: dict[str, float]

    def images_per_second(self, stage: str) -> float | None:
        """Images of this run per second that a stage was busy; None if it took no time."""
        done = self.images - self.resumed_after
        return done / self.seconds[stage] if done and self.seconds.get(stage) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "out": str(self.out),
            "skipped": [one._asdict() for one in self.skipped],
            "images_per_second": {stage: self.images_per_second(stage) for stage in ("decode", "embed")},
        }


@shows(DatasetOptions)
def embed_rec(
    rec: Rec,
    *,
    model: str | Embedder,
    out: str | os.PathLike[str],
    overwrite: bool = False,
    resume: bool = False,
    dtype: Dtype = "float32",
    on_error: OnError = "raise",
    threads: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[DatasetKeywords],
) -> Embedded:
    """Embed all images of a dataset into a ``.npy`` file, which ``npy:FILE`` takes as a model.

    Row i belongs to row i of ``Dataset(rec).index``: images are in the order of their keys, those of the
    first file first. While some images are embedded the next are decoded, and the ones before are written.

    Until it is complete, the file is in the folder ``OUT.unfinished``. Whatever stops a run, another one
    with ``resume=True`` continues after the last complete part of at most 1,024 images, and ends with the
    same bytes as a run that nothing stopped.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : str or Embedder
        What turns images into embeddings: an embedder, or a spec for :func:`fasttriplet.load_embedder`.
    out : path
        The file for the embeddings, which ends in ``.npy``. Beside it, ``OUT.npy.json`` says what they are
        of: the dataset, the model, and which images were skipped. The folder is made if it is missing.
    overwrite : bool, default False
        Whether files that are there may be replaced, and what a stopped run has done may be thrown away.
    resume : bool, default False
        Continue what a stopped run has done, if there is anything. It must be of the same dataset, model and
        options; some images are embedded again to see whether the weights are the same. A file that is
        complete, and that this run would write, stays as it is.
    dtype : {"float32", "float16"}, default "float32"
        Of the numbers in the file. A number beyond the range of float16 is an error.
    on_error : {"raise", "skip"}, default "raise"
        What to do about an image that cannot be read or decoded, or is of another size than the rest: end
        the run, or leave the image out. Its row is NaN then. The size is that of the first image, with
        ``"skip"`` the most frequent one of a sample.
    threads : int, optional
        Threads that decode; one per core by default. A network's own threads are not counted. With `ray` it
        is the number of CPUs that each task asks for, 1 by default.
    ray : str, optional
        A Ray cluster to run on, see :func:`fasttriplet.mine_rec`. Each task embeds some thousand images, and
        this process writes the file. If it ends early, what was embedded out of order is lost, too: some
        tasks for each that runs at a time.
    progress : callable, optional
        Called with a step in words, the number of images done and how many there are.
    labels, cache
        See :func:`fasttriplet.index_rec`. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.

    Returns
    -------
    Embedded

    Raises
    ------
    FileExistsError
        If `out` or the work of a stopped run is there and neither `overwrite` nor `resume` is set, or another
        run is writing it.
    RecordError
        If a record is damaged, unless it is to be skipped; names file, key and offset.
    OSError
        If a file cannot be read or written.
    ValueError
        For wrong options; if what a stopped run has done is of something else; if the model's embeddings are
        not finite, not of one size, or too large for float16; if no image can be embedded.
    ConnectionError
        If there is no cluster at the address of `ray`, or it no longer answers.
    ImportError, MemoryError
        If the model's package is not installed, or some images do not fit the memory.
    """
    chosen = DatasetOptions.of(embed_rec, options)
    one_of("dtype", dtype, get_args(Dtype))
    one_of("on_error", on_error, get_args(OnError))
    threads = thread_count(threads)
    if not isinstance(rec, (str, os.PathLike, Dataset)):
        rec, _ = paths_of(rec)  # an iterator would be used up by the first look
    path = Path(out)
    check_embed_rec(model, path, overwrite=overwrite, resume=resume)
    cache = rec.options.cache if isinstance(rec, Dataset) else chosen.cache
    for target in (path, side_file(path)):
        check_not_read(target, files_read(files_of(rec), cache))
    with machines_at(ray, threads=threads) as machines:
        run = _Run(
            rec=rec,
            options=chosen,
            embedder=machines.embedder(model),
            dtype=dtype,
            on_error=on_error,
            threads=threads,
            progress=progress or (lambda *_: None),
            machines=machines,
        )
        return _embed(run, path, overwrite=overwrite, resume=resume)


def embed_on(
    machines: Machines,
    dataset: Dataset,
    embedder: Embedder,
    path: Path,
    check: Callable[[], object],
    *,
    on_error: OnError,
    threads: int | None,
    progress: Progress,
) -> None:
    """Embed all images of a dataset as :func:`embed_rec` does, on machines, or continue that.

    Other processes call `check` before they embed.
    """
    run = _Run(
        rec=dataset,
        options=dataset.options,
        embedder=embedder,
        dtype="float32",
        on_error=on_error,
        threads=threads,
        progress=progress,
        machines=machines,
        check=check,
    )
    _embed(run, path, overwrite=False, resume=True)


def _embed(run: _Run, path: Path, *, overwrite: bool, resume: bool) -> Embedded:
    overwrites = overwrite or (resume and _goes_on(path))
    with opened(path, side_file(path), overwrite=overwrites) as (vectors, beside):
        run.open()
        unfinished = Unfinished(path, fresh=not resume)
        complete = _about(path) if resume and unfinished.state is None else None
        if complete is not None:
            run.check_complete(path, complete)
            run.take_state(complete.images, complete.size, complete.skipped)
        else:
            with _keeping(unfinished):
                run.through(unfinished, overwrite=overwrites)
                with naming(vectors):
                    unfinished.copy_to(vectors.unfinished)
                with naming(beside):
                    beside.unfinished.write_text(as_text(run.about()), encoding="utf-8")
                publish(vectors, beside)
        unfinished.remove()
    return run.result(path)


def check_embed_rec(model: str | Embedder, path: Path, *, overwrite: bool, resume: bool) -> None:
    """Raise what :func:`embed_rec` raises before it loads a model: for its files, and for `model`."""
    if truth_value("resume", resume) and truth_value("overwrite", overwrite):
        raise OptionError("resume", "does not go with overwrite=True, which starts again")
    if isinstance(model, PrecomputedEmbedder) or (isinstance(model, str) and model.startswith("npy:")):
        name = model if isinstance(model, str) else f"npy:{model.path}"
        raise OptionError("model", f"must compute embeddings; those of {name!r} are in a file already")
    if path.suffix.lower() != ".npy":
        raise OptionError("out", f"must end in .npy, not {str(path)!r}")
    unfinished = Unfinished(path, fresh=overwrite or resume)
    if unfinished.state is not None and not unfinished.published:
        raise FileExistsError(
            errno.EEXIST,
            f"{unfinished.progress} are done; resume=True continues, overwrite=True starts again",
            str(unfinished.folder),
        )
    overwrites = overwrite or (resume and _goes_on(path))
    for target in (path, side_file(path)):
        check_can_be_written(target, overwrite=overwrites)


def _goes_on(path: Path) -> bool:
    """Whether a run that is resumed need not mind that files are there.

    The run that it continues might replace them, or has written them; or they are complete, and are looked at
    when the dataset and the model are known.
    """
    unfinished = Unfinished(path)
    return unfinished.may_overwrite or (unfinished.state is None and _about(path) is not None)


def _about(path: Path) -> About | None:
    """What a file that is there is of; None where there is none, or nothing says it."""
    if not path.is_file():
        return None
    try:
        return read_about(path)
    except (OSError, ValueError):
        return None


@contextmanager
def _keeping(unfinished: Unfinished) -> Iterator[None]:
    """Close the files at the end. Whatever stops the run says what is kept."""
    try:
        yield
    except BaseException as error:
        unfinished.close()
        if unfinished.begun and unfinished.state is not None:
            error.add_note(f"{unfinished.progress} are kept in {unfinished.folder}; resume=True continues")
        raise
    unfinished.close()


@dataclass(kw_only=True)
class _Run:
    """The steps of a run."""

    rec: Rec
    options: DatasetOptions
    embedder: Embedder
    dtype: Dtype
    on_error: OnError
    threads: int | None
    progress: Progress
    machines: Machines
    check: Callable[[], object] | None = None

    def open(self) -> None:
        """Index the files, and find out how large their images are."""
        self.started = time.perf_counter()
        ensure_polars_threads()
        self.dataset = dataset = open_dataset(self.rec, self.options, threads=self.threads)
        self.files = [str(path) for path in dataset.paths]
        self.embedder.prepare(dataset.index)
        self.seconds = {
            "index": time.perf_counter() - self.started,
            "decode": 0.0,
            "embed": 0.0,
            "write": 0.0,
        }
        self.images: Pass[None] = Pass(dataset, self.embedder, on_error=self.on_error, threads=self.threads)
        self.of = {
            "dataset fingerprint": dataset.fingerprint,
            "model": self.embedder.description,
            "dtype": self.dtype,
            "max_pixels": dataset.options.max_pixels,
        }

    def take_state(self, done: int, size: int, skipped: list[Skipped]) -> None:
        """Note what is done."""
        self.resumed_after, self.size, self.skipped = done, size, skipped

    def check_complete(self, path: Path, about: About) -> None:
        """Raise a FileExistsError, unless a file is what this run would write."""
        before = (about.dataset, about.model, about.dtype, about.max_pixels)
        differ = [
            f"{name} {one!r}, not {self.of[name]!r}"
            for name, one in zip(self.of, before, strict=True)
            if one != self.of[name]
        ]
        shape, size = (about.images, about.size), path.stat().st_size
        why = f"with the {', and the '.join(differ)}" if differ else None
        if why is None and size != file_size(shape, self.dtype):
            why = f"and has {size:,} bytes instead of {file_size(shape, self.dtype):,}"
        why = why or self._why_not(path, shape, about.images, about.skipped)
        if why is not None:
            raise FileExistsError(
                errno.EEXIST, f"exists already, {why}; overwrite=True replaces it", str(path)
            )

    def _why_not(self, path: Path, shape: tuple[int, int], done: int, skipped: list[Skipped]) -> str | None:
        """Say why the first `done` rows are not what this run would write; some are embedded again."""
        if skipped and self.on_error == "raise":
            first = skipped[0]
            return (
                f"it has skipped {counted(len(skipped), 'image')}, the first with key {first.key} "
                f"({first.reason}), and goes with on_error='skip'"
            )
        if not shape[1]:  # no image could be decoded so far
            return None
        at = probed(done)
        stored = read_rows(path, shape, self.dtype, at)
        usable = at[np.isfinite(stored).all(axis=1)]
        again_at, again = once(
            self.machines, Pass.embed_again, self.images.for_jobs(self.machines), usable, Needs(embeds=True)
        )
        if not len(again_at):
            return None
        return why_of_another_model(self.embedder.description, stored[np.searchsorted(at, again_at)], again)

    def through(self, unfinished: Unfinished, *, overwrite: bool) -> None:
        """Take all steps up to a file that is complete but for its name."""
        self.take_state(0, 0, [])
        size = self.images.size
        of = self.of | {"image size": None if size is None else f"{size[0]} x {size[1]}"}
        state = unfinished.state
        if state is not None:
            unfinished.check(of, self.dtype)
            why = self._why_not(
                unfinished.unfinished, (state.images, state.size), state.done, unfinished.skipped
            )
            if why is not None:
                raise ValueError(f"{unfinished.folder} cannot be resumed: {why}; overwrite=True starts again")
            self.resumed_after = state.done
        unfinished.begin(
            len(self.dataset), of, model=self.embedder.description, dtype=self.dtype, overwrite=overwrite
        )
        self._embed(unfinished)
        assert unfinished.state is not None
        self.take_state(self.resumed_after, unfinished.state.size, unfinished.skipped)
        if not self.size:
            raise ValueError(f"none of {counted(len(self.dataset), 'image')} can be embedded")

    def _embed(self, unfinished: Unfinished) -> None:
        count, writing = len(self.dataset), list[Future[None]]()
        self.progress("embedding", self.resumed_after, count)
        with Worker("write") as writer:

            def take(piece: Piece[None], vectors: NDArray[np.float32] | None) -> None:
                if writing:
                    writer.result(writing.pop())
                writing.append(writer.submit(self._write, unfinished, piece, vectors))
                self.progress("embedding", piece.start + piece.rows.height, count)

            try:
                if self.machines.is_here:
                    self.images.run(take, self.resumed_after)
                else:
                    self.images.run_on(self.machines, take, self.resumed_after, self.check)
            finally:  # what is embedded is to be kept
                if writing:
                    writer.result(writing.pop())
        self.seconds |= self.images.seconds

    def _write(self, unfinished: Unfinished, piece: Piece[None], vectors: NDArray[np.float32] | None) -> None:
        began = time.perf_counter()
        unfinished.append(piece, vectors)
        self.seconds["write"] += time.perf_counter() - began

    def about(self) -> dict[str, Any]:
        """What the file beside the embeddings says."""
        return describe(
            self.dataset,
            model=self.embedder.description,
            size=self.size,
            dtype=self.dtype,
            skipped=self.skipped,
        )

    def result(self, path: Path) -> Embedded:
        """What there is to say at the end."""
        self.seconds["total"] = time.perf_counter() - self.started
        return Embedded(
            out=path,
            files=self.files,
            embedder=self.embedder.description,
            images=len(self.dataset),
            size=self.size,
            dtype=self.dtype,
            bytes=file_size((len(self.dataset), self.size), self.dtype),
            skipped=self.skipped,
            resumed_after=self.resumed_after,
            seconds=self.seconds,
        )
