"""How long it takes to index a ``.rec``, from nothing and from the cache, and how much memory.

    python benches/bench_index.py [--records 1000000] [--json]

Each number comes from a process of its own, with the file in the page cache. ``seconds`` is the call
alone, ``import_seconds`` what the process spent before it. ``anon_mb`` is the peak of RssAnon, sampled
each 2 ms: what the process allocated, with the interpreter and Polars in it. Pages of the mapped file
are not in it; the kernel drops them when it wants to. ``call_mb`` is how much of it the call added.

The peer is the loop that MXNet users have (``read_idx`` and ``unpack`` of each key), measured over 20,000
records and scaled up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import report

BARS = {
    "from nothing, with .idx": 3.0,
    "from nothing, without .idx": 3.0,
    "from the cache": 0.3,
    "triplet_seq": 0.5,
}  # seconds
MEMORY_BAR_MB = 300
PER_IDENTITY = 20
PEER_RECORDS = 20_000


def make(path: Path, records: int) -> None:
    """Write a file of InsightFace's layout with about this many records of 100 to 356 bytes."""
    import fasttriplet as ft  # noqa: PLC0415

    identities = max(1, records // (PER_IDENTITY + 1))
    images = identities * PER_IDENTITY
    content = bytes(range(256)) * 2
    with ft.RecordWriter(path) as writer:
        for key in range(1, images + 1):
            label = (key - 1) // PER_IDENTITY
            writer.write(key, (0, (label, 1.0), key, 0), content[: 100 + key * 7919 % 256])
        for identity in range(identities):
            first = 1 + identity * PER_IDENTITY
            writer.write(
                images + 1 + identity, (0, (first, first + PER_IDENTITY), images + 1 + identity, 0), b""
            )
        writer.write(0, (0, (images + 1, images + 1 + identities), 0, 0), b"")


def anon_mb() -> float:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))


def measure(call: Callable[[], Any], begin: float) -> dict[str, Any]:
    """Time `call` and watch its memory; `begin` is when the process started."""
    before, done, peak = anon_mb(), threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], anon_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    top = max(peak[0], anon_mb())
    return {
        "seconds": round(seconds, 4),
        "import_seconds": round(start - begin, 3),
        "rows": len(result),
        "anon_mb": round(top, 1),
        "call_mb": round(top - before, 1),
    }


def child(step: str, path: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    if step == "peer: read_idx and unpack":
        from fasttriplet.mxnet.compat import import_mxnet  # noqa: PLC0415

        recordio = import_mxnet().recordio
        file = recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
        keys = file.keys[:PEER_RECORDS]
        return measure(lambda: [recordio.unpack(file.read_idx(key))[0].label for key in keys], begin)
    import fasttriplet as ft  # noqa: PLC0415

    index_rec, triplet_seq = ft.index_rec, ft.triplet_seq  # their first use imports Polars
    if step == "triplet_seq":
        index = index_rec(path)
        return measure(lambda: triplet_seq(index), begin)
    cached = step == "from the cache"
    return measure(lambda: index_rec(path, cache=cached), begin)


def in_child(step: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", step, "--rec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step}: {done.stderr}")
    return dict(json.loads(done.stdout))


def run(records: int, folder: Path) -> dict[str, Any]:
    path = folder / "bench.rec"
    begin = time.perf_counter()
    make(path, records)
    results: dict[str, Any] = {
        "written": {"records": records, "mb": round(path.stat().st_size / 2**20, 1)}
        | {"seconds": round(time.perf_counter() - begin, 2)}
    }
    results["from nothing, with .idx"] = in_child("from nothing, with .idx", path)
    if importlib.util.find_spec("mxnet"):
        peer = in_child("peer: read_idx and unpack", path)
        scale = records / peer["rows"]
        results["peer: read_idx and unpack"] = peer | {
            "seconds": round(peer["seconds"] * scale, 2),
            "scaled": True,
        }
    idx = path.with_suffix(".idx")
    hidden = idx.rename(idx.with_suffix(".hidden"))
    results["from nothing, without .idx"] = in_child("from nothing, without .idx", path)
    hidden.rename(idx)
    in_child("from the cache", path)  # makes it
    results["from the cache"] = in_child("from the cache", path)
    results["triplet_seq"] = in_child("triplet_seq", path)
    return results


def flat(results: dict[str, Any]) -> dict[str, Any]:
    """One line for each number, and whether the bars are met."""
    lines: dict[str, Any] = {}
    for step, numbers in results.items():
        lines |= {f"{step}, {name}": value for name, value in numbers.items()}
    for step, bar in BARS.items():
        lines[f"{step} in {bar} s or less"] = results[step]["seconds"] <= bar
    worst = max(results[step]["anon_mb"] for step in BARS if step != "triplet_seq")
    return lines | {f"{MEMORY_BAR_MB} MB beyond the file map or less": worst <= MEMORY_BAR_MB}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--rec", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rec)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = run(options.records, Path(folder))
    report(f"indexing {options.records:,} records", flat(results), as_json=options.json)


if __name__ == "__main__":
    main()
