"""Shared fixtures: where the real data lies, if it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fasttriplet.mxnet import import_mxnet
from tests import summary

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
