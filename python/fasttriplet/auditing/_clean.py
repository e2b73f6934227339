"""`clean`: a dataset without what an audit found, as a new ``.rec``."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import path_or_frame
from fasttriplet._files import check_can_be_written, naming, opened, publish
from fasttriplet._metadata import as_parquet
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.auditing._decisions import decided, read_suspects
from fasttriplet.auditing._findings import digest
from fasttriplet.auditing._resolve import Resolved, resolve
from fasttriplet.dataset._dataset import Dataset, Rec, files_of, open_dataset
from fasttriplet.dataset._index import paths_of
from fasttriplet.dataset._names import known_names
from fasttriplet.dataset._options import DatasetKeywords, DatasetOptions, Kind, kinds_of
from fasttriplet.dataset._own_files import check_not_read, files_read
from fasttriplet.dataset._packing._layout import Layout, changes_beside
from fasttriplet.dataset._packing._property import opened_property, property_of, write_property
from fasttriplet.dataset._packing._sources import read_sources
from fasttriplet.errors import OptionError

_TELL_EVERY = 256  # images
_TELL_THE_SIZE = 100  # images


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What :func:`clean` wrote.

    Attributes
    ----------
    path : Path
        The ``.rec`` file; its ``.idx`` is beside it.
    changes : Path
        The table of what became of each image.
    images, identities : int
        How many the file has.
    dropped, relabelled : int
        How many images were left out, and how many have another identity than before.
    identities_gone, identities_new : int
        How many identities have no image left, and how many there are now for the first time.
    property : Path or None
        The ``property`` file. None if it was not written; then `notes` says why.
    notes : tuple of str
        What to know about the files in the folder, in sentences.
    bytes : int
        Size of the ``.rec`` file.
    seconds : float
        How long it took.
    """

    path: Path
    changes: Path
    images: int
    identities: int
    dropped: int
    relabelled: int
    identities_gone: int
    identities_new: int
    property: Path | None
    notes: tuple[str, ...]
    bytes: int
    seconds: float


@shows(DatasetOptions)
def clean(
    rec: Rec,
    *,
    suspects: str | os.PathLike[str] | pl.DataFrame,
    out: str | os.PathLike[str],
    decisions: str | os.PathLike[str] | None = None,
    kinds: Sequence[Kind] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
    **options: Unpack[DatasetKeywords],
) -> Cleaned:
    """Write a dataset anew, with images dropped and relabelled and identities joined and split.

    The new file has InsightFace's layout: images by identity, identities by their label, and labels
    0, 1, 2, ... without gaps, as a classifier needs them. Identities keep their order; those that are left
    without images are gone, and new ones come last. Each image is stored byte for byte as it was. Several
    ``.rec`` files become one. Beside ``OUT.rec`` it writes

    * ``OUT.idx``, the offsets of the records;
    * ``OUT.changes.parquet``, a row for each image that there was, with the columns ``key, file, label``,
      ``new_label, new_key`` (null if it was dropped), ``action`` (``"keep"``, ``"relabel"`` or ``"drop"``),
      and ``kind, finding, reason`` of the finding that decided (null if none did);
    * ``OUT.identities.csv`` and ``OUT.sources.parquet``, if they are beside the files that are read;
    * ``property`` for InsightFace's scripts, by the rule of :func:`fasttriplet.pack`.

    Where several findings are about an image, it is dropped if one of them drops it. Else the finding with
    the lowest number that gives this image another label decides. Then identities that are the same person
    are joined, with all images that they have by then. So an image that is moved to one of them ends in what
    they become.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    suspects : path or DataFrame
        The table that an audit of this dataset wrote, or some of its rows. A file that says in its metadata
        that it is of another dataset is an error.
    out : path
        The new ``.rec`` file.
    decisions : path, optional
        A JSON file of what a person decided otherwise than the audit, as its page saves it. A decision is
        about a whole finding: to keep all its images as they are, or what to do with those that the audit
        would change (with all of them, if it would change none).
    kinds : sequence of str, optional
        The kinds of findings to act on, by default all: ``"mislabelled"``, ``"outlier"``,
        ``"same-person"``, ``"two-people"``, ``"duplicate"`` and ``"bad-picture"``.
    overwrite : bool, default False
        Whether files of an earlier run may be replaced.
    progress : callable, optional
        Called with the number of images that are written and the number of all that are to be.
    labels, cache, max_pixels
        See :class:`fasttriplet.Dataset`; `labels` as in the audit.

    Returns
    -------
    Cleaned
        What was written. After an error, no file was written or replaced.

    Raises
    ------
    OptionError
        If `suspects` or `decisions` are of another dataset, audit or form, no image would be left, or `out`
        is a file that is read; a ValueError.
    FileExistsError
        If a file is there and `overwrite` is not set, or another run is writing it.
    RecordError, OSError
        If a record that is kept cannot be read, or a file cannot be written.
    """
    started = time.perf_counter()
    chosen = DatasetOptions.of(clean, options)
    acted_on = None if kinds is None else kinds_of("kinds", kinds)
    out = Path(out)
    if out.suffix != ".rec":
        raise OptionError("out", f"must end in .rec, not {str(out)!r}")
    path_or_frame("suspects", suspects)
    if not isinstance(rec, (str, os.PathLike, Dataset)):
        rec, _ = paths_of(rec)
    changes, problems = changes_beside(out), out.with_suffix(".problems.csv")
    finals = (*Layout.files_of(out), changes, problems)
    read = files_read(files_of(rec), rec.options.cache if isinstance(rec, Dataset) else chosen.cache)
    _check_places(finals, read, suspects, decisions)
    for path in (*finals, *filter(None, [property_of([out])[0]])):  # the last is looked at again at the end
        check_can_be_written(path, overwrite=overwrite)

    dataset = open_dataset(rec, chosen, threads=None)
    table = read_suspects(suspects, dataset)
    found = decided(table, None if decisions is None else Path(decisions), dataset)
    if acted_on is not None:
        found = found.filter(pl.col("kind").is_in(acted_on))
    resolved = resolve(found, dataset)
    order, new_labels = _numbered(resolved)
    with ExitStack() as resources:
        outputs = resources.enter_context(opened(*finals, overwrite=overwrite))
        resources.enter_context(naming(*outputs))
        by_name = {output.path: output for output in outputs}
        part = by_name[out].unfinished.with_name("parts") / out.name
        part.parent.mkdir()
        names = known_names(dataset)
        layout = resources.enter_context(Layout(part, out, named=bool(names)))
        _fill(layout, dataset, order, _named(resolved.labels[order], names), progress)
        layout.finish(by_name)
        by_name[problems].drop()  # of a file of this name that `pack` wrote
        listed = _changes(dataset, found, resolved, order, new_labels)
        about = {"kind": "changes", "version": _core.__version__, "dataset": dataset.fingerprint}
        content = io.BytesIO()  # Polars opens names in UTF-8 only
        listed.write_parquet(content, metadata=as_parquet(about | {"suspects": digest(table)}))
        by_name[changes].unfinished.write_bytes(content.getbuffer())
        size = dataset.image_size(order[:_TELL_THE_SIZE], on_error="skip")
        told, why_not = resources.enter_context(opened_property([out], overwrite=overwrite))
        if told is not None and size is not None:
            write_property(told, by_name[out].unfinished, len(layout.identities), size)
        elif told is not None:
            told.drop()
            why_not = "`property` was not written, since the first images cannot be decoded"
        publish(*outputs, *filter(None, [told]))
    before, after = np.unique(dataset.labels), np.unique(resolved.labels[order])
    counts = dict(listed["action"].value_counts().iter_rows())
    return Cleaned(
        path=out,
        changes=changes,
        images=layout.images,
        identities=len(layout.identities),
        dropped=counts.get("drop", 0),
        relabelled=counts.get("relabel", 0),
        identities_gone=len(np.setdiff1d(before, after)),
        identities_new=len(np.setdiff1d(after, before)),
        property=told.path if told is not None and why_not is None else None,
        notes=() if why_not is None else (why_not,),
        bytes=out.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def _check_places(
    finals: Sequence[Path],
    read: Mapping[Path, str],
    suspects: str | os.PathLike[str] | pl.DataFrame,
    decisions: str | os.PathLike[str] | None,
) -> None:
    """Refuse to write over what is read."""
    read = {**read}
    if not isinstance(suspects, pl.DataFrame):
        read[Path(suspects)] = "the suspects"
    if decisions is not None:
        read[Path(decisions)] = "the decisions"
    for final in finals:
        check_not_read(final, read)


def _numbered(resolved: Resolved) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images that are left, by identity, and the new label of each."""
    left = np.flatnonzero(~resolved.dropped)
    if not left.size:
        count = counted(len(resolved.dropped), "image")
        raise OptionError(
            "suspects", f"must leave an image, and the findings drop all {count} of the dataset"
        )
    order = left[np.argsort(resolved.labels[left], kind="stable")]
    return order, np.unique(resolved.labels[order], return_inverse=True)[1]


def _named(labels: NDArray[np.int64], names: Mapping[int, str]) -> Iterator[str]:
    """Yield the name of the identity of each image, which no other one has."""
    taken = set[str]()
    last, name = None, ""
    for label in labels.tolist():
        if label != last:
            wanted = name = names.get(label, str(label))
            number = 2
            while name in taken:  # one name in several files, or a folder that is called 7
                name, number = f"{wanted}-{number}", number + 1
            taken.add(name)
            last = label
        yield name


def _fill(
    layout: Layout,
    dataset: Dataset,
    order: NDArray[np.int64],
    names: Iterator[str],
    progress: Callable[[int, int], object] | None,
) -> None:
    """Copy the images."""
    sources = [read_sources(path) for path in dataset.paths]
    rows = zip(
        order.tolist(), dataset.files[order].tolist(), dataset.keys[order].tolist(), names, strict=True
    )
    for done, (row, file, key, name) in enumerate(rows, start=1):
        layout.add(name, dataset.read(row)[1], sources[file].get(key))
        if progress is not None and (done % _TELL_EVERY == 0 or done == len(order)):
            progress(done, len(order))


def _changes(
    dataset: Dataset,
    found: pl.DataFrame,
    resolved: Resolved,
    order: NDArray[np.int64],
    new_labels: NDArray[np.int64],
) -> pl.DataFrame:
    """What became of each image."""
    numbers = np.full((2, len(dataset)), -1)
    numbers[0, order], numbers[1, order] = new_labels, np.arange(1, len(order) + 1)
    moved = resolved.labels != dataset.labels
    index = pl.DataFrame(
        {
            "key": dataset.keys,
            "file": dataset.files,
            "label": dataset.labels,
            "new_label": numbers[0],
            "new_key": numbers[1],
            "action": np.select([resolved.dropped, moved], ["drop", "relabel"], "keep"),
            "row": resolved.cause,
        }
    )
    why = found.select("kind", "finding", "reason").with_row_index("row").cast({"row": pl.Int64})
    here = pl.when(~pl.Series(resolved.dropped)).then(pl.col("new_label", "new_key"))
    return index.with_columns(here).join(why, on="row", how="left", maintain_order="left").drop("row")
