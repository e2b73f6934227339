from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypeAlias, final, overload

import numpy as np
from numpy.typing import NDArray

from fasttriplet.errors import RecordError

__all__ = [
    "KeyTable",
    "Options",
    "RecordFile",
    "RecordWriter",
    "Scan",
    "Stop",
    "__version__",
    "assemble",
    "collect",
    "compare_pictures",
    "decode_each",
    "decode_images",
    "decode_into",
    "decode_rows",
    "finish",
    "image_size",
    "instruction_set",
    "instruction_sets",
    "looks_of",
    "merge",
    "mine",
    "probe_memory",
    "read_row",
    "scan",
    "warm_up",
]

__version__: str

def warm_up() -> None: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...

@final
class Options:
    """The options of mining, checked; `limits` are the side, inclusiveness, slope and offset of each."""

    def __new__(
        cls,
        *,
        limits: list[tuple[Literal["above", "below"], bool, float, float]],
        ranks: tuple[int, int | None],
        pick: Literal["random", "hardest", "distance", "all"],
        negatives_per_pair: int,
        fallback: bool,
        pairs: Literal["unordered", "ordered", "hardest", "easiest"],
        positives_per_anchor: int | None,
        triplets_per_anchor: int | None,
        metric: Literal["sqeuclidean", "euclidean", "cosine"],
        max_ap: float | None,
        normalize: bool,
        seed: int,
    ) -> Options: ...

_Set: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64] | None]

# anchors, positives, negatives, d_ap, d_an, and counts
_Columns: TypeAlias = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.float64],
    tuple[int, int, int, int, int],
]

def mine(
    anchors: _Set,
    only: NDArray[np.bool_] | None,
    references: _Set | None,
    options: Options,
    threads: int | None,
) -> tuple[_Columns, float | None]: ...
def collect(
    anchors: _Set,
    only: NDArray[np.bool_] | None,
    references: _Set | None,
    block: _Set | None,
    between: int | None,
    options: Options,
    threads: int | None,
) -> _Columns: ...
def merge(parts: list[_Columns], options: Options, dim: int, threads: int | None) -> _Columns: ...
def finish(part: _Columns, options: Options, dim: int, threads: int | None) -> _Columns: ...
def probe_memory(bytes: int, what: str) -> None: ...
def decode_images(
    encoded: list[bytes], *, size: tuple[int, int] | None, max_pixels: int, skip: bool, threads: int | None
) -> tuple[NDArray[np.uint8], int, list[tuple[int, RecordError]]]: ...

# keys, offsets, lengths, numbers of files, labels; for each file, whether the keys are ids and where its
# index was kept
_Rows: TypeAlias = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64] | None,
    NDArray[np.uint32] | None,
    NDArray[np.int64] | None,
    Sequence[bool],
    Sequence[str | None],
]

@overload
def decode_rows(
    files: list[RecordFile],
    rows: _Rows,
    *,
    size: tuple[int, int] | None,
    max_pixels: int,
    skip: bool,
    planes: Literal[False],
    threads: int | None,
) -> tuple[NDArray[np.uint8], int, list[tuple[int, RecordError]]]: ...
@overload
def decode_rows(
    files: list[RecordFile],
    rows: _Rows,
    *,
    size: tuple[int, int] | None,
    max_pixels: int,
    skip: bool,
    planes: bool,
    threads: int | None,
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], int, list[tuple[int, RecordError]]]: ...
def decode_into(
    files: list[RecordFile],
    rows: _Rows,
    out: NDArray[np.float32] | NDArray[np.uint8],
    *,
    table: Sequence[float],
    mirrored: NDArray[np.bool_] | None,
    max_pixels: int,
    skip: bool,
    threads: int | None,
) -> tuple[int, list[tuple[int, RecordError]]]: ...
def decode_each(
    files: list[RecordFile], rows: _Rows, *, max_pixels: int, skip: bool, threads: int | None
) -> tuple[list[NDArray[np.uint8] | None], list[tuple[int, RecordError]]]: ...
def image_size(
    files: list[RecordFile], rows: _Rows, *, max_pixels: int, usual: bool, threads: int | None
) -> tuple[int, int] | None: ...
def read_row(
    files: list[RecordFile], rows: _Rows
) -> tuple[int, float | NDArray[np.float32], int, int, bytes]: ...
def looks_of(
    pixels: NDArray[np.uint8], *, threads: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def compare_pictures(
    pixels: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], *, threads: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int8]]: ...
def assemble(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
    *,
    channels_last: bool,
    augment: tuple[tuple[bool, int, float, float, float], int, NDArray[np.int64]] | None = None,
) -> None: ...

@final
class Stop:
    def __new__(cls) -> Stop: ...
    def set(self) -> None: ...
    def heed(self) -> None: ...

@final
class RecordFile:
    def __new__(cls, path: str | PathLike[str]) -> RecordFile: ...
    @property
    def size(self) -> int: ...
    def fileno(self) -> int: ...
    def record_at(
        self, offset: int, key: int | None = None
    ) -> tuple[int, float | NDArray[np.float32], int, int, bytes]: ...

@final
class KeyTable:
    def __new__(cls, file: RecordFile, idx: str | PathLike[str] | None, *, complete: bool) -> KeyTable: ...
    @property
    def problems(self) -> list[str]: ...
    def keys(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def offset(self, key: int) -> int | None: ...
    def offsets(self, keys: NDArray[np.int64]) -> NDArray[np.int64]: ...

@final
class Scan:
    @property
    def keys(self) -> NDArray[np.int64]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def lengths(self) -> NDArray[np.int64]: ...
    @property
    def bare_keys(self) -> NDArray[np.int64]: ...
    @property
    def bare_offsets(self) -> NDArray[np.int64]: ...
    @property
    def bare_flags(self) -> NDArray[np.uint32]: ...
    @property
    def bare_first(self) -> NDArray[np.float32]: ...
    @property
    def bare_second(self) -> NDArray[np.float32]: ...
    @property
    def flags(self) -> dict[int, int]: ...
    @property
    def objects(self) -> int: ...
    @property
    def problems(self) -> list[str]: ...
    @property
    def rebuilt(self) -> bool: ...
    @property
    def keys_are_ids(self) -> bool: ...

def scan(file: RecordFile, idx: str | PathLike[str] | None = None, threads: int | None = None) -> Scan: ...

@final
class RecordWriter:
    def __new__(cls, path: str | PathLike[str]) -> RecordWriter: ...
    def write(
        self, key: int, label: float, labels: list[float], id: int, id2: int, payload: bytes
    ) -> None: ...
    def finish(self) -> None: ...
    def discard(self) -> None: ...
