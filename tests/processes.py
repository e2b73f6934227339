"""Python code in a process of its own: what it prints, the memory that it takes, and what disturbs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import pytest


def run_python(code: str, *arguments: str | Path, timeout: float = 60, **environment: str) -> str:
    """Run the code and return what it prints; it must succeed and write nothing to stderr."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment,
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
    """By how much the peak of memory rises from the end of `prepare` to the end of `call`.

    What is freed is given back at once: glibc would keep blocks of several megabytes in the arena of each
    thread, more or fewer by which threads happened to allocate them.
    """
    # Not ru_maxrss: before a new program runs, that is the peak of the process that started it.
    peak = "next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if 'VmHWM' in line)"
    code = f"{prepare}\nbefore = {peak}\n{call}\nprint({peak} - before)\n"
    return int(run_python(code, MALLOC_MMAP_THRESHOLD_=str(2**17)))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its threads have used; other work on the machine does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen[str], sent: int, patience: float = 60) -> float:
    """Send a signal, wait for the end, and return the processor time that the process used in between."""
    before, until = cpu_seconds(process.pid), time.monotonic() + patience
    process.send_signal(sent)
    # Not reaped here: then its times would be gone.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        assert time.monotonic() < until, f"it has not ended {patience:.0f} s after the signal"
        time.sleep(0.01)
    return cpu_seconds(process.pid) - before


def compiled(source: Path, folder: Path) -> Path:
    """A library of one file in C; the test is skipped where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(f"no C compiler (cc) to build {source.name}")
    library = folder / f"{source.stem}.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl"], check=True)
    return library
