"""What mining to a file and feeding a training have in common: a dataset on its way to triplets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import one_of, whole_number
from fasttriplet.dataset._ids import image_ids
from fasttriplet.dataset._images import OnError, decode_rows, size_of_images
from fasttriplet.dataset._index import index_rec
from fasttriplet.dataset._order import Bag, Boundary, Tail, bags, epoch_seed, triplet_seq
from fasttriplet.dataset._recordio import RecordFile
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import NoTripletsError
from fasttriplet.mining._explain import why_no_triplets
from fasttriplet.mining._mine import Band, Pairs, Pick, Triplets, mine
from fasttriplet.run._summary import Summary

# Images that are decoded, and embedded, at once. A network on a CPU takes ten seconds for so many; a GPU
# takes 0.1 s, long against what a call costs.
PART = 1024

# Threads that decode and mine beside the one that feeds the network give way to it: where all cores are busy,
# it would be woken late.
NICE = 5

Images = NDArray[np.uint8] | None

_NO_IMAGES = pl.DataFrame(schema={"key": pl.Int64, "label": pl.Int64})


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of a bag's images.

    Attributes
    ----------
    epoch : int
        From 0.
    bag : Bag
        Where they are from; its rows may hold images that were left out.
    bags, images_of_epoch : int
        How many there are in the epoch.
    rows : pl.DataFrame
        Rows of the index, one for each image.
    last : bool
        Whether it is the bag's last part.
    """

    epoch: int
    bag: Bag
    bags: int
    images_of_epoch: int
    rows: pl.DataFrame
    last: bool


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """A bag's triplets.

    Attributes
    ----------
    epoch : int
    bag : Bag
    rows : pl.DataFrame
        Rows of the index that were mined.
    ids : (B,) int64
        A number for each of them that no other image of the dataset has.
    triplets : Triplets
        Of these ids.
    why_none : str or None
        What explains that there are none.
    """

    epoch: int
    bag: Bag
    rows: pl.DataFrame
    ids: NDArray[np.int64]
    triplets: Triplets
    why_none: str | None

    def positions(self) -> tuple[NDArray[np.int64], ...]:
        """Where the anchors, positives and negatives are among the rows: (T,) int64 each."""
        order = np.argsort(self.ids)
        return tuple(order[np.searchsorted(self.ids, role, sorter=order)] for role in self.triplets)


class Line:
    """From records to triplets, stage by stage; what each stage did is in `summary`.

    The arguments are those of :func:`fasttriplet.mine_rec`, and are checked before anything is read; a line
    `for_training` decodes the images whatever the model.
    """

    def __init__(
        self,
        rec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        model: str | Embedder,
        *,
        images_per_identity: int,
        bag_size: int,
        boundary: Boundary,
        tail: Tail,
        margin: float,
        band: Band,
        pick: Pick,
        negatives_per_pair: int,
        pairs: Pairs,
        max_ap: float | None,
        normalize: bool,
        on_error: OnError,
        seed: int,
        threads: int | None,
        prefetch: int,
        memory: int | None,
        for_training: bool = False,
    ) -> None:
        one_of("on_error", on_error, get_args(OnError))
        whole_number("prefetch", prefetch, 0)
        if memory is not None:
            whole_number("memory", memory, 1)
        options: dict[str, Any] = {
            "margin": margin,
            "band": band,
            "pairs": pairs,
            "max_ap": max_ap,
            "normalize": normalize,
        }
        picks: dict[str, Any] = {"pick": pick, "negatives_per_pair": negatives_per_pair}
        # The stages check the other options: without images they do nothing else.
        list(bags(triplet_seq(_NO_IMAGES, images_per_identity, seed), bag_size, boundary, tail))
        mine(np.empty((0, 1), dtype=np.float32), [], seed=seed, threads=threads, **options, **picks)

        self.paths = [Path(rec)] if isinstance(rec, (str, os.PathLike)) else [Path(path) for path in rec]
        self._one_file = isinstance(rec, (str, os.PathLike))
        self.embedder = load_embedder(model) if isinstance(model, str) else model
        self._decodes = for_training or self.embedder.needs_images
        self.summary = Summary([str(path) for path in self.paths], self.embedder.description)
        self._images_per_identity, self._bag_size = images_per_identity, bag_size
        self._boundary, self._tail = boundary, tail
        self._options, self._picks = options, picks
        self._on_error, self._seed, self._threads = on_error, seed, threads
        self._prefetch, self._memory = prefetch, memory
        self._index = _NO_IMAGES
        self._files: list[RecordFile] = []
        self._size: tuple[int, int] | None = None
        self._fingerprint: str | None = None
        self.largest_bag = bag_size  # images, at least 1; less when the files are open and hold less

    def open(self) -> None:
        """Index the files and find out how large their images are."""
        with self.summary.clock("index"):
            self._index = index_rec(self.paths[0] if self._one_file else self.paths, threads=self._threads)
            self.embedder.prepare(self._index)
            self._files = [RecordFile(path) for path in self.paths]
            self.summary.images_indexed = self._index.height
            self.summary.identities = self._index["label"].n_unique()
            in_epoch = self._bags(0)
            # The same images an identity in each epoch: what fits a bag now fits one then.
            self.largest_bag = max(1, min(self._bag_size, sum(bag.rows.height for bag in in_epoch)))
            if not self._decodes:
                return
            for bag in in_epoch:
                self._size = size_of_images(
                    self._files, bag.rows, on_error=self._on_error, threads=self._threads
                )
                if self._size is not None:
                    break

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images; (0, 0) if there are none."""
        return self._size or (0, 0)

    def waiting_for_images(self) -> AbstractContextManager[None]:
        """What to enter while waiting for :meth:`parts`."""
        return self.summary.waiting("decode" if self._decodes else "index")

    @property
    def part_size(self) -> int:
        """How many images to decode and embed at once: two such parts fit the memory, where one can."""
        most = min(PART, self.largest_bag)
        if self._memory is None or self._size is None:
            return most
        height, width = self._size
        return min(most, max(1, self._memory // (2 * height * width * 3)))

    def depth(self, images: int) -> int:
        """How many parts of so many images each may be decoded ahead of the one in use.

        Raises
        ------
        ValueError
            If not even one fits the memory.
        """
        ahead = -(-self._prefetch * self.largest_bag // images)
        if self._memory is None or self._size is None:
            return ahead
        height, width = self._size
        need = images * height * width * 3
        if need > self._memory:
            raise ValueError(
                f"memory: {images:,} images of {height} x {width} take {need:,} bytes, and only "
                f"{self._memory:,} are allowed; raise memory" + (", or lower bag_size" if images > 1 else "")
            )
        return min(ahead, self._memory // need - 1)

    def _bags(self, epoch: int) -> list[Bag]:
        seq = triplet_seq(self._index, self._images_per_identity, self._seed, epoch)
        return list(bags(seq, self._bag_size, self._boundary, self._tail))

    def parts(
        self, epoch: int, images: int | None = None, *, first_bag: int = 0
    ) -> Generator[tuple[Part, Images], None, None]:
        """Decode one epoch from some bag on, bag by bag, in parts of so many images or as whole bags.

        Yields
        ------
        Part
        (B, H, W, 3) uint8, or None
            Its images; None if the embedder needs none. Apart from it, so that they can be let go.
        """
        with self.summary.clock("index", beside=True):
            in_epoch = self._bags(epoch)
        images_of_epoch = sum(bag.rows.height for bag in in_epoch)
        for bag in in_epoch[first_bag:]:
            step = bag.rows.height if images is None else images
            for start in range(0, bag.rows.height, step):
                rows, pixels = self._decode(bag.rows[start : start + step])
                last = start + step >= bag.rows.height
                yield Part(epoch, bag, len(in_epoch), images_of_epoch, rows, last), pixels
                del pixels  # not to be held while the next are decoded

    def _decode(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Images]:
        if not self._decodes:
            return rows, None
        with self.summary.clock("decode", beside=True):
            decoded = decode_rows(
                self._files, rows, size=self._size, threads=self._threads, on_error=self._on_error
            )
        if decoded.failed:
            failed = (str(error) for _, error in decoded.failed)
            self.summary.skipped = list(dict.fromkeys([*self.summary.skipped, *failed]))  # once in all epochs
        return rows[decoded.kept], decoded.pixels

    def fingerprint(self) -> str:
        """What tells the dataset from others: of the keys, labels and lengths of all records."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=8)
            for name in ("key", "label", "length"):
                digest.update(self._index[name].cast(pl.Int64).to_numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def again(self, ids: NDArray[np.int64]) -> tuple[pl.DataFrame, Images]:
        """Decode the images that have these ids, in the order of the index.

        Raises
        ------
        ValueError
            If there is no such image, or it is one that is left out.
        """
        rows, images = self._decode(self._index.filter(np.isin(image_ids(self._index), ids)))
        if (missing := np.setdiff1d(ids, image_ids(rows))).size:
            raise ValueError(
                f"state: {', '.join(map(str, self.paths))} has no image with the id {missing[0]}, of which "
                f"triplets were mined; was the dataset changed?"
            )
        return rows, images

    def embed(self, rows: pl.DataFrame, images: Images) -> NDArray[np.float32]:
        """Embed images that were decoded."""
        with self.summary.clock("embed"):
            return self.embedder.embed(rows, images if self.embedder.needs_images else None)

    def mine(
        self,
        epoch: int,
        bag: Bag,
        rows: pl.DataFrame,
        embeddings: NDArray[np.float32],
        *,
        explain: bool,
        beside: bool,
    ) -> Mined:
        """Mine a bag, here or beside the run, and explain if asked to why it has no triplets."""
        labels, ids = rows["label"].to_numpy(), image_ids(rows)
        with self.summary.clock("mine", beside=beside):
            triplets = mine(
                embeddings,
                labels,
                ids=ids,
                seed=epoch_seed(self._seed, epoch),
                threads=self._threads,
                **self._options,
                **self._picks,
            )
        why = None
        if len(triplets) == 0 and explain:
            why = why_no_triplets(embeddings, labels, triplets.stats, threads=self._threads, **self._options)
            why = f"epoch {epoch}, bag {bag.number}: {why}"
        return Mined(epoch, bag, rows, ids, triplets, why)

    def count(self, mined: Mined) -> None:
        """Enter a bag in the summary, all but how many of its triplets are used."""
        summary, stats = self.summary, mined.triplets.stats
        summary.epochs = mined.epoch + 1
        summary.bags += 1
        summary.images += mined.rows.height
        summary.pairs += stats.pairs
        summary.pairs_without_negative += stats.pairs_without_negative
        summary.pairs_over_max_ap += stats.pairs_over_max_ap
        summary.bags_without_triplets += len(mined.triplets) == 0
        summary.why_no_triplets = summary.why_no_triplets or mined.why_none

    def no_triplets(self) -> NoTripletsError:
        """The error for a run that found none."""
        summary = self.summary
        if summary.bags == 0:
            return NoTripletsError(f"no bag has {self._bag_size} images: lower bag_size, or use tail='keep'")
        return NoTripletsError(
            f"no triplet in {summary.bags} bags of {summary.images} images; {summary.why_no_triplets}"
        )
