"""What a fork must not meet: an import that another thread has begun, and the threads of Polars."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  see `_before`
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

try:
    import resource
except ImportError:  # not on every system
    resource = None  # type: ignore[assignment]

_lock = threading.RLock()
_forking = threading.local()
_LONGEST = 60  # seconds
_warm = False  # the extension

_ADDRESSES = 72 << 20  # bytes that a thread of Polars reserves: its stack, and 64 MB of malloc's
_MORE_THREADS = 3  # that Polars starts beside one for each core

_used = False  # by this process
_lost = False  # by a fork from a process that had used it


def ensure_polars_threads() -> None:
    """Raise a RuntimeError where a Polars query would wait for ever; call this before each.

    Polars runs queries on threads of its own, and a fork copies no threads. Only uses that were announced by
    this function before the fork are known.
    """
    global _used  # noqa: PLW0603
    if not _used:
        _check_addresses()
    if _lost:
        raise RuntimeError(
            "this process was forked after its parent had used Polars, whose threads are not here: it would "
            "wait for them without end. Make the index and the order before the fork, or start processes by "
            "the method 'spawn' or 'forkserver'"
        )
    _used = True


def _check_addresses() -> None:
    """Raise a MemoryError where a limit on the process is too low for the threads that Polars will start.

    Polars ends the process where it cannot allocate, and each thread reserves addresses for what it allocates
    later: with little room left, it is by chance which allocation fails.
    """
    if resource is None or resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    chosen = os.environ.get("POLARS_MAX_THREADS", "")
    threads = (int(chosen) if chosen.isdecimal() else os.cpu_count() or 1) + _MORE_THREADS
    size = threads * _ADDRESSES
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError(
            f"not enough memory: {size >> 20:,} MB of addresses for {threads} threads of Polars; raise the "
            "limit on memory (ulimit -v), or set POLARS_MAX_THREADS=1"
        ) from None


@contextmanager
def unforked() -> Iterator[None]:
    """Let forks by other threads wait until the block has ended, and other such blocks, too.

    A fork copies locks that other threads hold, and nobody opens them in the child.
    """
    with _lock:
        yield


@contextmanager
def importing() -> Iterator[None]:
    """Let forks wait for imports in the block, and for what they leave to the first call of the extension.

    An import holds a lock for each module: a child would wait for ever for one that another thread imports.
    """
    global _warm  # noqa: PLW0603
    with unforked():
        yield
        core = sys.modules.get("fasttriplet._core")
        if not _warm and core is not None and "numpy" in sys.modules:  # `--version` does without
            core.warm_up()
            _warm = True


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property  # noqa: PLC0414
else:

    class cached_property:  # noqa: N801
        """That of `functools` as it is from 3.12 on: without a lock, which a fork would copy closed."""

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            return instance.__dict__.setdefault(self._name, self._compute(instance))


def _before() -> None:
    # Python calls last what was registered first. `logging` and `concurrent.futures`, which most packages
    # import, register functions that take locks of theirs, so they are imported before this is registered:
    # whoever imports needs those locks. With a lock of others, waiting would have no end: a fork in the
    # middle of an import is better than none.
    _forking.taken = _lock.acquire(timeout=_LONGEST)


def _in_parent() -> None:
    if _forking.taken:
        _lock.release()


def _in_child() -> None:
    global _lost, _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _lost = _used


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
