"""Threads for stages that run ahead of the caller or after it: no error is lost, and nothing hangs."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Generic, ParamSpec, Self, TypeVar

from fasttriplet import _core

T = TypeVar("T")
P = ParamSpec("P")

_POLL = 0.05  # seconds between two looks for Ctrl-C, as in the extension's calls


class Worker:
    """One thread. Leaving the ``with`` block stops what it is doing and ends it.

    On Linux it gives way to other threads by `nice`, and so do the threads that its calls start.
    """

    def __init__(self, name: str, *, nice: int = 0) -> None:
        # Ctrl-C raises in the main thread alone; through this it reaches the call that this thread is in.
        self._stop = _core.Stop()
        self._nice = nice
        self._process = os.getpid()
        self._executor = ThreadPoolExecutor(1, f"fasttriplet-{name}", self._begin)

    def _begin(self) -> None:
        self._stop.heed()
        if self._nice and sys.platform == "linux":
            with suppress(OSError):  # a courtesy, which some sandboxes do not allow
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + self._nice)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let the thread do this when it has done all that it was given before."""
        self.check_process()
        return self._executor.submit(work, *args, **kwargs)

    def result(self, future: Future[T]) -> T:
        """Wait for the result of what was submitted."""
        self.check_process()
        # In short waits: Polars (2.1) installs a handler of SIGINT with SA_RESTART, after which Ctrl-C does
        # not wake a thread that waits for a lock.
        while not wait([future], _POLL).done:
            pass
        try:
            return future.result()
        finally:
            del future  # an error's traceback holds this frame: no circle

    def check_process(self) -> None:
        """Raise a RuntimeError in a fork of the process that made the thread: a fork copies no threads."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "this was started in another process, before a fork, and its threads are only there; "
                "start one in this process"
            )

    def close(self) -> None:
        """End the thread. A long call of this package ends early."""
        if os.getpid() == self._process:
            self._stop.set()
            self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ahead(Generic[T]):
    """Iterates over what a generator yields, which runs on a worker's thread, ahead of the caller.

    While the caller holds an item, `depth` others may be ready or being made; with 0, making an item starts
    when it is asked for. An error in the generator is raised when its item is asked for. While the caller
    waits for an item, it is in the context `waiting`.
    """

    def __init__(
        self,
        worker: Worker,
        items: Generator[T, None, None],
        depth: int,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._worker = worker
        self._items = items
        self._depth = depth
        self._waiting = waiting
        # The worker gets one step at a time: a Python that exits waits for all that a thread was given.
        self._lock = threading.Lock()
        self._pending: deque[Future[tuple[T] | None]] = deque()
        self._busy = self._exhausted = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._worker.check_process()  # before the lock, which a fork may have copied closed
        with self._lock:
            if not self._pending:
                self._submit()
            future = self._pending.popleft()
            self._go_on()
        with self._waiting():
            item = self._worker.result(future)
        if item is None:
            raise StopIteration
        return item[0]

    def _step(self) -> tuple[T] | None:
        item = None
        for one in self._items:
            item = (one,)
            break
        with self._lock, suppress(RuntimeError):  # where the worker is being closed
            self._busy, self._exhausted = False, item is None
            self._go_on()
        return item

    def _go_on(self) -> None:
        if len(self._pending) < self._depth and not (self._busy or self._exhausted):
            self._submit()

    def _submit(self) -> None:
        self._busy = True
        self._pending.append(self._worker.submit(self._step))
