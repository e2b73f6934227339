"""Options of a dataset, and of how an epoch of it is ordered and cut into bags."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, get_args

from fasttriplet._checks import number, one_of, pixel_limit, whole_number
from fasttriplet._options import Options, plain
from fasttriplet.errors import OptionError

Labels = Literal["shared", "separate"]
Cache: TypeAlias = bool | str | os.PathLike[str]
Boundary = Literal["keep", "split"]
Tail = Literal["keep", "drop"]
OnError = Literal["raise", "skip"]

# What may be wrong about images, in the order of a table of suspects.
Kind = Literal["mislabelled", "outlier", "same-person", "two-people", "duplicate", "bad-picture"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Findings about single images; the rest are about identities, whose images are as good as any.
EXCLUDED_KINDS: tuple[Kind, ...] = ("mislabelled", "outlier", "duplicate", "bad-picture")


class _ArrayOrFrame(Protocol):
    def __array__(self, *args: Any, **options: Any) -> Any: ...


# A Parquet file, keys, or a Polars frame.
Exclude: TypeAlias = str | os.PathLike[str] | Sequence[int] | _ArrayOrFrame

# A Parquet file, or a Polars frame; for a training also RUNNING.
IdentityGraph: TypeAlias = str | os.PathLike[str] | _ArrayOrFrame

# What is given as `neighbors` for a graph that a training makes itself.
RUNNING = "running"

# The most pixels of an image that is decoded, unless a user says otherwise: 256 MiB of RGB, 7,000 times what
# a face of 112 x 112 has. It is the size that Pillow warns from.
MAX_PIXELS = 2**28 // 3


# Images of a bag in InsightFace's `triplet` configuration.
BAG_SIZE = 7200


class IndexKeywords(TypedDict, total=False):
    """The fields of :class:`IndexOptions` as keyword arguments."""

    labels: Labels | None
    cache: Cache


@dataclass(frozen=True, kw_only=True)
class IndexOptions(Options):
    """How files are indexed: options that :func:`fasttriplet.index_rec` explains."""

    labels: Labels | None = None
    cache: Cache = True

    def __post_init__(self) -> None:
        if self.labels is not None:
            one_of("labels", self.labels, get_args(Labels))
        if not isinstance(plain(self.cache), (bool, str, os.PathLike)) or self.cache == "":
            raise OptionError("cache", f"must be True, False or the path of a folder, not {self.cache!r}")
        if isinstance(self.cache, os.PathLike):
            object.__setattr__(self, "cache", os.fspath(self.cache))  # plain, to be compared and stored
        super().__post_init__()


class DatasetKeywords(IndexKeywords, total=False):
    """The fields of :class:`DatasetOptions` as keyword arguments."""

    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(IndexOptions):
    """How files are indexed and decoded: options that :class:`fasttriplet.Dataset` explains."""

    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        pixel_limit(self.max_pixels)
        super().__post_init__()


class ExcludeKeywords(DatasetKeywords, total=False):
    """The fields of :class:`ExcludeOptions` as keyword arguments."""

    exclude: Exclude | None
    exclude_kinds: Sequence[Kind] | None


@dataclass(frozen=True, kw_only=True)
class ExcludeOptions(DatasetOptions):
    """Which images of a dataset are left out: options that :func:`fasttriplet.mine_rec` explains."""

    exclude: Exclude | None = None
    exclude_kinds: Sequence[Kind] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.exclude, os.PathLike):
            object.__setattr__(self, "exclude", os.fspath(self.exclude))
        if self.exclude_kinds is not None:
            object.__setattr__(self, "exclude_kinds", kinds_of("exclude_kinds", self.exclude_kinds))
            if self.exclude is None:
                raise OptionError("exclude_kinds", "goes with exclude=FILE, a table of suspects")
        super().__post_init__()


def kinds_of(name: str, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Return the option `name`, one kind of finding or more, in the order of a table of suspects."""
    if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
        raise OptionError(name, f"must be a list of one or more of {', '.join(KINDS)}, not {kinds!r}")
    for kind in kinds:
        one_of(f"each of {name}", kind, KINDS)
    return tuple(kind for kind in KINDS if kind in kinds)


class BagKeywords(TypedDict, total=False):
    """The fields of :class:`BagOptions` as keyword arguments."""

    images_per_identity: int
    bag_size: int | None
    boundary: Boundary
    tail: Tail
    neighbors: IdentityGraph | None
    random_share: float


@dataclass(frozen=True, kw_only=True)
class BagOptions(Options):
    """How :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags` make bags, explained there."""

    images_per_identity: int = 5
    bag_size: int | None = BAG_SIZE
    boundary: Boundary = "keep"
    tail: Tail = "keep"
    neighbors: IdentityGraph | None = None
    random_share: float = 0.0

    def __post_init__(self) -> None:
        whole_number("images_per_identity", self.images_per_identity, 1)
        if self.bag_size is not None:
            whole_number("bag_size", self.bag_size, 1)
        one_of("boundary", self.boundary, get_args(Boundary))
        one_of("tail", self.tail, get_args(Tail))
        if isinstance(self.neighbors, os.PathLike):
            object.__setattr__(self, "neighbors", os.fspath(self.neighbors))
        if not isinstance(self.neighbors, (str, type(None))) and not hasattr(type(self.neighbors), "columns"):
            raise OptionError(
                "neighbors",
                f"must be a Parquet file or a frame, an identity graph, not {self.neighbors!r:.100}",
            )
        if number("random_share", self.random_share, 0, 1) and self.neighbors is None:
            raise OptionError("random_share", "goes with neighbors=FILE, an identity graph")
        super().__post_init__()

    @property
    def has_running_graph(self) -> bool:
        """Whether a training makes the identity graph itself."""
        return isinstance(self.neighbors, str) and self.neighbors == RUNNING


class RefreshKeywords(BagKeywords, total=False):
    """The fields of :class:`RefreshOptions` as keyword arguments."""

    refresh_epochs: int


@dataclass(frozen=True, kw_only=True)
class RefreshOptions(BagOptions):
    """How a training makes bags: options that :class:`fasttriplet.Feed` explains."""

    refresh_epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if whole_number("refresh_epochs", self.refresh_epochs, 1) > 1 and not self.has_running_graph:
            raise OptionError("refresh_epochs", f"goes with neighbors={RUNNING!r}")
