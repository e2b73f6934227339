"""What the environment says about the processes of a training."""

from __future__ import annotations

import pytest

from fasttriplet._cores import cores
from fasttriplet._launcher import is_first_process, launched, launched_here, rank_here, threads_each

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize(
    ("environment", "processes", "first"),
    [
        ({}, 1, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 2, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 2, False),
        # What other programs leave there does not make this process one of several.
        ({"RANK": "1"}, 1, True),
        ({"WORLD_SIZE": "2"}, 1, True),
        ({"RANK": "1", "WORLD_SIZE": "many"}, 1, True),
    ],
)
def test_the_first_of_several(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], processes: int, first: bool
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (launched(), is_first_process()) == (processes, first)
    assert (launched_here(), rank_here(), threads_each()) == (1, 0, None)


def test_those_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (launched_here(), rank_here(), threads_each()) == (2, 1, max(1, cores() // 2))
