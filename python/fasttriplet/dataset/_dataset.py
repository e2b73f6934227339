"""The images of one or several ``.rec`` files: what all stages of a run share."""

from __future__ import annotations

import hashlib
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import thread_count
from fasttriplet._forks import cached_property, ensure_polars_threads, importing
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._ids import Integers, ids_of, integers, places_among
from fasttriplet.dataset._images import Decoded, Places, decode_records, size_of_records
from fasttriplet.dataset._index import Paths, index_files, paths_of
from fasttriplet.dataset._options import MAX_PIXELS, DatasetKeywords, DatasetOptions, OnError
from fasttriplet.dataset._recordio import IRHeader
from fasttriplet.errors import OptionError, RecordError

if TYPE_CHECKING:
    import polars as pl


# Records of each file that are compared with the index when a dataset is unpickled.
_SAMPLED = 8


class Dataset:
    """The images of one or several ``.rec`` files.

    It holds the open files and one NumPy array for each column of their index. It can be pickled, given to
    the workers of a data loader, and used after a fork. It reads and decodes in all of them; `index`, which
    is a Polars frame, is for the process that made the dataset and for processes that were spawned.

    If another file is renamed over one of the paths, the dataset keeps reading the file that it opened. Each
    record that is read is compared with the index: the length of its content, its label, and its id where the
    keys of the file are the ids of its records. So a file that is overwritten in place gives an error, and no
    image under the label of another.

    Parameters
    ----------
    rec : path or sequence of paths
        The ``.rec`` file, or several that make one dataset.
    threads, labels, cache
        See :func:`fasttriplet.index_rec`.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.

    Attributes
    ----------
    paths : list of Path
        The files.
    keys, labels, offsets, lengths : (N,) int64
        The columns of the index, one entry per image, in the order of file and key. Read-only.
    files : (N,) uint32
        Which of `paths` an image is in.
    label_shifts : tuple of int
        What was added to the labels of each file: 0 unless ``labels="separate"``. With them,
        ``labels - np.array(label_shifts)[files]`` are the labels in the files.
    options : DatasetOptions
        `labels`, `cache` and `max_pixels` as they were given.
    ids : (N,) int64
        A number for each image that no other image of the dataset has: its key, or for a sequence of paths
        key + file * 2**48.

    Raises
    ------
    RecordError, OSError, RuntimeError, ValueError
        As :func:`fasttriplet.index_rec`, which also gives the warnings.

    Examples
    --------
    >>> dataset = Dataset("train.rec")  # doctest: +SKIP
    >>> len(dataset), dataset.decode([0, 1]).pixels.shape  # doctest: +SKIP
    (3340, (2, 112, 112, 3))
    """

    @shows(DatasetOptions)
    def __init__(self, rec: Paths, *, threads: int | None = None, **options: Unpack[DatasetKeywords]) -> None:
        self.options = DatasetOptions.of(Dataset, options)
        self.paths, self._several = paths_of(rec)
        threads = thread_count(threads)
        self._files = [_core.RecordFile(path) for path in self.paths]
        # One handle from the index to the pixels: a file that is replaced in between changes nothing.
        indexed = index_files(
            self.paths, self._files, several=self._several, options=self.options, threads=threads
        )
        self.index, self.label_shifts = indexed.frame, indexed.shifts
        self._keys_are_ids, self._kept = indexed.keys_are_ids, indexed.kept
        self._take({name: self.index[name].to_numpy() for name in self.index.columns})

    def _take(self, columns: dict[str, NDArray[Any]]) -> None:
        self._columns = columns
        self.keys, self.labels = columns["key"], columns["label"]
        self.offsets, self.lengths = columns["offset"], columns["length"]
        # Of one file, a zero for each image that takes no memory.
        self.files = columns.get("file", np.broadcast_to(np.uint32(0), self.keys.shape))

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def index(self) -> pl.DataFrame:
        """One row per image, as :func:`fasttriplet.index_rec` gives it."""
        with importing():
            import polars as pl  # noqa: PLC0415  workers that only decode do without

        ensure_polars_threads()
        return pl.DataFrame(self._columns)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        return ids_of(self.keys, self._columns.get("file"))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the keys, labels and lengths of all records: it tells this dataset from others."""
        digest = hashlib.blake2b(digest_size=8)
        for column in (self.keys, self.labels, self.lengths):
            digest.update(column.tobytes())
        return digest.hexdigest()

    def decode(
        self,
        rows: pl.DataFrame | Integers,
        *,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
        on_error: OnError = "raise",
    ) -> Decoded:
        """Decode images, in parallel and in the order in which they are stored.

        Parameters
        ----------
        rows : DataFrame, or (B,) int
            Rows of the index, such as those of a bag, or positions in it. An image may occur several times.
        size : (int, int), optional
            Height and width that all images must have. By default those of the first one; with
            ``on_error="skip"`` those that most of the images have.
        threads : int, optional
            One per core by default.
        on_error : {"raise", "skip"}, default "raise"
            What to do about an image that is damaged, too large, of another format or of another size, whose
            record is not the one that was indexed, or that the disk cannot read (EIO): raise for the first of
            them, or leave it out and list it in the result. Other errors of the operating system concern more
            than one image, and are always raised.

        Returns
        -------
        Decoded
            Pixels as :func:`fasttriplet.decode_images` makes them, and what was left out.

        Raises
        ------
        RecordError
            If an image cannot be decoded and ``on_error="raise"``; names file, key and byte offset.
        MemoryError
            If there is no memory for the pixels; names the first record of the size.
        OSError
            If the file cannot be read; names it, key and byte offset.
        ValueError
            If a column is missing, a key or position is not in the index, or an option is wrong.
        """
        places = self._places(rows)
        pixels, failed = decode_records(
            self._files,
            places,
            max_pixels=self.options.max_pixels,
            size=size,
            threads=threads,
            on_error=on_error,
        )
        return Decoded(pixels, failed)

    def image_size(
        self, rows: pl.DataFrame | Integers, *, threads: int | None = None, on_error: OnError = "raise"
    ) -> tuple[int, int] | None:
        """The height and width that :meth:`decode` takes for these rows; None if no image can be read."""
        places, most = self._places(rows), self.options.max_pixels
        return size_of_records(self._files, places, max_pixels=most, threads=threads, on_error=on_error)

    def read(self, row: SupportsIndex) -> tuple[IRHeader, bytes]:
        """Read the record of one image.

        Parameters
        ----------
        row : int
            A position in the index.

        Returns
        -------
        header : IRHeader
        content : bytes
            The encoded image.

        Raises
        ------
        IndexError
            If the position is not in the index.
        RecordError
            If the record is damaged, or not the one that was indexed.
        OSError
            If the file cannot be read.
        """
        try:
            at = range(len(self))[operator.index(row)]
        except IndexError:
            raise IndexError(f"row {row} is out of range: {self!r}") from None
        flag, label, record_id, id2, content = _core.read_row(self._files, self._places_at(np.array([at])))
        return IRHeader(flag, label, record_id, id2), content

    def _places(self, rows: pl.DataFrame | Integers) -> Places:
        if not hasattr(type(rows), "columns"):  # Polars need not be imported to know a frame
            at = integers("rows", rows)  # type: ignore[arg-type]
            if at.size and not 0 <= at.min() <= at.max() < len(self):
                raise ValueError(f"rows must be from 0 to {len(self) - 1}, the positions of the images")
            return self._places_at(at)
        places = Places.of(rows)  # type: ignore[arg-type]
        if places.files is None and len(self._files) != 1:
            raise ValueError(
                f"rows: the dataset has {len(self._files)} files, and no column 'file' says in which of them "
                "a row lies"
            )
        # The labels of a frame may be a user's own, those of the index are the file's.
        at = places_among(self.ids, ids_of(places.keys, places.files))
        unknown = np.flatnonzero(at < 0)
        if unknown.size:
            first = unknown[0]
            where = "" if places.files is None else f" of file {places.files[first]}"
            raise ValueError(f"rows: key {places.keys[first]}{where} is not in the index of this dataset")
        return self._places_at(at)._replace(offsets=places.offsets, lengths=places.lengths)

    def _places_at(self, at: NDArray[np.int64]) -> Places:
        files, labels = self.files[at], self.labels[at]
        if any(self.label_shifts):
            labels = labels - np.array(self.label_shifts)[files]
        return Places(
            self.keys[at], self.offsets[at], self.lengths[at], files, labels, self._keys_are_ids, self._kept
        )

    def _check_sample(self) -> None:
        """Raise a RecordError if a few records of a file are not those that were indexed."""
        ends = np.cumsum(np.bincount(self.files)) if len(self.paths) > 1 else [len(self)]
        for path, start, end in zip(self.paths, [0, *ends], ends, strict=False):
            rows, failed = np.unique(np.linspace(start, end - 1, _SAMPLED).astype(int)), []
            for row in rows:
                try:
                    self.read(row)
                except RecordError as error:
                    failed.append(error)
                except OSError:  # to be told when the image is asked for
                    continue
            # A single one may be damaged, which is for whoever asks for it.
            if 2 * len(failed) > len(rows):
                raise RecordError(
                    f"{path} is not the file that was indexed: {len(failed)} of {len(rows)} records differ; "
                    f"the first: {failed[0]}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {
            # Absolute: the process that unpickles may run in another folder.
            "paths": [str(path.absolute()) for path in self.paths],
            "sizes": [file.size for file in self._files],
            "several": self._several,
            "options": self.options,
            "label_shifts": self.label_shifts,
            "keys_are_ids": self._keys_are_ids,
            "kept": self._kept,
            "columns": self._columns,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths, self._several = [Path(path) for path in state["paths"]], state["several"]
        self._files = [_core.RecordFile(path) for path in self.paths]
        for path, file, size in zip(self.paths, self._files, state["sizes"], strict=True):
            if file.size != size:
                raise RecordError(
                    f"{path} has {file.size:,} bytes, and had {size:,} when it was indexed: it was replaced"
                )
        self.options, self.label_shifts = state["options"], state["label_shifts"]
        self._keys_are_ids, self._kept = state["keys_are_ids"], state["kept"]
        self._take(state["columns"])
        self._check_sample()

    def __repr__(self) -> str:
        return f"Dataset({', '.join(map(str, self.paths))!r}, {counted(len(self), 'image')})"


# What every run takes: the file, several that make one dataset, or the dataset itself.
Rec: TypeAlias = Paths | Dataset


def open_dataset(rec: Rec, options: DatasetOptions, *, threads: int | None) -> Dataset:
    """Index the files of a dataset, unless it is one already, which was made with options of its own."""
    if not isinstance(rec, Dataset):
        return Dataset(
            rec,
            threads=threads,
            labels=options.labels,
            cache=options.cache,
            max_pixels=options.max_pixels,
        )
    before = rec.options
    if len(rec.paths) > 1 and options.labels not in (None, before.labels or "shared"):
        raise OptionError(
            "labels",
            f"must be {before.labels or 'shared'!r}, as the Dataset was made; give {options.labels!r} to "
            "Dataset()",
        )
    if options.cache not in (True, before.cache):
        raise OptionError(
            "cache", f"cannot be chosen: the Dataset is indexed already; give {options.cache!r} to Dataset()"
        )
    if options.max_pixels not in (MAX_PIXELS, before.max_pixels):
        raise OptionError(
            "max_pixels",
            f"must be {before.max_pixels}, as the Dataset was made; give {options.max_pixels} to Dataset()",
        )
    return rec


def files_of(rec: Rec) -> list[Path]:
    """The files of a dataset, without opening them."""
    return rec.paths if isinstance(rec, Dataset) else paths_of(rec)[0]
