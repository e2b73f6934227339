"""One row per image of a ``.rec``: where it lies and whom it shows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

import polars as pl

from fasttriplet import _core
from fasttriplet._checks import thread_count
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._words import counted
from fasttriplet.dataset import _identity_ranges, _index_cache
from fasttriplet.dataset._recordio import idx_beside
from fasttriplet.errors import RecordError, RecordWarning

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Signed, so that differences of keys and offsets are what they seem.
_SCHEMA: dict[str, pl.DataType] = {name: pl.Int64() for name in ("key", "label", "offset", "length")}


class _Facts(TypedDict):
    """What is known of a file besides its index."""

    records: int
    layout: Literal["insightface", "flat"]
    identity_records: int
    flags: dict[str, int]
    idx_used: bool
    problems: list[str]
    range_problems: list[str]


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
    idx_used : bool
        False where the ``.idx`` is missing or does not fit, so that the index comes from the ``.rec``.
    problems : tuple of str
        What was found wrong and worked around, one line per problem.
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
    idx_used: bool
    problems: tuple[str, ...]
    index: pl.DataFrame

    @property
    def images_per_identity(self) -> pl.Series:
        """Counts of images, one for each identity, ascending."""
        return self.index.group_by("label").len("images")["images"].sort()


def index_rec(path: Paths, *, cache: bool = True, threads: int | None = None) -> pl.DataFrame:
    """Index the images of one or several ``.rec`` files.

    Identities come from the labels of the images (the first, where a record has several). Record 0
    and the identity records of InsightFace's layout hold no image and give no row. Their ranges of
    keys are compared with the labels and decide nothing: several identity records with images of one
    label are one identity.

    The offsets in the ``.idx`` are used when they prove to name each record of the file. If it is
    missing or does not fit, the records are found by going through the ``.rec`` (resynchronising
    after damage), and their ids are the keys.

    Parameters
    ----------
    path : path or sequence of paths
        The ``.rec`` file, or several that are shards of one dataset: the same label in two of them is
        the same identity.
    cache : bool
        Keep the index beside the file, as ``train.rec.index.parquet``, and use the one that is there.
        A cache that is older than the ``.rec`` or ``.idx``, or damaged, is replaced; where it cannot be
        written, there is none.
    threads : int, optional
        Threads that read headers; one per core by default.

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
        If a file cannot be read.
    ValueError
        If no path is given, or one path twice.

    Warns
    -----
    RecordWarning
        If something in a file is wrong and was worked around; :func:`inspect_rec` lists all.
    """
    paths, several = paths_of(path)
    threads = thread_count(threads)
    files = [_core.RecordFile(one) for one in paths]
    return index_files(paths, files, several=several, cache=cache, threads=threads)


def inspect_rec(
    path: str | os.PathLike[str], *, cache: bool = True, threads: int | None = None
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
        Counts, the layout, and each problem that was worked around. There are no warnings.

    Raises
    ------
    RecordError, OSError
        As :func:`index_rec`.
    """
    path, threads = Path(path), thread_count(threads)
    index, facts = _load(path, _core.RecordFile(path), cache, threads)
    return Inspection(
        path=path,
        bytes=path.stat().st_size,
        records=facts["records"],
        images=index.height,
        identities=index["label"].n_unique(),
        identity_records=facts["identity_records"],
        layout=facts["layout"],
        image_bytes=int(index["length"].sum()),
        images_by_flag={int(flag): count for flag, count in facts["flags"].items()},
        idx_used=facts["idx_used"],
        problems=(*facts["problems"], *facts["range_problems"]),
        index=index,
    )


def paths_of(rec: Paths) -> tuple[list[Path], bool]:
    """The ``.rec`` files that a user names, and whether as a sequence."""
    if isinstance(rec, (str, os.PathLike)):
        return [Path(rec)], False
    paths = [Path(one) for one in rec]
    if not paths:
        raise ValueError("path: expected a .rec file or several, got an empty list")
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(path.resolve(), path)
        if first is not path:
            raise ValueError(
                f"path: {path} is given twice (also as {first}); each image would be its own positive"
            )
    return paths, True


def index_files(
    paths: Sequence[Path],
    files: Sequence[_core.RecordFile],
    *,
    several: bool,
    cache: bool,
    threads: int | None,
) -> pl.DataFrame:
    """Index open files as :func:`index_rec` does; of `several` with the column ``file``."""
    frames = []
    for number, (path, file) in enumerate(zip(paths, files, strict=True)):
        index, facts = _load(path, file, cache, threads)
        for problems in (facts["problems"], facts["range_problems"]):
            if problems:
                more = f" (and {len(problems) - 1} more: see inspect_rec)" if len(problems) > 1 else ""
                warnings.warn(problems[0] + more, RecordWarning, stacklevel=3)
        frames.append(index.with_columns(pl.lit(number, pl.UInt32).alias("file")) if several else index)
    return pl.concat(frames, rechunk=True)


def _load(
    path: Path, file: _core.RecordFile, cache: bool, threads: int | None
) -> tuple[pl.DataFrame, _Facts]:
    ensure_polars_threads()
    idx = idx_beside(path)
    if not cache:
        return _build(path, file, idx, threads)
    before = _index_cache.stamp(path, idx)
    if kept := _index_cache.load(path, before, _SCHEMA):
        return kept
    built = _build(path, file, idx, threads)
    if _index_cache.stamp(path, idx_beside(path)) == before:
        _index_cache.store(path, before, *built)
    return built


def _build(
    path: Path, file: _core.RecordFile, idx: Path | None, threads: int | None
) -> tuple[pl.DataFrame, _Facts]:
    scan = _core.scan(file, idx, threads)
    columns = (scan.keys, scan.labels, scan.offsets, scan.lengths)
    index = pl.DataFrame(dict(zip(_SCHEMA, columns, strict=True)), schema=_SCHEMA)
    if not index["key"].is_sorted():
        index = index.sort("key")
    records = index.height + scan.bare_keys.size
    problems = list(scan.problems)
    if index.height == 0:
        why = "all are empty" if records else "; ".join(problems) or "none is readable"
        raise RecordError(f"{path}: no image in its {counted(records, 'record')}: {why}")
    identities = _identity_ranges.check(path, scan, index["key"].to_numpy(), index["label"].to_numpy())
    if identities.empty.size:
        key, offset = scan.bare_keys[identities.empty[0]], scan.bare_offsets[identities.empty[0]]
        problems.append(
            f"{path}, key {key}, offset {offset}: the record is empty and was left out "
            f"({identities.empty.size} such records)"
        )
    facts = _Facts(
        records=records,
        layout="insightface" if identities.announced else "flat",
        identity_records=identities.count,
        flags={str(flag): count for flag, count in scan.flags.items()},
        idx_used=idx is not None and not scan.rebuilt,
        problems=problems,
        range_problems=identities.problems,
    )
    return index, facts
