"""The log of a training: JSON lines, and event files for TensorBoard."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fasttriplet._extras import how_to_install
from fasttriplet._files import lock


class Journal:
    """Writes each record as a line of JSON, and to TensorBoard if asked to.

    While it is open, no other training can open the same file. It leaves no empty file.
    """

    def __init__(
        self, path: Path, state: Mapping[str, Any] | None, tensorboard: str | os.PathLike[str] | None
    ) -> None:
        self._path, self._file, self._events, self._state = path, path.open("a+b"), None, state
        try:
            lock(self._file.fileno())
        except BlockingIOError:
            self._file.close()
            raise FileExistsError(f"another training is writing {path} at this moment") from None
        try:
            self._events = None if tensorboard is None else _events(tensorboard, state)
        except BaseException:
            self._close()
            raise

    def trim(self) -> None:
        """Remove what a killed training wrote after the state; without a state, everything."""
        self._file.truncate(0 if self._state is None else self._end_of(self._state))

    def _end_of(self, state: Mapping[str, Any]) -> int:
        """Where the records end that were written before this state."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not _is_before(line, state):
                break
            end += len(line)
        return end

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record; its ``batch`` is the number of batches so far."""
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        if self._events is not None:
            kind = record["kind"] if "pairs" not in record else f"verification/{Path(record['pairs']).name}"
            for name, value in record.items():
                if isinstance(value, float):
                    self._events.add_scalar(f"{kind}/{name}", value, record["batch"])
            self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if os.fstat(self._file.fileno()).st_size == 0:
            self._path.unlink(missing_ok=True)
        self._file.close()
        if self._events is not None:
            self._events.close()


def _is_before(line: bytes, state: Mapping[str, Any]) -> bool:
    try:
        record = json.loads(line)
        if record["batch"] == state["batch"] and record["kind"] == "verification":
            return bool(state["verified"] == state["batch"])
        return bool(record["batch"] <= state["batch"])
    except (ValueError, KeyError, TypeError):  # cut off when the process was killed
        return False


def _events(folder: str | os.PathLike[str], state: Mapping[str, Any] | None) -> Any:
    with suppress(FileNotFoundError):
        os.stat(folder)  # noqa: PTH116  of a path that cannot be, tensorboardX would give a RecursionError
    try:
        writer = importlib.import_module("tensorboardX").SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"TensorBoard's files need tensorboardX ({error}). {how_to_install('tensorboard')}"
        ) from error
    if state is None:
        return writer(os.fspath(folder))
    batch = state["batch"]
    # Without a suffix two files that are begun in one second would have the same name.
    return writer(os.fspath(folder), purge_step=batch + 1, filename_suffix=f".{batch}")
