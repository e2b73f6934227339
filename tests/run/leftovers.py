"""What a run may leave: threads, open files, files in a folder."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def threads() -> list[str]:
    """The package's threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fasttriplet")]


def open_files() -> Counter[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()).removesuffix(" (deleted)"))
        except FileNotFoundError:  # the one that lists the folder
            continue
    return Counter(found)


def is_open(path: Path) -> bool:
    return str(path) in open_files()


@contextmanager
def nothing_left() -> Iterator[None]:
    """The block leaves no thread and no open file.

    A ``.rec`` is open as long as its dataset exists, which the traceback of an error may hold.
    """
    before = open_files()
    assert threads() == []
    yield
    assert threads() == []
    # Polars has an event loop from its first Parquet file on.
    ours = (name for name in open_files() - before if not name.startswith("anon_inode:[event"))
    assert [name for name in ours if not name.endswith(".rec")] == []


def collected() -> None:
    """Wait for the threads of feeds that nobody holds: a thread holds its feed while it works."""
    gc.collect()
    until = time.monotonic() + 5
    while threads() and time.monotonic() < until:
        time.sleep(0.001)
        gc.collect()


@contextmanager
def alarm(seconds: int = 20) -> Iterator[None]:
    """Fail where the block hangs."""

    def ring(*_: object) -> None:
        pytest.fail(f"it still runs after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def besides_datasets(folder: Path) -> list[str]:
    """What is in a folder besides datasets and their caches."""
    return [p.name for p in folder.iterdir() if not p.name.startswith("train")]
