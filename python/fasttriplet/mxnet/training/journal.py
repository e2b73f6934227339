"""What a training tells while it runs: JSON lines, TensorBoard, and whoever listens."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Tell = Callable[[Mapping[str, Any]], object]


class Journal:
    """Writes each record as a line of JSON, to TensorBoard if asked to, and hands it to `tell`.

    While it is open no other training can have the same journal. What goes to `tell` alone is not kept.

    Parameters
    ----------
    path : Path
        JSON lines; created, or gone on with.
    state : dict, optional
        Of a training that is gone on with: records of what it did after that, before it was killed, are
        removed. Without it all are.
    tell : callable
    tensorboard : str or PathLike, optional
        Folder for event files.

    Raises
    ------
    FileExistsError
        While another training writes it.
    ImportError
        If tensorboardX is needed and not installed.
    """

    def __init__(
        self,
        path: Path,
        state: Mapping[str, Any] | None,
        tell: Tell,
        tensorboard: str | os.PathLike[str] | None,
    ) -> None:
        self.tell = tell
        self._events = None if tensorboard is None else _events(tensorboard, state)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FileExistsError(f"another training is writing {path} at this moment") from None
        self._file.truncate(0 if state is None else self._end_of(state))

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
        """Write a record; its ``batch`` says how many are behind."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        if self._events is not None:
            kind = record["kind"] if "pairs" not in record else f"verification/{Path(record['pairs']).name}"
            for name, value in record.items():
                if isinstance(value, float):
                    self._events.add_scalar(f"{kind}/{name}", value, record["batch"])
            self._events.flush()
        self.tell(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
    try:
        writer = importlib.import_module("tensorboardX").SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"TensorBoard's files need tensorboardX ({error}). "
            "Install it: pip install 'fasttriplet[tensorboard]'"
        ) from error
    if state is None:
        return writer(os.fspath(folder))
    # Without a suffix the name would be that of a file of the same second.
    behind = state["batch"]
    return writer(os.fspath(folder), purge_step=behind + 1, filename_suffix=f".{behind}")
