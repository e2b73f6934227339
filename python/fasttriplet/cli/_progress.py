"""How far a command is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_LINE_EVERY = 5.0  # seconds


class Display:
    """Tells how far the steps of a command are, for files and pipes; with `announce` also when one begins."""

    def __init__(self, *, announce: bool = False) -> None:
        self._announce = announce
        self._told = time.perf_counter()  # when the last line was printed
        self._begun: dict[str, tuple[int, float]] = {}  # where and when

    def update(
        self, step: str, done: int, total: int | None = None, *, unit: str = "images", note: str = ""
    ) -> None:
        """Say that `done` of a step is done, of `total` if that is known.

        A step that is back at its start, such as the next file of a kind, begins again.
        """
        now = time.perf_counter()
        first, since = self._begun.get(step, (done, now))
        if begins := done <= first:
            first, since = self._begun[step] = (done, now)
        rate = (done - first) / (now - since) if now > since else 0.0
        count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
        parts = [f"{count} {unit}"] if done or total is not None else []
        if rate:
            parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")
        if rate and total is not None and done < total:
            parts.append(f"{timedelta(seconds=round((total - done) / rate))} left")
        self._show(step, done, total, ", ".join(filter(None, [*parts, note])), begins=begins)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._told = time.perf_counter()
        click.echo(line, err=True)

    def _show(self, step: str, done: int, total: int | None, text: str, *, begins: bool) -> None:  # noqa: ARG002
        if begins and self._announce:
            self.say(step)
        elif time.perf_counter() - self._told >= _LINE_EVERY:
            self.say(f"{step}: {text}")


class _BarDisplay(Display):
    """Shows the step in progress as a bar."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", total=None, text="")

    def say(self, line: str) -> None:
        self._bar.console.out(line, highlight=False)  # above the bar

    def _show(self, step: str, done: int, total: int | None, text: str, *, begins: bool) -> None:  # noqa: ARG002
        self._bar.update(self._task, description=step, completed=done, total=total, text=text)


@contextmanager
def display(*, announce: bool = False) -> Iterator[Display]:
    """Show progress while the block runs; see :class:`Display`."""
    if not sys.stderr.isatty():
        yield Display(announce=announce)
        return
    from rich.console import Console  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _BarDisplay(bar)
