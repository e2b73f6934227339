"""How long the inner kernels of the miner take on one thread, on each instruction set of the machine.

512 columns, 7,200 candidates: one bag of InsightFace's `triplet` configuration. `kernels.rs` measures, with
criterion; this runs it and collects its estimates.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from fasttriplet import _core
from harness import Bench
from tables import Table

ROOT = Path(__file__).parents[1]

bench = Bench(__file__, __doc__)
bench.option("--seconds", 5.0, "of measuring for each number", quick=0.1)


def tables(options: Namespace) -> Iterator[Table]:
    began = time.time()
    command = ["cargo", "bench", "--locked", "--features", "kernels", "--bench", "kernels", "--"]
    subprocess.run([*command, "--measurement-time", str(options.seconds)], cwd=ROOT, check=True, stdout=2)
    found: dict[str, dict[str, float]] = {}
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for path in sorted((target / "criterion").glob("**/new/benchmark.json")):
        if path.stat().st_mtime >= began:
            kernel = json.loads(path.read_text())
            estimates = json.loads(path.with_name("estimates.json").read_text())
            nanoseconds = estimates["median"]["point_estimate"]
            found.setdefault(kernel["group_id"], {})[kernel["value_str"]] = nanoseconds / 1e3
    sets = _core.instruction_sets()
    rows = {name: {isa: times[isa] for isa in sets if isa in times} for name, times in found.items()}
    yield Table("Microseconds", {name: dict(cells) for name, cells in rows.items()})


if __name__ == "__main__":
    bench.main(tables)
