"""How busy each stage of a run was, over time, in a few numbers however long the run is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_BINS = 64
_FIRST_WIDTH = 1 / 64  # seconds


@dataclass(slots=True)
class _Busy:
    """Busy seconds of one stage in bins, which double in width when the run outgrows them."""

    width: float = _FIRST_WIDTH
    bins: list[float] = field(default_factory=lambda: [0.0] * _BINS)

    def add(self, start: float, end: float) -> None:
        while end >= self.width * _BINS:
            self.widen()
        for at in range(int(start / self.width), int(end / self.width) + 1):
            self.bins[at] += max(0.0, min(end, (at + 1) * self.width) - max(start, at * self.width))

    def widen(self) -> None:
        pairs = [a + b for a, b in zip(self.bins[::2], self.bins[1::2], strict=True)]
        self.bins = pairs + [0.0] * (_BINS - len(pairs))
        self.width *= 2


class Timeline:
    """Collects when stages were busy; each stage from one thread."""

    def __init__(self) -> None:
        self._started = self._ended = time.perf_counter()
        self._stages: dict[str, _Busy] = {}

    def add(self, stage: str, start: float, end: float) -> None:
        """Count a stage as busy from `start` to `end`, both of ``time.perf_counter``."""
        self._stages.setdefault(stage, _Busy()).add(start - self._started, end - self._started)
        self._ended = max(self._ended, end)

    def shares(self) -> tuple[float, dict[str, list[float]]]:
        """Cut the time so far into equal bins: seconds of a bin, and for each stage its share of each bin."""
        length = max(self._ended - self._started, _FIRST_WIDTH)
        width = max([_FIRST_WIDTH, *(busy.width for busy in list(self._stages.values()))])
        count = -int(-length // width)
        shares = {}
        for stage, busy in list(self._stages.items()):
            folded = _Busy(busy.width, list(busy.bins))
            while folded.width < width:
                folded.widen()
            lengths = [min(width, length - at * width) for at in range(count)]
            shares[stage] = [
                min(1.0, value / span) for value, span in zip(folded.bins, lengths, strict=False)
            ]
        return width, shares
