"""What machine a bench ran on, and how its results are printed."""

from __future__ import annotations

import json
import os
import platform
import resource
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fasttriplet import _core


def describe() -> dict[str, Any]:
    """Processor, cores, instruction sets and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() == "flags":
                flags = set(value.split())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "instruction_sets": sorted(
            flags & {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"}
        ),
        "kernel": _core.instruction_set(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def peak_memory() -> int:
    """Most bytes this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(title: str, results: dict[str, Any], *, as_json: bool) -> None:
    """Print the results and the machine: one JSON object, or a table."""
    if as_json:
        print(json.dumps({"bench": title, "machine": describe(), "results": results}))
        return
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in results.items():
        table.add_row(name, _shown(value))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name}: {value}" for name, value in describe().items()), style="dim")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
