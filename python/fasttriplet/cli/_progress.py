"""How far a command is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from fasttriplet._words import counted, plural

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 5.0, 60.0, 1.5  # seconds from one line to the next, and their ratio
_LONGEST = 8e13  # seconds that a timedelta can hold
_BEAT = 1.0  # seconds between two looks whether a line is due
_WIDTH_FOR_BAR = 100  # columns; on narrower terminals the words take all of them


@dataclass(slots=True)
class _Step:
    """How far a step is."""

    name: str
    first: int  # how much was done when it began, which took no time
    since: float  # when that was
    done: int = 0
    total: int | None = None
    unit: str = "image"
    note: str = ""
    left: float | None = None  # seconds

    def __str__(self) -> str:
        """Name, counts, rate, time left and note, as far as they are known."""
        elapsed, more = time.perf_counter() - self.since, self.done - self.first
        parts = []
        if self.total is not None:
            parts.append(f"{self.done:,} of {counted(self.total, self.unit)}")
        elif self.done:
            parts.append(counted(self.done, self.unit))
        left = self.left
        if more and elapsed:
            parts.append(_rate(more / elapsed, self.unit))
            if left is None and self.total is not None:
                left = (self.total - self.done) * elapsed / more
        elif elapsed >= 1:
            parts.append(f"{clock(elapsed)} so far")
        if left is not None and self.done != self.total:
            parts.append(f"{clock(left)} left")
        known = ", ".join(filter(None, [*parts, self.note]))
        return _printable(f"{self.name}: {known}" if known else self.name)


def _rate(rate: float, unit: str) -> str:
    if rate < 1:
        return f"{1 / rate:.1f} s per {unit}"
    return f"{rate:,.0f} {plural(unit)}/s" if rate >= 10 else f"{rate:.1f} {plural(unit)}/s"


def clock(seconds: float) -> str:
    """``0:00:30``, ``3:04:05``, ``1 day, 3:04:05``."""
    return str(timedelta(seconds=round(min(seconds, _LONGEST))))


def _printable(line: str) -> str:
    """A name of a file may hold anything; a line of a log must stay one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Display:
    """Prints how far a command is: the steps that take long, at first every 5 s, later once a minute.

    With `announce` it also prints when a step begins.
    """

    def __init__(self, *, announce: bool = False) -> None:
        self._announce = announce
        self._steps: dict[str, _Step] = {}
        self._current: _Step | None = None
        self._told, self._pause = time.perf_counter(), _FIRST_PAUSE  # when the last line was printed
        self._lock = threading.RLock()  # held while a line is being printed

    def update(
        self,
        step: str,
        done: int = 0,
        total: int | None = None,
        *,
        unit: str = "image",
        note: str = "",
        left: float | None = None,
    ) -> None:
        """Say that `done` of a step is done, of `total` if that is known.

        A step that goes back, such as to the next bag, begins again. The seconds that are `left` follow from
        the rate unless the caller knows better.
        """
        with self._lock:
            now = self._steps.get(step)
            if begins := now is None or done < now.done:
                self._pause = self._pause if now else _FIRST_PAUSE
                now = self._steps[step] = _Step(step, done, time.perf_counter())
            now.done, now.total, now.unit, now.note, now.left = done, total, unit, note, left
            self._current = now
            self._show(now, begins=begins)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._told = time.perf_counter()
            click.echo(_printable(line), err=True)

    def _show(self, step: _Step, *, begins: bool) -> None:
        if begins and self._announce:
            count = "" if step.total is None else f": {counted(step.total, step.unit)}"
            self.say(f"{step.name}{count}")
        else:
            self._tell()

    def _tell(self) -> None:
        """Print a line about the step in progress, if it is time for one."""
        with self._lock:
            if self._current is not None and time.perf_counter() - self._told >= self._pause:
                self._pause = min(self._pause * _GROWTH, _LONGEST_PAUSE)
                self.say(str(self._current))

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell while the block runs, also during calls that take long and report nothing."""
        ended = threading.Event()

        def beat() -> None:
            with suppress(OSError):  # nobody reads stderr any more; the command finds out by itself
                while not ended.wait(_BEAT):
                    self._tell()

        thread = threading.Thread(target=beat, name="fasttriplet-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _BarDisplay(Display):
    """Shows the step in progress as a bar, which rich draws ten times a second."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def say(self, line: str) -> None:
        self._bar.console.out(_printable(line), highlight=False)  # above the bar

    def _show(self, step: _Step, *, begins: bool) -> None:  # noqa: ARG002
        self._bar.update(self._task, completed=step.done, total=step.total, step=step)


class _NoDisplay(Display):
    """That of a process that leaves reporting to another one."""

    def say(self, line: str) -> None:
        pass


@contextmanager
def display(*, announce: bool = False, silent: bool = False) -> Iterator[Display]:
    """Show progress while the block runs; see :class:`Display`. With `silent`, show nothing."""
    if silent:
        yield _NoDisplay()
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):  # where rich draws nothing
        shown = Display(announce=announce)
        with shown.telling():
            yield shown
        return
    from rich.console import Console  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.progress import BarColumn, Progress, ProgressColumn, Task  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Words(ProgressColumn):
        """The step and how far it is, at this moment."""

        def render(self, task: Task) -> Text:
            return Text(str(task.fields.get("step", "")))

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [Words(Column(overflow="fold"))]
    if console.width >= _WIDTH_FOR_BAR:
        columns.insert(0, BarColumn(bar_width=12))
    with Progress(*columns, console=console, transient=True) as bar:
        yield _BarDisplay(bar)
