"""The log of a training: who may write it, what is cut off, and what stays on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasttriplet.training._events import Events
from fasttriplet.training._journal import Journal
from tests.training.events import events, scalars


def open_files_of(path: Path) -> int:
    return sum(link.exists() and link.samefile(path) for link in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_the_log_of_another_training_is_left_as_it_is(tmp_path: Path) -> None:
    """An empty one, too: the other is about to write it."""
    path = tmp_path / "net-log.jsonl"
    with Journal(path, 0, None) as journal:
        with pytest.raises(FileExistsError, match=r"another training is writing .*net-log.jsonl"):
            Journal(path, 0, None)
        assert open_files_of(path) == 1
        journal.write({"kind": "train", "batch": 1, "loss": 0.5})
    assert open_files_of(path) == 0
    assert json.loads(path.read_text()) == {"kind": "train", "batch": 1, "loss": 0.5}


def test_events_that_cannot_be_opened_leave_no_log(tmp_path: Path) -> None:
    path = tmp_path / "net-log.jsonl"
    for _ in range(2):  # it is not locked either
        with pytest.raises(FileNotFoundError):
            Journal(path, 0, lambda: Events(tmp_path / "missing", "net"))
    assert list(tmp_path.iterdir()) == []


def test_lines_after_those_of_the_state_are_cut_off(tmp_path: Path) -> None:
    """Lines that say that a run starts are not counted; they stay with what came before them."""
    path = tmp_path / "net-log.jsonl"
    start, line = b'{"kind": "start", "batch": 0}\n', b'{"kind": "train", "batch": %d}\n'
    whole = start + line % 1 + line % 2 + start + line % 3 + line % 4
    for lines, end, left in (
        (0, b"", start),
        (2, b"", start + line % 1 + line % 2 + start),
        (4, b"", whole),
        (9, b'{"kind": "tr', whole),
        (4, start + b'{"kind"', whole + start),
    ):
        path.write_bytes(whole + end)
        with Journal(path, lines, None) as journal:
            journal.begin(0)
            assert journal.lines == min(lines, 4)
            journal.write({"kind": "start", "batch": 5}, {"kind": "train", "batch": 6})
            assert journal.lines == min(lines, 4) + 1
        assert path.read_bytes() == left + b'{"kind": "start", "batch": 5}\n' + line % 6


def test_numbers_with_a_point_are_shown_by_tensorboard(tmp_path: Path) -> None:
    with Journal(tmp_path / "net-log.jsonl", 0, lambda: Events(tmp_path, "net")) as journal:
        journal.begin(7)
        journal.write(
            {"kind": "start", "batch": 7},
            {"kind": "train", "batch": 8, "loss": 0.5, "bag": 3, "lr": 0.25},
            {"kind": "verify", "batch": 8, "pairs": "of/people.tsv", "auc": 0.75},
        )
    assert scalars(tmp_path) == {
        ("train/loss", 8): 0.5,
        ("train/lr", 8): 0.25,
        ("verification/people.tsv/auc", 8): 0.75,
    }
    (path,) = tmp_path.glob("*tfevents*")
    assert [event.step for event in events(path)] == [0, 7, 8, 8]


@pytest.mark.parametrize("has_state", [False, True])
def test_empty_files_stay_only_if_a_state_names_them(tmp_path: Path, has_state: bool) -> None:
    with Journal(tmp_path / "net-log.jsonl", 0, lambda: Events(tmp_path, "net")) as journal:
        if has_state:
            journal.committed()
    names = [path.name.split(".")[0] for path in tmp_path.iterdir()]
    assert names == ["events"] * has_state
