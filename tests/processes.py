"""Python code in a process of its own: what it prints, and the memory that it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import indent


def run_python(code: str, *arguments: str | Path, timeout: float = 60) -> str:
    """Run the code and return what it prints; it must succeed and write nothing to stderr."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), (
        f"{run.returncode}\n{run.stdout}\n{run.stderr}\n{indent(code, '    ')}"
    )
    return run.stdout


def megabytes_more(prepare: str, call: str) -> int:
    """By how much the peak of memory rises from the end of `prepare` to the end of `call`."""
    peak = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024"
    return int(run_python(f"import resource\n{prepare}\nbefore = {peak}\n{call}\nprint({peak} - before)\n"))
