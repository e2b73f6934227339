"""Where a training ends, and what it does on the way."""

from __future__ import annotations

from dataclasses import dataclass

from fasttriplet._checks import whole_number


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a training ends, and what happens after how many batches."""

    batches: int
    verify_on: tuple[str, ...]
    verify_every: int
    checkpoint_every: int
    log_every: int

    def __post_init__(self) -> None:
        for name in ("batches", "verify_every", "checkpoint_every", "log_every"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
