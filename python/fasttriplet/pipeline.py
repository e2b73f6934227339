"""The whole line, from ``.rec`` files to triplets, bag by bag."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._index_cache import cache_path
from fasttriplet.checks import one_of, whole_number
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import NoTripletsError
from fasttriplet.explain import why_no_triplets
from fasttriplet.images import OnError, decode_rows
from fasttriplet.index import index_rec
from fasttriplet.mining import Band, Pairs, Pick, Triplets, mine
from fasttriplet.order import Bag, Boundary, Tail, bags, epoch_seed, triplet_seq
from fasttriplet.recordio import RecordFile
from fasttriplet.sink import open_sink
from fasttriplet.summary import Progress, Summary

# Images between two tellings of progress: a network on a CPU takes ten seconds for so many.
_EMBED_AT_ONCE = 1024

_NO_IMAGES = pl.DataFrame(schema={"key": pl.Int64, "label": pl.Int64})

_FILE_BITS = 48  # of several files: an id is the key, and above these bits the file


@dataclass(frozen=True, slots=True, eq=False)
class MineResult:
    """What :func:`mine_rec` returns.

    Attributes
    ----------
    triplets : pl.LazyFrame
        One row per triplet: ``epoch, bag, anchor_key, positive_key, negative_key, anchor_label,
        negative_label, d_ap, d_an``, and for several files ``anchor_file, positive_file, negative_file``.
        Distances are squared L2.
    summary : Summary
    """

    triplets: pl.LazyFrame
    summary: Summary


def mine_rec(
    rec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    model: str | Embedder = "pixels",
    out: str | os.PathLike[str] | None = None,
    images_per_identity: int = 5,
    bag_size: int = 7200,
    boundary: Boundary = "keep",
    tail: Tail = "keep",
    epochs: int = 1,
    margin: float = 0.3,
    band: Band = "semihard",
    pick: Pick = "random",
    negatives_per_pair: int = 1,
    pairs: Pairs = "unordered",
    max_ap: float | None = None,
    normalize: bool = True,
    max_triplets: int | None = None,
    on_error: OnError = "raise",
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> MineResult:
    """Mine the triplets of a dataset: index, order, decode, embed and mine, bag by bag.

    Parameters
    ----------
    rec : path or sequence of paths
        The ``.rec`` file, or several that are shards of one dataset.
    model : str or Embedder, default "pixels"
        What turns images into embeddings: an embedder, or a spec for :func:`fasttriplet.load_embedder`.
        The default is a baseline that needs no model.
    out : path, optional
        A parquet file for the triplets, written bag by bag under another name and renamed at the end.
        Without it the triplets are kept in memory.
    images_per_identity, bag_size, boundary, tail
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`.
    epochs : int, default 1
        Passes over the dataset, each in another order and with other picks.
    margin, band, pick, negatives_per_pair, pairs, max_ap, normalize
        See :func:`fasttriplet.mine`. Semi-hard is ``d_ap < d_an < d_ap + margin`` on squared L2.
    max_triplets : int, optional
        Stop when there are as many.
    on_error : {"raise", "skip"}, default "raise"
        What to do about an image that cannot be read or decoded, or is of another size than the others:
        end the run, or leave the image out and list it in the summary. The size is that of the first
        image, with ``"skip"`` the most frequent one of the first bag.
    seed : int, default 0
        Of the order and the picks. ``mine`` runs with ``epoch_seed(seed, epoch)`` and with the keys as
        ids (of several files: key + file * 2**48), so that a bag can be mined again by hand.
    threads : int, optional
        For decoding and mining; by default one for each core. A network's own threads are not counted.
    progress : callable, optional
        Called with a :class:`Progress` every thousand images and after each bag.

    Returns
    -------
    MineResult
        The triplets (a scan of `out`, or in memory) and a summary.

    Raises
    ------
    NoTripletsError
        If the whole run finds none; the message says why. Nothing is written.
    RecordError
        If a record is damaged, unless it is to be skipped; names file, key and offset.
    OSError
        If a file cannot be read or written.
    ValueError
        For wrong options, before anything is read; and if the images do not fit the model.
    """
    options: dict[str, Any] = {
        "margin": margin,
        "band": band,
        "pairs": pairs,
        "max_ap": max_ap,
        "normalize": normalize,
    }
    picks: dict[str, Any] = {"pick": pick, "negatives_per_pair": negatives_per_pair}
    whole_number("epochs", epochs, 1)
    if max_triplets is not None:
        whole_number("max_triplets", max_triplets, 1)
    one_of("on_error", on_error, get_args(OnError))
    # The stages check the other options: without images they do nothing else.
    list(bags(triplet_seq(_NO_IMAGES, images_per_identity, seed), bag_size, boundary, tail))
    mine(np.empty((0, 1), dtype=np.float32), [], seed=seed, threads=threads, **options, **picks)

    paths = Path(rec) if isinstance(rec, (str, os.PathLike)) else [Path(path) for path in rec]
    files = [paths] if isinstance(paths, Path) else paths
    embedder = load_embedder(model) if isinstance(model, str) else model
    summary = Summary([str(path) for path in files], embedder.description)
    target = None if out is None else Path(out)
    if target is not None:
        _refuse_to_replace(files, target)
    with summary.clock("total"), open_sink(target) as sink:
        with summary.clock("index"):
            index = index_rec(paths, threads=threads)
            embedder.prepare(index)
        summary.images_indexed, summary.identities = index.height, index["label"].n_unique()
        miner = _BagMiner(
            files=[RecordFile(path) for path in files],
            embedder=embedder,
            summary=summary,
            on_error=on_error,
            threads=threads,
            seed=seed,
            options=options,
            picks=picks,
            tell=progress or (lambda _: None),
        )
        for epoch in range(epochs):
            with summary.clock("index"):
                seq = triplet_seq(index, images_per_identity, seed, epoch)
                in_epoch = list(bags(seq, bag_size, boundary, tail))
            images_in_all = epochs * sum(bag.rows.height for bag in in_epoch)
            summary.epochs = epoch + 1
            for bag in in_epoch:
                where = (epoch + 1, epochs, bag.number + 1, len(in_epoch))
                now = Progress(*where, summary.images, images_in_all, summary.triplets)
                found = miner.mine(bag, epoch, now)
                if max_triplets is not None:
                    found = found.head(max_triplets - summary.triplets)
                summary.triplets += found.height
                with summary.clock("write"):
                    sink.append(found)
                miner.tell(replace(now, images=summary.images, triplets=summary.triplets))
                if summary.triplets == max_triplets:
                    summary.stopped_at_max_triplets = True
                    break
            if summary.stopped_at_max_triplets:
                break
        if summary.triplets == 0:
            raise NoTripletsError(_no_triplets(summary, bag_size))
        with summary.clock("write"):
            summary.measure(sink.join())  # before others can replace the file
            triplets = sink.publish()
            summary.out = None if target is None else str(target)
    return MineResult(triplets, summary)


def _refuse_to_replace(files: list[Path], target: Path) -> None:
    for path in filter(Path.is_file, files):
        # By name, too: the index is cached during this run, and a new .idx would be believed in the next.
        for part in (path, path.with_suffix(".idx"), cache_path(path)):
            same = part.exists() and target.exists() and part.samefile(target)
            if same or part.resolve() == target.resolve():
                what = "the dataset's index" if part == cache_path(path) else "the dataset"
                raise ValueError(f"out: {target} is {what}; give another name for the triplets")


@dataclass(slots=True)
class _BagMiner:
    """Takes a bag through decode, embed and mine."""

    files: list[RecordFile]
    embedder: Embedder
    summary: Summary
    on_error: OnError
    threads: int | None
    seed: int
    options: dict[str, Any]
    picks: dict[str, Any]
    tell: Callable[[Progress], object]
    size: tuple[int, int] | None = None  # of the images, once one is decoded

    def mine(self, bag: Bag, epoch: int, now: Progress) -> pl.DataFrame:
        """Triplets of a bag, with the columns of the output; `now` is how far the run was before it."""
        summary, rows, images = self.summary, bag.rows, None
        if self.embedder.needs_images:
            with summary.clock("decode"):
                decoded = decode_rows(
                    self.files, rows, size=self.size, threads=self.threads, on_error=self.on_error
                )
            images, rows = decoded.pixels, rows[decoded.kept]
            if len(images):
                self.size = images.shape[1], images.shape[2]
            failed = (str(error) for _, error in decoded.failed)
            summary.skipped = list(dict.fromkeys([*summary.skipped, *failed]))  # once in all epochs
        embedded = []
        for start in range(0, rows.height, _EMBED_AT_ONCE):
            some = slice(start, start + _EMBED_AT_ONCE)
            with summary.clock("embed"):
                embedded.append(self.embedder.embed(rows[some], None if images is None else images[some]))
            self.tell(replace(now, images=now.images + min(some.stop, rows.height)))
        embeddings = np.concatenate(embedded) if embedded else np.empty((0, 1), dtype=np.float32)
        labels, ids = rows["label"].to_numpy(), _ids(rows)
        with summary.clock("mine"):
            triplets = mine(
                embeddings,
                labels,
                ids=ids,
                seed=epoch_seed(self.seed, epoch),
                threads=self.threads,
                **self.options,
                **self.picks,
            )
        stats = triplets.stats
        summary.bags += 1
        summary.images += rows.height
        summary.pairs += stats.pairs
        summary.pairs_without_negative += stats.pairs_without_negative
        summary.pairs_over_max_ap += stats.pairs_over_max_ap
        if len(triplets) == 0:
            summary.bags_without_triplets += 1
            if summary.why_no_triplets is None:
                why = why_no_triplets(embeddings, labels, stats, threads=self.threads, **self.options)
                summary.why_no_triplets = f"epoch {epoch}, bag {bag.number}: {why}"
        return _frame(triplets, rows, ids, epoch, bag.number)


def _ids(rows: pl.DataFrame) -> NDArray[np.int64]:
    keys = rows["key"].to_numpy()
    if "file" not in rows.columns:
        return keys
    if keys.size and not 0 <= keys.min() <= keys.max() < 1 << _FILE_BITS:
        raise ValueError(f"of several files, keys must be from 0 to 2**{_FILE_BITS} - 1")
    return np.asarray(keys + (rows["file"].to_numpy().astype(np.int64) << _FILE_BITS))


def _frame(
    triplets: Triplets, rows: pl.DataFrame, ids: NDArray[np.int64], epoch: int, bag: int
) -> pl.DataFrame:
    order = np.argsort(ids)
    roles = {
        role: rows[order[np.searchsorted(ids, of_role, sorter=order)]]
        for role, of_role in zip(("anchor", "positive", "negative"), triplets, strict=True)
    }
    columns = {
        "epoch": pl.repeat(epoch, len(triplets), dtype=pl.Int32, eager=True),
        "bag": pl.repeat(bag, len(triplets), dtype=pl.Int32, eager=True),
        **{f"{role}_key": of_role["key"] for role, of_role in roles.items()},
        "anchor_label": roles["anchor"]["label"],
        "negative_label": roles["negative"]["label"],
        "d_ap": triplets.d_ap,
        "d_an": triplets.d_an,
    }
    if "file" in rows.columns:
        columns |= {f"{role}_file": of_role["file"] for role, of_role in roles.items()}
    return pl.DataFrame(columns)


def _no_triplets(summary: Summary, bag_size: int) -> str:
    if summary.bags == 0:
        return f"no bag has {bag_size} images: lower bag_size, or use tail='keep'"
    return f"no triplet in {summary.bags} bags of {summary.images} images; {summary.why_no_triplets}"
