"""MXNet RecordIO files: reading by key from any thread or process, and writing."""

from __future__ import annotations

import errno
import operator
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._files import Output, naming, publish
from fasttriplet._words import counted
from fasttriplet.dataset._ids import Integers, integers
from fasttriplet.dataset._images import Layout, Places, decode_records
from fasttriplet.dataset._labels import to_float32
from fasttriplet.dataset._options import MAX_PIXELS
from fasttriplet.errors import RecordWarning


class IRHeader(NamedTuple):
    """What a record says about itself; the fields of ``mx.recordio.IRHeader``.

    Attributes
    ----------
    flag : int
        0 for one label, else the count of labels. Ignored when writing, as ``mx.recordio.pack`` does.
    label : float or (flag,) float32
        The label or labels. The first names the identity. They are stored as float32, which can hold every
        integer up to 2^24.
    id : int
        The record's key, by convention.
    id2 : int
        Higher bits of the id; 0 everywhere.
    """

    flag: int
    label: float | Sequence[float] | NDArray[np.floating[Any]]
    id: int
    id2: int


def idx_beside(path: Path) -> Path | None:
    """Find the ``.idx`` file of the same name, if there is one."""
    idx = path.with_suffix(".idx")
    return idx if idx.exists() else None


class RecordFile:
    """A ``.rec`` file, read by key.

    A handle has no position: it serves any number of threads, and the processes of a data loader after
    a fork. It pickles by path. The ``.idx`` is read at the first use of a key; one
    that is missing or does not fit the ``.rec`` is replaced by what the records themselves say, and
    `problems` tells so. Of files of more than 1,048,576 records, that many evenly spread ones are
    checked against the ``.idx``; :func:`fasttriplet.index_rec` checks all.

    If another file is renamed over it, the one that was opened is read. If it is cut short while it is open,
    reading a record that is gone is a RecordError. What another program writes into the file is read as it
    is; a :class:`fasttriplet.Dataset` notices, as it compares each record with the index.

    Parameters
    ----------
    path : path
        The ``.rec`` file.
    idx : path, optional
        Its ``.idx`` file. By default the one of the same name beside it, if it is there, and it must name
        all records. One that is given may name some, for instance one half of a split. In either, two keys
        cannot have one record, nor two records one key.

    Raises
    ------
    RecordError
        If the file holds no records; the message says what it is instead, for instance a Git LFS pointer.
        Also at the first use of a key, if no record can be read, for instance because the file was
        overwritten while it was open.
    OSError
        If the file cannot be read, now or later; the message has the byte offset.

    Warns
    -----
    RecordWarning
        At the first use of a key, if the ``.idx`` or the ``.rec`` is not as it should be.
    """

    def __init__(self, path: str | os.PathLike[str], idx: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path)
        self._idx = None if idx is None else Path(idx)
        if self._idx is not None and not self._idx.exists():
            raise FileNotFoundError(errno.ENOENT, "no such .idx file", str(self._idx))
        self._file = _core.RecordFile(self._path)
        # Two threads may both fill these; they get the same.
        self._loaded: _core.KeyTable | None = None
        self._keys: NDArray[np.int64] | None = None

    @property
    def path(self) -> Path:
        """The file's path, as given."""
        return self._path

    @property
    def _table(self) -> _core.KeyTable:
        if self._loaded is None:
            idx = idx_beside(self._path) if self._idx is None else self._idx
            loaded = _core.KeyTable(self._file, idx, complete=self._idx is None)
            if loaded.problems:
                more = " (and more: see `problems`)" if len(loaded.problems) > 1 else ""
                warnings.warn(loaded.problems[0] + more, RecordWarning, stacklevel=3)
            self._loaded = loaded
        return self._loaded

    @property
    def keys(self) -> NDArray[np.int64]:
        """Keys of all records, in file order: (N,) int64, read-only."""
        if self._keys is None:
            keys = self._table.keys()
            keys.flags.writeable = False
            self._keys = keys
        return self._keys

    @property
    def problems(self) -> tuple[str, ...]:
        """What was found wrong with the ``.idx`` or the ``.rec`` and worked around, one line per problem."""
        return tuple(self._table.problems)

    def read(self, key: SupportsIndex) -> tuple[IRHeader, bytes]:
        """Read one record.

        Parameters
        ----------
        key : int
            The record's key.

        Returns
        -------
        header : IRHeader
            What ``mx.recordio.unpack`` gives.
        content : bytes
            The bytes after the header and its labels, usually an encoded image.

        Raises
        ------
        KeyError
            If no record has this key.
        RecordError
            If the record is damaged.
        """
        key = operator.index(key)
        offset = self._offset(key)
        if offset is None:
            raise KeyError(self._no_key(key))
        flag, label, record_id, id2, content = self._file.record_at(offset, key)
        return IRHeader(flag, label, record_id, id2), content

    @overload
    def decode(
        self,
        keys: Integers,
        *,
        layout: Literal["NHWC"] = "NHWC",
        threads: int | None = None,
        max_pixels: int = ...,
    ) -> NDArray[np.uint8]: ...
    @overload
    def decode(
        self, keys: Integers, *, layout: Literal["NCHW"], threads: int | None = None, max_pixels: int = ...
    ) -> NDArray[np.float32]: ...
    def decode(
        self,
        keys: Integers,
        *,
        layout: Layout = "NHWC",
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> NDArray[Any]:
        """Decode the images of the records with these keys, in parallel.

        Parameters
        ----------
        keys : (B,) int
            Keys of records with JPEG or PNG images of one size.
        layout : {"NHWC", "NCHW"}, default "NHWC"
            As images are shown, or as networks take them.
        threads : int, optional
            By default one for each core.
        max_pixels : int, default 89,478,485
            The most pixels of an image; see :func:`fasttriplet.decode_images`.

        Returns
        -------
        (B, H, W, 3) uint8, or (B, 3, H, W) float32 for ``"NCHW"``
            RGB, 0 to 255, as :func:`fasttriplet.decode_images` makes it.

        Raises
        ------
        KeyError
            If no record has one of the keys.
        RecordError
            If a record is damaged, or holds no image, one that is too large, or one of another size than the
            first.
        MemoryError
            If there is no memory for the pixels; names the first record of the size.
        ValueError
            If `keys` is not a list of integers, or an option is wrong.
        """
        places = Places(_keys(keys), self.offsets(keys))
        pixels, _ = decode_records(
            [self._file], places, max_pixels=max_pixels, layout=layout, threads=threads
        )
        return pixels

    def offsets(self, keys: Integers) -> NDArray[np.int64]:
        """Byte offsets of the records with these keys: (B,) int64.

        Raises
        ------
        KeyError
            If no record has one of the keys; names the first.
        ValueError
            If `keys` is not a list of integers.
        """
        wanted = _keys(keys)
        offsets = self._table.offsets(wanted)
        unknown = np.flatnonzero(offsets < 0)
        if unknown.size:
            raise KeyError(self._no_key(int(wanted[unknown[0]])))
        return offsets

    def _offset(self, key: int) -> int | None:
        return self._table.offset(key) if -(2**63) <= key < 2**63 else None

    def _no_key(self, key: int) -> str:
        have = f"it has {counted(len(self), 'key')}, from {self.keys.min()} to {self.keys.max()}"
        return f"{self._path} has no record with key {key}; {have}"

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (int, np.integer)) and self._offset(int(key)) is not None

    def __reduce__(self) -> tuple[type[RecordFile], tuple[str, str | None]]:
        # Absolute: the process that unpickles may run in another folder.
        idx = None if self._idx is None else str(self._idx.absolute())
        return type(self), (str(self._path.absolute()), idx)

    def __repr__(self) -> str:
        return f"RecordFile({str(self._path)!r})"


def _keys(values: Integers) -> NDArray[np.int64]:
    given = np.asarray(values)
    keys = integers("keys", given)
    if given.dtype == np.uint64 and keys.size and keys.min() < 0:
        raise ValueError(f"keys must be below 2**63, not {given.max()}")
    return keys


class RecordWriter:
    """Writes a ``.rec`` and its ``.idx``, byte for byte as ``MXIndexedRecordIO`` and ``pack`` do.

    Both get their names when the ``with`` block ends. After an exception they are removed, and older files
    of these names are untouched.

    Parameters
    ----------
    path : path
        The ``.rec`` file. The ``.idx`` has the same name otherwise, and is written beside it.
    overwrite : bool, default False
        Whether files that are there may be replaced.

    Raises
    ------
    FileExistsError
        If a file is there and `overwrite` is not set, or another run is writing it.
    OSError
        If the files cannot be made.
    ValueError
        If the name ends in ``.idx``.

    Examples
    --------
    >>> with RecordWriter("train.rec") as writer:  # doctest: +SKIP
    ...     writer.write(1, IRHeader(0, 42.0, 1, 0), jpeg_bytes)
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self._writer: _core.RecordWriter | None = None
        self._outputs: list[Output] = []
        self._path = Path(path)
        idx = self._path.with_suffix(".idx")
        if idx == self._path:
            raise ValueError(f"{path}: a .rec file cannot end in .idx")
        try:
            for file in (self._path, idx):
                self._outputs.append(Output(file, overwrite=overwrite))
            with naming(*self._outputs):
                self._writer = _core.RecordWriter(self._outputs[0].unfinished)
        except BaseException:
            self.discard()
            raise

    @property
    def path(self) -> Path:
        """The ``.rec`` file's final name."""
        return self._path

    def write(
        self,
        key: SupportsIndex,
        header: IRHeader | tuple[int, float | Sequence[float] | NDArray[np.floating[Any]], int, int],
        payload: bytes | bytearray | memoryview | NDArray[np.uint8],
    ) -> None:
        """Append one record.

        Parameters
        ----------
        key : int
            The key of the record in the ``.idx``. No two records can have the same.
        header : IRHeader
            The header of the record. As in ``mx.recordio.pack``, its flag is ignored: it is written as 0 if
            the label is a number, and as the count of the labels otherwise.
        payload : bytes
            The content of the record.

        Raises
        ------
        ValueError
            If a field does not fit the format, a label beyond 2^24 is not a float32 (the message names the
            nearest), the key was written before, the record has 2^29 bytes or more, or the writer is closed.
        TypeError
            If the payload is not bytes, or the header is none.
        OSError
            If the disk is full or fails; then the files are removed.
        """
        if self._writer is None:
            raise ValueError(f"{self._path}: the RecordWriter is closed")
        key = _integer("key", key, -(2**63), 2**63 - 1)
        if not isinstance(header, (tuple, list)) or len(header) != 4:
            raise TypeError(
                f"key {key}: header must be an IRHeader (flag, label, id, id2), not {header!r:.100}"
            )
        _, label, record_id, id2 = header
        one, several = to_float32(key, label)
        fields = (
            key,
            one,
            several,
            _integer(f"key {key}: id", record_id, 0, 2**64 - 1),
            _integer(f"key {key}: id2", id2, 0, 2**64 - 1),
            _content(key, payload),
        )
        try:
            with naming(*self._outputs):
                self._writer.write(*fields)
        except OSError:
            self.discard()
            raise

    def close(self) -> None:
        """Give the files their final names."""
        if self._writer is None:
            return
        rec, idx = self._outputs
        try:
            with naming(rec, idx):
                self._writer.finish()
                rec.unfinished.with_suffix(".idx").replace(idx.unfinished)
            publish(rec, idx)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the unfinished files."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()
        while self._outputs:
            self._outputs.pop().close()

    def __del__(self) -> None:
        self.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def _content(key: int, payload: object) -> bytes:
    if isinstance(payload, bytes):
        return payload
    try:
        view = memoryview(payload)  # type: ignore[arg-type]
    except TypeError:
        view = None
    if view is None or view.itemsize != 1:
        items = "" if view is None else f" of {view.itemsize} bytes each"
        raise TypeError(
            f"key {key}: payload must be bytes, such as an encoded image, not {type(payload).__name__}{items}"
        )
    return bytes(view)


def _integer(what: str, value: SupportsIndex, low: int, high: int) -> int:
    """Return a field of a record as an int; anything that Python takes as an index will do."""
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{what}: expected an integer in {low}..{high}, got {number}")
    return number
