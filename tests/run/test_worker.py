"""A worker makes items ahead of the caller, and ends when its block is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet.run._worker import Ahead, Worker
from tests.small_rec import identities, write_rec


def numbers(count: int, made: list[int], error: Exception | None = None) -> Generator[int, None, None]:
    for number in range(count):
        made.append(number)
        yield number
    if error is not None:
        raise error


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_so_many_items_are_made_ahead_and_no_more(depth: int) -> None:
    made: list[int] = []
    with Worker("test") as worker:
        for number in Ahead(worker, numbers(12, made), depth):
            until = time.monotonic() + 5
            while len(made) < min(number + 1 + depth, 12) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.005)
            assert made == list(range(min(number + 1 + depth, 12)))
    assert made == list(range(12))


def test_what_waits_for_its_turn_is_dropped_at_the_end() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> str:
        begun.set()
        go_on.wait(5)
        return "first"

    worker = Worker("test")
    running = worker.submit(first)
    waiting = [worker.submit(done.append, number) for number in range(3)]
    begun.wait(5)
    closing = threading.Thread(target=worker.close)
    closing.start()
    until = time.monotonic() + 5
    while not all(future.cancelled() for future in waiting) and time.monotonic() < until:
        time.sleep(0.001)
    go_on.set()
    closing.join(5)
    assert not closing.is_alive()
    assert running.result() == "first"
    assert all(future.cancelled() for future in waiting)
    assert not done
    with pytest.raises(RuntimeError):
        worker.submit(print)


@pytest.mark.parametrize("depth", [0, 3])
def test_an_error_comes_in_its_turn_and_ends_the_items(depth: int) -> None:
    with Worker("test") as worker:
        ahead = Ahead(worker, numbers(3, [], KeyError("here")), depth)
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="here"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


def test_leaving_the_block_ends_a_call_that_takes_long(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(50, 20))
    dataset = ft.Dataset(rec)
    rows = dataset.index.sample(400_000, with_replacement=True, seed=1)  # takes seconds
    with Worker("test") as worker:
        decoding = worker.submit(dataset.decode, rows)
        time.sleep(0.2)
        started = time.process_time()
    assert time.process_time() - started < 1
    assert isinstance(decoding.exception(), KeyboardInterrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fasttriplet")]
