"""What tests have to say in the summary at the end: names of properties of a test."""

from __future__ import annotations

import pytest

POINTS = "fault points"  # how many runs had a fault injected
TOLD = "told"  # a line


def lines(reporter: pytest.TerminalReporter) -> list[str]:
    """What the tests of a run have to say."""
    reports = [report for kind in ("passed", "failed") for report in reporter.getreports(kind)]
    properties = [(name, value) for report in reports for name, value in report.user_properties]
    told = [str(value) for name, value in properties if name == TOLD]
    if points := sum(value for name, value in properties if name == POINTS):
        told.append(f"{points:,} runs had a fault injected (tests/faults)")
    return told
