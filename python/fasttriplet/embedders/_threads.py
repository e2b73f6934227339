"""Batches of images that go through a network in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
    found: dict[int, R] = {}
    waiting, lock, stop = iter(range(len(items))), threading.Lock(), threading.Event()

    def through(lane: L) -> None:
        try:
            while not stop.is_set():
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                found[number] = work(lane, items[number])
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(lanes), "fasttriplet-embed", begin) as pool:
        try:
            for future in [pool.submit(through, lane) for lane in lanes]:
                # In short waits: Polars (2.1) installs a handler of SIGINT with SA_RESTART, after which
                # Ctrl-C does not wake a thread that waits for a lock.
                while not wait([future], _POLL).done:
                    pass
                future.result()
        finally:
            stop.set()
    return [found[number] for number in range(len(items))]
