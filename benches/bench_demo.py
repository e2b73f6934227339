"""How long a first run takes: `fasttriplet demo`, which draws, trains, verifies, mines and writes a page.

Each call is a process of its own, in a new folder, as a user would start it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from harness import Bench
from process import Way
from tables import Table

DEMO = "`fasttriplet demo`"

bench = Bench(__file__, __doc__, rounds=2, packages=["mxnet"])
bench.option("--identities", 60, "drawn for the training", quick=6)
bench.option("--images", 20, "of each", quick=6)
bench.option("--batches", 400, "of the training", quick=4)


def ways(folder: str, options: list[str]) -> dict[str, Way]:
    command = [sys.executable, "-m", "fasttriplet", "demo", "--out", folder, *options]
    return {
        DEMO: Way(
            lambda: subprocess.run(command, check=True, capture_output=True),
            before=lambda: shutil.rmtree(folder, ignore_errors=True),
        )
    }


def tables(options: Namespace) -> Iterator[Table]:
    how = [f"--{name}={getattr(options, name)}" for name in ("identities", "images", "batches")]
    with tempfile.TemporaryDirectory(prefix="fasttriplet-bench-") as folder:
        took = bench.measure(ways, warm_up=False, folder=str(Path(folder, "demo")), options=how)[DEMO]
    yield Table("Seconds", {DEMO: {"fastest": took.best, "median": took.median}})


if __name__ == "__main__":
    bench.main(tables)
