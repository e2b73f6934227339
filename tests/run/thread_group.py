"""Threads as the processes of a group: a feed knows no difference, and a test needs no second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

import fasttriplet as ft

T = TypeVar("T")


class _Shared:
    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.given: list[dict[int, list[NDArray[Any]]]] = []  # for each gather, by rank
        self.left: dict[int, str | None] = {}


class ThreadGroup:
    """One member of a group."""

    def __init__(self, shared: _Shared, rank: int) -> None:
        self._shared, self.rank, self.size = shared, rank, shared.size
        self.gathers = 0

    def gather(self, arrays: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        shared, number = self._shared, self.gathers
        self.gathers += 1
        with shared.changed:
            if number == len(shared.given):
                shared.given.append({})
            given = shared.given[number]
            given[self.rank] = [array.copy() for array in arrays]
            shared.changed.notify_all()
            while len(given) < self.size:
                gone = [rank for rank in shared.left if rank not in given]
                if gone:
                    raise ft.PeerError(f"process {gone[0]} {shared.left[gone[0]]}")
                assert shared.changed.wait(20), "a process waits for ever"
        return [given[rank] for rank in range(self.size)]

    def leave(self, reason: str | None) -> None:
        with self._shared.changed:
            self._shared.left.setdefault(self.rank, reason)
            self._shared.changed.notify_all()


def in_threads(size: int, work: Callable[[ThreadGroup], T]) -> list[T | BaseException]:
    """What the work of each process returns or raises, by rank."""
    shared = _Shared(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadGroup(shared, rank))
        except BaseException as error:
            error.__traceback__ = None  # which would hold the feed
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank-{rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), thread.name
    return found


def results(size: int, work: Callable[[ThreadGroup], T]) -> list[T]:
    """What the work of each process returns; an error is raised here."""
    found: list[Any] = in_threads(size, work)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
