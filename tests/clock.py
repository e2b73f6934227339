"""A clock for tests of what is timed; `tests/conftest.py` has it as a fixture."""

from __future__ import annotations


class Clock:
    """Stands still unless it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
