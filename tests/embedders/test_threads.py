"""Batches dealt out to threads."""

from __future__ import annotations

import threading
import time

import pytest

from fasttriplet.embedders import _threads
from fasttriplet.embedders._threads import deal


def test_results_are_in_the_order_of_the_items() -> None:
    def work(lane: int, item: int) -> tuple[int, int]:
        time.sleep(0.001 * (item % 3))
        return lane, item**2

    found = deal([7, 8, 9], work, range(50))
    assert [square for _, square in found] == [item**2 for item in range(50)]
    assert {lane for lane, _ in found} <= {7, 8, 9}


def test_a_lane_is_used_by_one_thread_at_a_time_and_all_lanes_together() -> None:
    meeting = threading.Barrier(3, timeout=30)
    used: set[int] = set()

    def work(lane: int, _: int) -> None:
        assert lane not in used
        used.add(lane)
        meeting.wait()  # for the two others
        used.remove(lane)

    deal([0, 1, 2], work, range(9))


def test_one_lane_has_no_threads() -> None:
    main = threading.current_thread()
    assert deal(["lane"], lambda *_: threading.current_thread() is main, range(2)) == [True, True]


def test_each_thread_begins() -> None:
    begun: list[threading.Thread] = []
    meeting = threading.Barrier(2, timeout=30)
    deal([0, 1], lambda *_: meeting.wait(), range(2), lambda: begun.append(threading.current_thread()))
    assert len(set(begun)) == 2


@pytest.mark.parametrize("lane_of_error", [0, 1])
def test_an_error_ends_all(lane_of_error: int) -> None:
    """In whichever thread it is; all of them are looked at in turn."""
    done: list[int] = []

    def work(lane: int, item: int) -> None:
        if lane == lane_of_error:
            raise ValueError(f"in {lane}")
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(ValueError, match=rf"^in {lane_of_error}$"):
        deal([0, 1], work, range(1000))
    assert len(done) < 20


def test_ctrl_c_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def work(_: int, item: int) -> None:
        time.sleep(0.01)
        done.append(item)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_threads, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deal([0, 1], work, range(1000))
    assert len(done) < 20
