"""Shared fixtures: where the real data lies, if it does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.mxnet import import_mxnet
from tests import summary
from tests.clock import Clock

# Several processes run tests at once. Threads of OpenMP (MXNet's and PyTorch's) that wait for each other keep
# their cores busy by default, which the others need: trainings of small networks take twice the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Failing asserts of these helpers show their values, as those of test files do.
pytest.register_assert_rewrite(
    "tests.dataset.plain_augment",
    "tests.mining.defined",
    "tests.processes",
    "tests.run.leftovers",
    "tests.run.plain_feed",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real files that MXNet's and InsightFace's tools wrote, kept beside the checkout."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What all parts of the package take for the time while the test runs."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in summary.lines(terminalreporter):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def mx() -> Any:
    """MXNet, imported through the shim; the test is skipped where the `[mxnet]` extra is not installed."""
    try:
        return import_mxnet()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that disturbs system calls; see tests/faults/README.md."""
    from tests.faults import build  # noqa: PLC0415  after the rewriting above

    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one, for runs that would wait for the disk most of the time."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield folder
    shutil.rmtree(folder)
