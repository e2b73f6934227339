"""Short calls of `mine`, which the calling thread makes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import _core
from tests.mining.defined import rows
from tests.processes import run_python

# Threads with stacks of 64 TB cannot be started; those of Polars have been.
CODE = """
import os, sys, warnings
import numpy as np
import polars
import fasttriplet as ft

warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
os.environ["RUST_MIN_STACK"] = str(1 << 46)
rng = np.random.default_rng(0)
def call(count, **options):
    rows, labels = rng.normal(size=(count, 128)).astype(np.float32), np.arange(count) // 8
    try:
        return len(ft.mine(rows, labels, band="any", pairs="hardest", **options))
    except OSError as error:
        return str(error).partition(":")[0]

print(call(256), call(256, threads=1), call(256, threads=2), call(2000), call(2000, threads=1), sep="\\n")
if (pid := os.fork()) == 0:
    os._exit(call(256) % 251)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_which_calls_start_threads() -> None:
    """Neither a short call nor the same in a fork does, unless threads are asked for."""
    assert run_python(CODE).splitlines() == [
        "256",
        "256",
        "cannot start 2 threads",
        "cannot start one thread per core",
        "cannot start a thread",
        "5",
    ]


@pytest.mark.parametrize("pairs", ["ordered", "easiest"])
@pytest.mark.parametrize("pick", ["random", "hardest", "all"])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("references", [False, True])
def test_threads_change_nothing(references: bool, ids: bool, pick: Any, pairs: Any) -> None:
    rng = np.random.default_rng(7)
    given: dict[str, Any] = {"embeddings": rng.normal(size=(70, 24)), "labels": rng.integers(-6, 6, 70)}
    given["ids"] = rng.permutation(500)[:70] if ids else None
    if references:
        given |= {"references": rng.normal(size=(90, 24)), "reference_labels": rng.integers(-7, 6, 90)}
        given["reference_ids"] = np.arange(600, 690) if ids else None
    found = [
        rows(ft.mine(**given, pick=pick, pairs=pairs, band="any", threads=threads))
        for threads in (None, 1, 2)
    ]
    assert len(found[0]) > 60
    assert found[1:] == [found[0]] * 2


@pytest.mark.parametrize("label", [np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_the_first_and_the_last_label(label: int) -> None:
    labels = np.array([label, 0, label, 0, 1])
    found = ft.mine(np.eye(5), labels, band="any", pick="all", pairs="ordered")
    assert [*zip(*(role.tolist() for role in found), strict=True)] == [
        (a, p, n)
        for a in range(5)
        for p in range(5)
        for n in range(5)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]


def test_a_call_that_is_to_stop_does() -> None:
    code = """
import numpy as np
import fasttriplet as ft
from fasttriplet import _core

stop = _core.Stop()
stop.heed()
for count in (4, 2000):
    rows, labels = np.eye(count, dtype=np.float32), np.arange(count) // 2
    ft.mine(rows, labels)
stop.set()
for count in (4, 2000):
    rows, labels = np.eye(count, dtype=np.float32), np.arange(count) // 2
    try:
        print(len(ft.mine(rows, labels)))
    except KeyboardInterrupt:
        print("stopped")
"""
    assert run_python(code) == "stopped\nstopped\n"


def test_errors_have_their_words() -> None:
    how: dict[str, Any] = {
        "limits": [], "ranks": (0, None), "pick": "random", "negatives_per_pair": 1, "fallback": False,
        "pairs": "ordered", "positives_per_anchor": None, "triplets_per_anchor": None,
        "metric": "sqeuclidean", "max_ap": -1.0, "normalize": True, "seed": 0,
    }  # fmt: skip
    given = np.eye(3, dtype=np.float32), np.arange(3), None
    with pytest.raises(ValueError, match=r"^max_ap is -1, but must not be negative$"):
        _core.mine(given, None, None, _core.Options(**how), None)
    options = _core.Options(**how | {"max_ap": None})
    with pytest.raises(ValueError, match=r"^9 numbers are not 2 embeddings of 3 columns$"):
        _core.mine((given[0], given[1][:2], None), None, None, options, None)
