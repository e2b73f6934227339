"""How an epoch is ordered and cut into bags: the options of bags."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from fasttriplet._checks import one_of, whole_number
from fasttriplet._options import Options

Boundary = Literal["keep", "split"]
Tail = Literal["keep", "drop"]
OnError = Literal["raise", "skip"]


class BagKeywords(TypedDict, total=False):
    """The fields of :class:`BagOptions` as keyword arguments."""

    images_per_identity: int
    bag_size: int
    boundary: Boundary
    tail: Tail


@dataclass(frozen=True, kw_only=True)
class BagOptions(Options):
    """How :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags` make bags, explained there."""

    images_per_identity: int = 5
    bag_size: int = 7200
    boundary: Boundary = "keep"
    tail: Tail = "keep"

    def __post_init__(self) -> None:
        whole_number("images_per_identity", self.images_per_identity, 1)
        whole_number("bag_size", self.bag_size, 1)
        one_of("boundary", self.boundary, get_args(Boundary))
        one_of("tail", self.tail, get_args(Tail))
        super().__post_init__()
