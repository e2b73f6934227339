"""The options of a run over a dataset: how it reads, mines and makes bags, and what it may use."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import TypedDict, get_args

from fasttriplet._checks import one_of, seed_number, thread_count, whole_number
from fasttriplet._options import Options
from fasttriplet.dataset._options import (
    BagKeywords,
    BagOptions,
    ExcludeKeywords,
    ExcludeOptions,
    OnError,
    RefreshKeywords,
    RefreshOptions,
)
from fasttriplet.mining._options import MiningKeywords, MiningOptions


class ResourceKeywords(TypedDict, total=False):
    """The fields of :class:`ResourceOptions` as keyword arguments."""

    threads: int | None
    prefetch: int
    memory: int | None


@dataclass(frozen=True, kw_only=True)
class ResourceOptions(Options):
    """What a run may use of the machine; no result depends on it."""

    threads: int | None = None
    prefetch: int = 1
    memory: int | None = None

    def __post_init__(self) -> None:
        thread_count(self.threads)
        whole_number("prefetch", self.prefetch, 0)
        if self.memory is not None:
            whole_number("memory", self.memory, 1)
        super().__post_init__()


class RunKeywords(ExcludeKeywords, MiningKeywords, BagKeywords, ResourceKeywords, total=False):
    """The fields of :class:`RunOptions` as keyword arguments."""

    on_error: OnError
    seed: int


@dataclass(frozen=True, kw_only=True)
class RunOptions(ExcludeOptions, MiningOptions, BagOptions, ResourceOptions):
    """The options that :func:`fasttriplet.mine_rec` and :class:`fasttriplet.Feed` share."""

    on_error: OnError = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, get_args(OnError))
        seed_number(self.seed)
        super().__post_init__()


class FeedKeywords(RunKeywords, RefreshKeywords, total=False):
    """The fields of :class:`FeedOptions` as keyword arguments."""


@dataclass(frozen=True, kw_only=True)
class FeedOptions(RunOptions, RefreshOptions):
    """The options that all kinds of :class:`fasttriplet.Feed` share."""
