"""Batches of images that go through a network in several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TypeVar

L = TypeVar("L")
T = TypeVar("T")
R = TypeVar("R")

_POLL = 0.05  # seconds between two looks for Ctrl-C


def deal(
    lanes: Sequence[L],
    work: Callable[[L, T], R],
    items: Sequence[T],
    begin: Callable[[], object] | None = None,
) -> list[R]:
    """Compute ``work(lane, item)`` for all items, at the same time on all lanes; each takes the next item.

    On a CPU, threads that compute a layer together wait for each other after each; threads that have a batch
    each do not.

    Parameters
    ----------
    lanes : sequence
        What a thread needs to itself. With one lane there are no threads.
    work : callable
    items : sequence
    begin : callable, optional
        What each thread does first.

    Returns
    -------
    list
        A result for each item, in their order. The first error ends all, and is raised.
    """
    if len(lanes) == 1:
        return [work(lanes[0], item) for item in items]
    free: SimpleQueue[L] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def one(item: T) -> R:
        lane = free.get()
        try:
            return work(lane, item)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(len(lanes), "fasttriplet-embed", begin) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            for future in futures:
                # In short waits: Polars (2.1) installs a handler of SIGINT with SA_RESTART, after which
                # Ctrl-C does not wake a thread that waits for a lock.
                while not wait([future], _POLL).done:
                    pass
                future.result()
        finally:
            for future in futures:
                future.cancel()
    return [future.result() for future in futures]
