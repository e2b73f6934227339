"""The log of a training: JSON lines, and event files for TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from fasttriplet._disk import sync
from fasttriplet._hidden import lock
from fasttriplet._words import naming_file
from fasttriplet.training._events import Events

_START = b'{"kind": "start"'


class Journal:
    """Writes each record as a line of JSON, and to TensorBoard if asked to.

    While it is open, no other training can open the same file. It leaves no empty file, except one of events
    that the state depends on.

    Attributes
    ----------
    lines : int
        How many lines the training has written, without those that say that a run starts. Unlike the number
        of bytes, it does not depend on the time that anything took, nor on interruptions.
    """

    def __init__(self, path: Path, lines: int, make_events: Callable[[], Events] | None) -> None:
        self.lines = lines
        self._path, self._file = path, path.open("a+b", buffering=0)
        self._events: Events | None = None
        self._committed = False
        try:
            lock(self._file.fileno())
            self._events = make_events and make_events()
        except BlockingIOError:
            self._file.close()
            raise FileExistsError(f"another training is writing {path} at this moment") from None
        except BaseException:
            self._close()
            raise

    def begin(self, batch: int) -> None:
        """Remove lines that a killed run wrote after its state; for TensorBoard, all from this batch on."""
        end = lines = 0
        with naming_file(self._path), self._path.open("rb") as file:
            for line in file:
                counts = not line.startswith(_START)
                if lines + counts > self.lines or not line.endswith(b"\n"):
                    break
                end, lines = end + len(line), lines + counts
            self._file.truncate(end)
        self.lines = lines  # fewer where the log was moved away
        if self._events is not None:
            self._events.begin(batch)

    def write(self, *records: Mapping[str, Any]) -> None:
        """Write records; the ``batch`` of a record is the number of batches so far."""
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        with naming_file(self._path):
            while lines:
                lines = lines[self._file.write(lines) :]
        if self._events is not None:
            for record in records:
                if scalars := _scalars(record):
                    self._events.write(record["batch"], scalars)
        self.lines += sum(record["kind"] != "start" for record in records)

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        with naming_file(self._path):
            sync(self._file.fileno())

    def committed(self) -> None:
        """Take note that there is a state, which names the folder of events."""
        self._committed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._events is not None:
            self._events.close(keep=self._committed)
        with naming_file(self._path):
            if os.fstat(self._file.fileno()).st_size == 0:
                self._path.unlink(missing_ok=True)
            self._file.close()


class NoJournal(Journal):
    """That of a process that leaves the log to another one."""

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def begin(self, batch: int) -> None:
        """Do nothing."""

    def write(self, *records: Mapping[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def committed(self) -> None:
        """Do nothing."""

    def _close(self) -> None:
        """Do nothing."""


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    kind = record["kind"] if "pairs" not in record else f"verification/{Path(record['pairs']).name}"
    return {f"{kind}/{name}": value for name, value in record.items() if isinstance(value, float)}
