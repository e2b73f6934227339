"""Mining with too little memory: a MemoryError with numbers, or the right triplets."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import _core
from tests.processes import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")

# Mines in children of a process that has not mined yet, each with a few bytes more than it has. Prints how
# each child ended.
CODE = """
import hashlib, json, os, resource, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
import numpy as np
import fasttriplet as ft
ft.mine  # imported before memory is short

rows, cases, steps, step = json.loads(sys.argv[1])
embeddings = np.random.default_rng(1).standard_normal((rows, 32)).astype(np.float32)
labels = np.arange(rows) // 5

def mined(case):
    options = dict(case)
    if options.pop("references", False):
        options |= {"references": embeddings[::2], "reference_labels": labels[::2]}
    triplets = ft.mine(embeddings, labels, **options)
    columns = (*triplets, triplets.d_ap, triplets.d_an)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()

def child(case, more):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 2)
        os.close(reading)
        signal.alarm(50)
        if more is not None:
            with open("/proc/self/statm") as file:
                limit = int(file.read().split()[0]) * resource.getpagesize() + more
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            text = "mined " + mined(case)
        except (MemoryError, OSError) as error:
            text = f"{type(error).__name__} {error}"
        os.write(2, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text

for case in cases:
    ended = [child(case, None), *(child(case, number * step) for number in range(steps))]
    print(json.dumps([case, ended]))
"""

CASES: list[dict[str, Any]] = [
    {"pick": "random", "threads": 1},
    {"pick": "random", "band": "hard", "references": True, "negatives_per_pair": 5, "threads": 2},
    {"pick": "hardest", "metric": "cosine", "band": "violating", "threads": 2},
    {"pick": "all", "pairs": "ordered", "margin": 1.0, "threads": 1},
    {"pick": "all", "band": "any", "metric": "euclidean", "normalize": False, "threads": 2},
    {"pick": "all", "references": True, "max_ap": 2.0, "threads": 2},
]


@pytest.fixture(autouse=True)
def _large_allocations_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the limit be felt: memory that malloc keeps, or reserves for each thread, is below it already."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "16384")


def ends(rows: int, cases: list[dict[str, Any]], steps: int, step: int, timeout: float) -> list[str]:
    """How the calls under all limits ended; each in one of the ways that are allowed."""
    ends = []
    for line in run_python(CODE, json.dumps([rows, cases, steps, step]), timeout=timeout).splitlines():
        case, ((_, expected), *limited) = json.loads(line)
        assert expected.startswith("mined "), expected
        for number, (code, text) in enumerate(limited):
            where = f"{case}, limit {number}: {code} {text}"
            assert code == 0, where
            assert text == expected or re.match(
                # From the core, from NumPy, from Python itself, and where a thread has no stack.
                r"MemoryError (not enough memory: [\d.,]+ \w+ for .*|Unable to allocate \d.*|)$"
                r"|OSError cannot start",
                text,
            ), where
            ends.append(text)
    return ends


def test_every_limit_gives_an_error_or_the_right_triplets() -> None:
    found = ends(400, CASES, steps=8, step=3_000_000, timeout=100)
    assert any(text.startswith("MemoryError not enough memory: ") for text in found)
    assert any(text.startswith("mined ") for text in found)


@pytest.mark.slow
def test_many_limits_give_an_error_or_the_right_triplets() -> None:
    each = [case | {"threads": threads} for case in CASES for threads in (1, 2)]
    found = ends(1000, each, steps=150, step=150_000, timeout=3000)
    assert sum(text.startswith("MemoryError not enough memory: ") for text in found) > 100


def test_all_triplets_that_do_not_fit_are_estimated() -> None:
    case = {"pick": "all", "band": "any", "max_ap": 1e9, "threads": 1}
    (text,) = ends(2000, [case], steps=2, step=100 << 20, timeout=100)[1:]
    found = re.match(
        r"MemoryError not enough memory: [\d.,]+ \w+ for (?:triplets|the arrays of the triplets). pick='all' "
        r"had found [\d,]+ triplets in \d+ % of the work, so there are about ([\d,]+), which take [\d.]+ MB: "
        r"take pick='random' or pick='hardest', mine fewer rows at once \(in a run, lower bag_size\), take "
        r"pairs='hardest' or lower max_ap$",
        text,
    )
    assert found, text
    of_all = 2000 * 2 * (2000 - 5)  # two pairs of each row and each other row
    assert 0.8 * of_all < int(found[1].replace(",", "")) < 1.2 * of_all


def test_a_frame_and_an_order_that_do_not_fit_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    triplets = ft.mine(np.eye(3, 2, dtype=np.float32), [0, 0, 1], band="any")
    asked = []
    monkeypatch.setattr(_core, "probe_memory", lambda size, what: asked.append((size, what)))
    assert triplets.to_frame().height == len(triplets.shuffle(1)) == 1
    assert asked == [(40, "a frame of 1 triplet"), (48, "the order of 1 triplet")]


def test_memory_is_probed_before_it_is_used() -> None:
    _core.probe_memory(1000, "a table")
    with pytest.raises(MemoryError, match=r"^not enough memory: [\d.]+ GB for a table"):
        _core.probe_memory(1 << 60, "a table")
    with open(Path("/proc/meminfo")) as file:  # noqa: PTH123
        total = int(file.readline().split()[1]) * 1024
    with pytest.raises(MemoryError, match=r"^not enough memory: [\d.]+ GB for a table"):
        _core.probe_memory(total + (64 << 30), "a table")  # Linux may promise it
