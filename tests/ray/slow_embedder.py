"""An embedder that takes its time, and may do something terrible to its process, once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray


class SlowEmbedder:
    """Embeds as a table says.

    Parameters
    ----------
    rows : (N, D) float32
        By key.
    seconds : float
        For each call.
    once : str
        What to do at one call: "kill" the process, take 3 GB of "memory" or raise an "error"; a file in
        `marks` says that it was done. With "memory for ever" it is done at each call.
    marks : Path
    """

    needs_images, description = False, "a slow table"

    def __init__(self, rows: NDArray[np.float32], seconds: float, once: str, marks: Path) -> None:
        self.rows, self.seconds, self.once, self.marks = rows, seconds, once, marks

    def prepare(self, index: pl.DataFrame) -> None:
        pass

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:  # noqa: ARG002
        time.sleep(self.seconds)
        with (self.marks / "pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        mark = self.marks / self.once
        if self.once == "memory for ever":
            _take_memory()
        if self.once and len((self.marks / "pids").read_text().split()) > 3 and not mark.exists():
            mark.touch()
            if self.once == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.once == "memory":
                _take_memory()
            if self.once == "error":
                raise MemoryError("not enough memory: no room for a thought")
        found: NDArray[np.float32] = self.rows[rows["key"].to_numpy()]
        return found


def _take_memory() -> None:
    held = np.ones(4 * 10**8)
    time.sleep(10)
    del held
