"""One row per image of a ``.rec``: where it lies and whom it shows."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, Unpack

import numpy as np
import polars as pl

from fasttriplet import _core
from fasttriplet._checks import thread_count
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._options import shows
from fasttriplet.dataset import _identity_ranges, _labels
from fasttriplet.dataset._index_cache import IndexCache, settle
from fasttriplet.dataset._index_file import COLUMNS, Columns, Facts, FileIndex
from fasttriplet.dataset._numbering import Numbering, doubt, label_shifts
from fasttriplet.dataset._options import Cache, IndexKeywords, IndexOptions
from fasttriplet.dataset._recordio import idx_beside
from fasttriplet.errors import OptionError, RecordWarning

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# At level INFO it says where an index was written; the command line shows that.
_log = logging.getLogger("fasttriplet.index")


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What :func:`inspect_rec` found in a file.

    Attributes
    ----------
    path : Path
        The ``.rec`` file.
    bytes : int
        Its size.
    records : int
        Readable records, with those that hold no image.
    images : int
        Records with an image.
    identities : int
        Different labels of images.
    identity_records : int
        Records that give an identity's range of keys (InsightFace layout).
    layout : {"insightface", "flat"}
        Whether record 0 announces identity records.
    image_bytes : int
        Bytes of all encoded images.
    images_by_flag : dict of int to int
        How many images have how many labels in their header (0: one label in the header itself).
    label_range : (int, int)
        Lowest and highest of the labels that name identities: the first one of each image.
    object_images : int
        How many images have labels as im2rec writes them for object detection. Their first label does not
        name an identity.
    idx_used : bool
        False where the ``.idx`` is missing or does not fit, so that the index comes from the ``.rec``.
    problems : tuple of str
        What was found wrong and worked around, one line per problem. One of each kind comes first and says
        how many there are; of a kind with more than 1,000, the rest is only counted.
    index : pl.DataFrame
        What :func:`index_rec` returns.
    """

    path: Path
    bytes: int
    records: int
    images: int
    identities: int
    identity_records: int
    layout: Literal["insightface", "flat"]
    image_bytes: int
    images_by_flag: dict[int, int]
    label_range: tuple[int, int]
    object_images: int
    idx_used: bool
    problems: tuple[str, ...]
    index: pl.DataFrame

    @property
    def images_per_identity(self) -> pl.Series:
        """Counts of images, one for each identity, ascending."""
        return self.index.group_by("label").len("images")["images"].sort()


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """The index of all files."""

    frame: pl.DataFrame
    shifts: tuple[int, ...]  # what was added to the labels of each file
    keys_are_ids: tuple[bool, ...]  # for each file, whether they are the ids in its records
    kept: tuple[str | None, ...]  # for each file, the file that its index was read from, if it was


@shows(IndexOptions)
def index_rec(path: Paths, *, threads: int | None = None, **options: Unpack[IndexKeywords]) -> pl.DataFrame:
    """Index the images of one or several ``.rec`` files.

    Identities come from the labels of the images (the first, where a record has several). Record 0
    and the identity records of InsightFace's layout hold no image and give no row. Their ranges of
    keys are compared with the labels and decide nothing: several identity records with images of one
    label are one identity.

    The ``.idx`` is used when it proves to name each record of the file once, with a key that no other record
    has. If it is missing, names only some records, or does not fit in another way, the records are found by
    going through the ``.rec`` (resynchronising after damage), and their ids are the keys. So the index holds
    each image of the file once, whatever the ``.idx`` says.

    Parameters
    ----------
    path : path or sequence of paths
        The ``.rec`` file, or several that make one dataset.
    threads : int, optional
        Threads that read headers; one per core by default.
    labels : {"shared", "separate"}, optional
        What the labels of several files mean. ``"shared"``: the files are shards of one dataset, and the same
        label in two of them is the same identity. ``"separate"``: the files were numbered independently, and
        no two of them have an identity in common. The labels of the first file stay; those of each other file
        are shifted to follow the labels of the file before, so that they remain small.
        :attr:`Dataset.label_shifts <fasttriplet.Dataset>` tells by how much. By default labels are shared,
        with a warning where files seem to be numbered independently: by the names in the
        ``NAME.identities.csv`` that :func:`fasttriplet.pack` writes, or by their layouts and labels.
    cache : bool or path, default True
        Where the index of each file is kept for later runs. True: beside the file, as
        ``train.rec.index``, or in the folder that the environment variable ``FASTTRIPLET_CACHE_DIR``
        names. A path: in this folder, which is made if it is missing. False: nowhere. An index that was kept
        before the ``.rec`` or ``.idx`` changed is replaced. Beside a file in a folder that cannot be written
        to, none is kept; a folder that is named must be writable. The logger ``fasttriplet.index`` says, at
        level INFO, where one was written.

    Returns
    -------
    pl.DataFrame
        One row per image, in the order of the keys: ``key``, ``label``, ``offset`` (of the record, in
        bytes) and ``length`` (of the encoded image, in bytes), all Int64. For a sequence of paths, also
        ``file`` (UInt32, the position in the sequence), which then comes first in the order.

    Raises
    ------
    RuntimeError
        In a process that was forked after its parent had used Polars; it would hang.
    RecordError
        If a file holds no records or no image, or an image's label is not an integer; names the record.
    OSError
        If a file cannot be read, or no index can be kept in the folder that is named for it.
    ValueError
        If no path is given, or one path twice; if an option is wrong; or if separate labels would pass 2^24,
        above which MXNet's batches round them.

    Warns
    -----
    RecordWarning
        If something in a file is wrong and was worked around, labels are 2^24 or more (float32 may have
        turned several identities into one), most labels are those of object detection, or several files seem
        to be numbered independently and `labels` is not given. :func:`inspect_rec` lists all but the last.
        Also if a file that has the name of a kept index is damaged, or is not the index of this ``.rec``.
    """
    chosen = IndexOptions.of(index_rec, options)
    paths, several = paths_of(path, "path")
    threads = thread_count(threads)
    files = [_core.RecordFile(one) for one in paths]
    return index_files(paths, files, several=several, options=chosen, threads=threads).frame


def inspect_rec(
    path: str | os.PathLike[str], *, cache: Cache = True, threads: int | None = None
) -> Inspection:
    """Index one ``.rec`` file and report what was found in it.

    Parameters
    ----------
    path : path
        The ``.rec`` file.
    cache, threads
        As in :func:`index_rec`.

    Returns
    -------
    Inspection
        Counts, the layout, and each problem that was worked around.

    Raises
    ------
    RecordError, OSError, ValueError
        As :func:`index_rec`.

    Warns
    -----
    RecordWarning
        If a file that has the name of a kept index is not the index of this ``.rec``.
    """
    (path, *more), _ = paths_of(path, "path")
    if more:
        raise OptionError("path", f"must be one .rec file, not {len(more) + 1}: inspect each by itself")
    threads, options = thread_count(threads), IndexOptions(cache=cache)
    file = _core.RecordFile(path)
    loaded = _load(path, file, options.cache, threads)
    if loaded.problem:
        warnings.warn(loaded.problem, RecordWarning, stacklevel=2)
    _log_written([loaded])
    index, facts = loaded.index, loaded.facts
    return Inspection(
        path=path,
        bytes=file.size,
        records=facts["records"],
        images=index.height,
        identities=index["label"].n_unique(),
        identity_records=facts["identity_records"],
        layout=facts["layout"],
        image_bytes=int(index["length"].sum()),
        images_by_flag={int(flag): count for flag, count in facts["flags"].items()},
        label_range=(index["label"].min(), index["label"].max()),  # type: ignore[arg-type]
        object_images=facts["object_images"],
        idx_used=facts["idx_used"],
        problems=(*facts["label_problems"], *facts["range_problems"], *facts["problems"]),
        index=index,
    )


def paths_of(rec: Paths, argument: str = "rec") -> tuple[list[Path], bool]:
    """The ``.rec`` files that a user gives as this argument, and whether as a sequence."""
    if isinstance(rec, (str, os.PathLike)):
        return [Path(rec)], False
    try:
        paths = [Path(one) for one in rec]
    except TypeError:
        raise OptionError(argument, f"must be the path of a .rec file or several, not {rec!r:.100}") from None
    if not paths:
        raise OptionError(argument, "must be a .rec file or several, not an empty list")
    seen: dict[object, Path] = {}
    for path in paths:
        first = seen.setdefault(_file_at(path), path)
        if first is not path:
            also = "" if str(path) == str(first) else f" (also as {first})"
            raise OptionError(
                argument,
                f"must name each file once: {path} is given twice{also}, and each image would be its own "
                "positive",
            )
    return paths, True


def _file_at(path: Path) -> object:
    """What all paths of a file have in common, through symbolic and hard links."""
    try:
        status = path.stat()
    except OSError:  # opening it says what is wrong
        return path
    return status.st_dev, status.st_ino


def index_files(
    paths: Sequence[Path],
    files: Sequence[_core.RecordFile],
    *,
    several: bool,
    options: IndexOptions,
    threads: int | None,
) -> Indexed:
    """Index open files as :func:`index_rec` does; of `several` with the column ``file``."""
    all_loaded, numberings = [], []
    for path, file in zip(paths, files, strict=True):
        loaded = _load(path, file, options.cache, threads)
        facts = loaded.facts
        if loaded.problem:
            warnings.warn(loaded.problem, RecordWarning, stacklevel=3)
        for problems in (facts["problems"], facts["label_problems"], facts["range_problems"]):
            if problems:
                more = "; `fasttriplet index` lists all problems" if len(problems) > 1 else ""
                warnings.warn(problems[0] + more, RecordWarning, stacklevel=3)
        all_loaded.append(loaded)
        if len(paths) > 1 and options.labels != "shared":
            numberings.append(Numbering.of(path, facts["layout"], loaded.index))
    _log_written(all_loaded)
    frames = [loaded.index for loaded in all_loaded]
    shifts = [0] * len(paths)
    if options.labels == "separate" and numberings:
        shifts = label_shifts(numberings)
    elif reason := doubt(numberings):
        warnings.warn(reason, RecordWarning, stacklevel=3)
    if several:
        frames = [
            frame.with_columns(
                pl.lit(number, pl.UInt32).alias("file"), *([pl.col("label") + shift] if shift else [])
            )
            for number, (frame, shift) in enumerate(zip(frames, shifts, strict=True))
        ]
    return Indexed(
        pl.concat(frames, rechunk=True),
        tuple(shifts),
        keys_are_ids=tuple(loaded.facts["keys_are_ids"] for loaded in all_loaded),
        kept=tuple(None if loaded.kept is None else str(loaded.kept) for loaded in all_loaded),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """The index of one file, and what is known of the file besides."""

    index: pl.DataFrame
    facts: Facts
    kept: Path | None = None  # where the index was read from, if it was kept
    written: Path | None = None  # where the index was written, if it was
    problem: str | None = None  # what is wrong with the index that was kept, if something is


def _load(path: Path, file: _core.RecordFile, cache: Cache, threads: int | None) -> _Loaded:
    ensure_polars_threads()
    idx = idx_beside(path)
    place = IndexCache.of(path, cache)
    if place is None:
        built = _build(path, file, idx, threads)
        return _Loaded(_frame(built.columns), built.facts)
    before = place.stamp(file, idx)
    found = place.load(before, file)
    if found.index:
        return _Loaded(_frame(found.index.columns), found.index.facts, kept=place.path)
    if found.free:
        place.check()
        settle(before)
    built = _build(path, file, idx, threads)
    unchanged = place.stamp(file, idx_beside(path)) == before
    written = found.free and unchanged and place.store(before, built, file)
    return _Loaded(
        _frame(built.columns), built.facts, written=place.path if written else None, problem=found.problem
    )


def _log_written(loaded: Sequence[_Loaded]) -> None:
    if paths := [one.written for one in loaded if one.written]:
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        _log.info("the index is kept for later runs in %s%s", paths[0], more)


def _frame(columns: Columns) -> pl.DataFrame:
    # Signed, so that differences of keys and offsets are what they seem.
    return pl.DataFrame(columns, schema=dict.fromkeys(COLUMNS, pl.Int64()))


def _build(path: Path, file: _core.RecordFile, idx: Path | None, threads: int | None) -> FileIndex:
    scan = _core.scan(file, idx, threads)
    columns = dict(zip(COLUMNS, (scan.keys, scan.labels, scan.offsets, scan.lengths), strict=True))
    if (scan.keys[1:] < scan.keys[:-1]).any():
        order = np.argsort(scan.keys)
        columns = {name: column[order] for name, column in columns.items()}
    identities = _identity_ranges.check(path, scan, columns["key"], columns["label"])
    facts = Facts(
        records=scan.keys.size + scan.bare_keys.size,
        layout="insightface" if identities.announced else "flat",
        identity_records=identities.count,
        flags={str(flag): count for flag, count in scan.flags.items()},
        object_images=scan.objects,
        idx_used=idx is not None and not scan.rebuilt,
        keys_are_ids=scan.keys_are_ids,
        problems=scan.problems,
        label_problems=_labels.problems(path, scan),
        range_problems=identities.problems,
    )
    return FileIndex(columns, facts)
