"""A run that mines a whole dataset at once: embeddings in a file, and blocks of them in memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._files import folder_beside, replacing
from fasttriplet._npy import Table
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Rec
from fasttriplet.dataset._order import Bag, epoch_seed
from fasttriplet.embedders._base import image_named
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.errors import CollapsedError, NoTripletsError
from fasttriplet.mining._blocks import AllRows, most_rows
from fasttriplet.mining._explain import why_collapsed, why_never_triplets, why_no_triplets
from fasttriplet.mining._mine import MiningStats, Triplets, mine_rows
from fasttriplet.mining._options import MiningOptions
from fasttriplet.mining._steps import Steps, cut
from fasttriplet.run._embed_rec import embed_rec
from fasttriplet.run._stages import Mined, Stages
from fasttriplet.run._summary import Progress

_PIECE = 2**26  # bytes of the file that are read at once
_SAMPLE = 4096  # rows that show whether the embeddings have collapsed
_TOGETHER = 2**22  # triplets that are sorted at once

_KIND, _VERSION = "unfinished mining", 1
_ABOUT = "about.json"

Report = Callable[[int, int, int], object]  # steps done, of how many, triplets so far


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Some rows of a file of embeddings, in an order of their own."""

    table: Table
    at: NDArray[np.int64]  # rows of the file

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.at), self.table.shape[1]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        return self.table.rows(self.at[rows]).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What one pass over a file of embeddings found."""

    digest: str
    not_finite: NDArray[np.int64]  # rows


def read_through(table: Table) -> _Read:
    """Read a file from its first to its last row."""
    digest, bad = hashlib.blake2b(digest_size=16), []
    step = max(1, _PIECE // table.row_size)
    for first in range(0, len(table), step):
        rows = table.rows(np.arange(first, min(first + step, len(table))))
        digest.update(np.ascontiguousarray(rows).data)
        with np.errstate(over="ignore"):
            finite = np.isfinite(rows.astype(np.float32, copy=False)).all(axis=1)
        bad.append(first + np.flatnonzero(~finite))
    digest.update(f"{table.shape} {table.dtype}".encode())
    return _Read(digest.hexdigest(), np.concatenate(bad) if bad else np.empty(0, np.int64))


class Whole:
    """Mines a whole dataset; the triplets come from :meth:`triplets`, in the order of their ids.

    Parameters
    ----------
    stages : Stages
        Opened with :meth:`Stages.open_whole`.
    embedder : PrecomputedEmbedder
        Of all images of the dataset.
    folder : Path
        For what is done so far.
    keeps : bool
        Whether the folder stays after an error.
    """

    def __init__(self, stages: Stages, embedder: PrecomputedEmbedder, folder: Path, *, keeps: bool) -> None:
        self._stages, self._embedder, self._table, self._keeps = stages, embedder, embedder.table, keeps
        self._options = stages.options
        index, at = stages.index, stages.rows_of_index
        self._read = read_through(self._table)
        left_out = np.isin(at, self._read.not_finite)
        if left_out.any():
            self._leave_out(index, at, left_out)
        index, at = index.filter(~left_out), at[~left_out]
        labels = index["label"].to_numpy()
        if why := why_never_triplets(np.unique(labels, return_counts=True)[1], self._options):
            raise NoTripletsError(f"of the images with an embedding: {why}")
        order = np.argsort(labels, kind="stable")
        self._index, self._ids = index, stages.dataset.ids[at]
        ids = self._ids
        mining = MiningOptions(**{name: getattr(self._options, name) for name in MiningOptions.names()})
        rows = AllRows(_Rows(self._table, at[order]), labels[order], ids[order], self._read.digest)
        self.steps = Steps(
            rows,
            cut(rows.labels, most_rows(self._table.shape, self._options.memory)),
            mining,
            epoch_seed(self._options.seed, 0),
            folder,
        )

    def _leave_out(self, index: pl.DataFrame, at: NDArray[np.int64], left_out: NDArray[np.bool_]) -> None:
        summary = self._stages.summary
        if self._options.on_error == "raise":
            self._embedder.embed(index[np.flatnonzero(left_out)])  # which raises
        summary.skipped = [
            f"{image_named(index, row)}: "
            + self._embedder.why_skipped.get(int(at[row]), "its embedding holds NaN or infinity")
            for row in np.flatnonzero(left_out).tolist()
        ]

    def about(self) -> dict[str, Any]:
        """Of what the work in the folder is, as plain data."""
        plain: dict[str, Any] = json.loads(
            json.dumps({
                "triplets": self._stages.about(),
                "embeddings": self._read.digest,
                "blocks": self.steps.blocks,
            })
        )  # fmt: skip
        return plain

    def check_scatter(self) -> None:
        """Raise a CollapsedError if the embeddings of different identities are all but equal."""
        rows = self.steps.rows
        some = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
        embeddings, labels, _ = rows.taken(some)
        one_each = replace(self.steps.options, pairs="hardest", positives_per_anchor=None, pick="random")
        stats = mine_rows(one_each, (embeddings, labels, None), seed=0, threads=self._options.threads).stats
        if stats.collapsed:
            raise CollapsedError(f"{why_collapsed(stats)}. Check the images and the weights")

    def mine(self, report: Report) -> MiningStats:
        """Do what is left to do."""
        total = len(self.steps)
        report(0, total, 0)
        try:
            with self._stages.summary.clock("mine"):
                return self.steps.run(
                    threads=self._options.threads, progress=lambda done, found: report(done, total, found)
                )
        except BaseException as error:
            done = sum(self.steps.is_done(one, other) for one, other in self.steps)
            if done and self._keeps:
                kept = f"{done:,} of {counted(total, 'pair')} of blocks are kept in {self.steps.folder}"
                error.add_note(f"{kept}; resume=True continues with the others")
            raise

    def triplets(self, stats: MiningStats) -> Iterator[Mined]:
        """All triplets, some at a time."""
        bag = Bag(0, self._index)
        for some in self.steps.sorted_triplets(_TOGETHER):
            anchor, positive, negative, d_ap, d_an = (column.to_numpy() for column in some)
            found = Triplets(anchor, positive, negative, d_ap, d_an, stats)
            yield Mined(0, bag, self._index, self._ids, found, last=True, why_none=None)

    def check_unchanged(self) -> None:
        """Raise a ValueError if the file of embeddings was changed while it was mined."""
        if read_through(self._table).digest != self._read.digest:
            raise ValueError(
                f"{self._stages.summary.embedder}: the file was changed while it was mined, so nothing is "
                "written; mine it again"
            )

    def why_none(self, stats: MiningStats) -> str:
        """Why there are no triplets, as the first block shows."""
        first = self.steps.rows.taken(slice(*self.steps.blocks[0]))
        return why_no_triplets(first[0], first[1], stats, self.steps.options, threads=self._options.threads)


@contextmanager
def work_folder(out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder for the work of a run: beside its output, where it stays after an error, or a temporary one.

    Raises
    ------
    FileExistsError
        If there is work, and it is neither to be continued (`resume`) nor to be removed (`overwrite`).
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="fasttriplet-") as temporary:
            yield Path(temporary)
        return
    folder = folder_beside(out)
    about = folder / _ABOUT
    if os.path.lexists(folder) and _is_foreign(folder):
        raise FileExistsError(
            errno.EEXIST, "is in the way: it is not the folder of an unfinished run", str(folder)
        )
    if about.exists() and not resume:
        if not overwrite:
            raise FileExistsError(
                errno.EEXIST,
                "has the work of a run that did not end; resume=True continues it, overwrite=True starts "
                "again",
                str(folder),
            )
        shutil.rmtree(folder)
    if not about.exists():
        # Before images are embedded, which takes longest: what is there from now on can be continued.
        _write_about(about, overwrite=overwrite, of=None)
    try:
        yield folder
    except (NoTripletsError, CollapsedError):  # there is no more to find
        shutil.rmtree(folder)
        raise
    except BaseException:
        with suppress(OSError):
            if all(entry.name == _ABOUT for entry in folder.iterdir()):  # nothing is done
                shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _is_foreign(folder: Path) -> bool:
    """Whether no run has made a folder. One that was killed at once has only begun to write what it is of."""
    if folder.is_symlink() or not folder.is_dir():
        return True
    begun = {f".{_ABOUT}.unfinished"}
    return not (folder / _ABOUT).exists() and not {entry.name for entry in folder.iterdir()} <= begun


def _write_about(path: Path, *, overwrite: bool, of: dict[str, Any] | None) -> None:
    with replacing(path) as file:
        text = json.dumps({"fasttriplet": _KIND, "version": _VERSION, "overwrite": overwrite, "of": of})
        file.write_text(text, encoding="utf-8")


def _read_about(path: Path) -> dict[str, Any] | None:
    """What a run has written there; None if that is not of this version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    known = isinstance(found, dict) and (found.get("fasttriplet"), found.get("version")) == (_KIND, _VERSION)
    return found if known and isinstance(found.get("of"), (dict, NoneType)) else None


def may_overwrite(out: Path) -> bool:
    """Whether the run whose work is kept beside its output was allowed to replace that."""
    path = folder_beside(out) / _ABOUT
    found = _read_about(path) if path.is_file() else None
    return found is not None and found.get("overwrite") is True


def begin(folder: Path, about: dict[str, Any], *, overwrite: bool) -> None:
    """Make a folder say what the work in it is of; a ValueError if it is of something else."""
    path = folder / _ABOUT
    found = _read_about(path) if path.exists() else {"of": None}  # a temporary folder
    if found is None:
        raise ValueError(f"{folder} is not the work of a run of this version; overwrite=True starts again")
    before = found["of"]
    if before is None:
        _write_about(path, overwrite=overwrite, of=about)
        return
    differ = [name for name in about if before.get(name) != about[name]]
    if differ:
        raise ValueError(
            f"{folder} cannot be continued: {_difference(before, about, differ)}; run it as before, or "
            "overwrite=True starts again"
        )


def _difference(before: dict[str, Any], now: dict[str, Any], names: list[str]) -> str:
    if "triplets" in names:
        old, new = before.get("triplets") or {}, now["triplets"]
        for name in new:
            if old.get(name) != new[name] and name != "options":
                return f"it is of the {name} {old.get(name)!r}, not {new[name]!r}"
        for name, value in new["options"].items():
            known = (old.get("options") or {}).get(name)
            if known != value:
                return f"it was begun with {name} {known!r}, not {value!r}"
    if "embeddings" in names:
        return "the embeddings are others"
    return "its blocks have other sizes, as memory was another"


def mine_whole(
    stages: Stages,
    rec: Rec,
    folder: Path,
    *,
    keeps: bool,
    overwrite: bool,
    tell: Callable[[Progress], object],
) -> Iterator[Mined]:
    """Mine a whole dataset; gives the triplets in the order of their ids, some at a time."""
    stages.open_whole(rec)
    summary = stages.summary

    def report(steps: int, in_all: int, triplets: int) -> None:
        images = summary.images_indexed
        tell(Progress(1, 1, 1, 1, images, images, triplets, 0, steps, in_all))

    embedder = stages.embedder
    if not isinstance(embedder, PrecomputedEmbedder):
        embedder = _embedded(stages, folder, tell)
    whole = Whole(stages, embedder, folder, keeps=keeps)
    begin(folder, whole.about(), overwrite=overwrite)
    whole.check_scatter()
    stats = whole.mine(report)
    whole.check_unchanged()
    summary.epochs = summary.bags = 1
    summary.images = len(whole.steps.rows)
    summary.pairs, summary.pairs_over_max_ap = stats.pairs, stats.pairs_over_max_ap
    summary.pairs_without_negative = stats.pairs_without_negative
    yield from whole.triplets(stats)
    if summary.triplets == 0:
        summary.bags_without_triplets = 1
        summary.why_no_triplets = whole.why_none(stats)


def _embedded(stages: Stages, folder: Path, tell: Callable[[Progress], object]) -> PrecomputedEmbedder:
    """Embed all images of the dataset into the folder, or continue that."""

    def report(_: str, done: int, images: int) -> None:
        tell(Progress(1, 1, 1, 1, done, images, 0, 0))

    path = folder / "embeddings.npy"
    with stages.summary.clock("embed"):
        embed_rec(
            stages.dataset,
            model=stages.embedder,
            out=path,
            resume=True,
            on_error=stages.options.on_error,
            threads=stages.options.threads,
            progress=report,
        )
    embedder = PrecomputedEmbedder(path)
    embedder.prepare(stages.dataset.index)
    return embedder
