"""Three real processes, connected by gloo: they share the triplets of one, and end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small_rec import identities, write_rec

pytest.importorskip("torch")

pytestmark = [pytest.mark.heavy, pytest.mark.torch]

Answers = dict[str, list[Any]]  # to each question, by rank
SCRIPT = Path(__file__).with_name("group_script.py")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """What each process prints to each question, by rank; and how it ended."""
    rec = write_rec(tmp_path_factory.mktemp("group") / "train.rec", identities(12, 6))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "3"}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, rec],
            env=os.environ | shared | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    found: Answers = {}
    try:
        for rank, process in enumerate(processes):
            output, errors = process.communicate(timeout=150)
            for question, value in map(json.loads, output.splitlines()):
                found.setdefault(question, []).append(value)
            found.setdefault("ended", []).append(process.returncode)
            found.setdefault("errors", []).append(errors)
            assert output, (rank, errors)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    yield found


def test_together_they_have_the_triplets_of_one(answers: Answers) -> None:
    def triplets(question: str) -> list[list[int]]:
        assert len({len(batches) for batches in answers[question]}) == 1  # in each process
        assert {len(batch) for batches in answers[question] for batch in batches} == {3}
        return [triplet for batches in answers[question] for batch in batches for triplet in batch]

    (alone,) = answers["of 1"]
    assert len(alone) == 80
    assert len(answers["of 2"]) == 2
    assert len(answers["of 3"]) == 3
    for question in ("of 2", "of 3"):
        shared = sorted(triplets(question))
        # An endless feed keeps what does not fill a batch of each process: of three triplets in each.
        missing = [triplet for batch in alone for triplet in batch]
        for triplet in shared:
            missing.remove(triplet)
        assert len(missing) < 3 * 3


def test_a_process_that_is_not_in_the_group(answers: Answers) -> None:
    assert answers["not in the group"] == ["OptionError: group does not contain this process"] * 3


def test_the_state_is_that_of_all_and_resumes(answers: Answers) -> None:
    first, *others = answers["state"]
    assert all(other == first for other in others)
    assert len(first[2]) > 9
    assert answers["resumed"] == [True] * 3


def test_all_may_leave_a_pass_early(answers: Answers) -> None:
    first, *others = answers["next pass"]
    assert others == [first, first]
    assert first[0] > 10
    assert first[1:] == [2, 2]


def test_a_training(answers: Answers) -> None:
    """Running statistics differ between processes, and they mine the same triplets nevertheless."""
    (steps, triplets, _), *others = first, *_ = answers["trained"]
    assert others == [first, first]
    assert steps == triplets // 9
    assert answers["statistics"][0] != answers["statistics"][1]


def test_networks_that_differ_are_named(answers: Answers) -> None:
    for message in answers["not wrapped"]:
        assert message.startswith(
            "ValueError: the parameters of the network differ between processes 0 and 1 (0.weight)"
        )


@pytest.mark.parametrize(
    ("question", "own", "message"),
    [
        (
            "module fails",
            "RuntimeError: module Fails failed on 16 images",
            "process 1 failed: RuntimeError: ",
        ),
        ("step fails", "KeyError: 'of the step'", "process 1 failed: KeyError: 'of the step'"),
        ("break", "none", "process 1 closed its feed before the end"),
        ("no file", "FileNotFoundError", "process 1 failed: FileNotFoundError: [Errno 2] No such file"),
    ],
)
def test_one_that_fails_ends_all(answers: Answers, question: str, own: str, message: str) -> None:
    first, failing, last = answers[question]
    assert failing.startswith(own)
    for other in (first, last):
        assert other.startswith(f"PeerError: {message}")


def test_ctrl_c_while_it_waits(answers: Answers) -> None:
    first, *others = answers["ctrl-c"]
    assert first.startswith("KeyboardInterrupt")
    assert others == ["PeerError: process 0 failed: KeyboardInterrupt"] * 2


def test_one_that_is_killed(answers: Answers) -> None:
    assert answers["killed"] == ["PeerError: process 2 ended without a message; was it killed?"]
    assert answers["ended"][2] == -signal.SIGKILL


def test_one_that_ends_with_an_error(answers: Answers) -> None:
    assert answers["uncaught"] == ["PeerError: process 1 failed: LookupError: that nobody catches"]
    assert answers["ended"][:2] == [0, 1]
    assert "LookupError: that nobody catches" in answers["errors"][1]
    assert answers["errors"][0] == ""
