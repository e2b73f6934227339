"""What all benches share: options, ways that are timed in turn, the machine, the report.

A bench has functions that return *ways* to do a piece of work. The harness runs each function in a process of
its own and calls its ways in turn, round after round, so that other work on the machine hits all of them
alike. With ``--against CHECKOUT`` a second process runs the same function with the package of another
checkout, in the same rounds. The number that counts is the minimum: other work on the machine only ever makes
a call slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fasttriplet as ft
from fasttriplet import _core
from process import Process, Ways
from tables import RESULTS, Cell, Table, machine_line

CORES = len(os.sched_getaffinity(0))
HERE = Path(ft.__file__).parents[1]  # the folder that the package is imported from
INSTRUCTION_SETS = {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"}


@dataclass
class Measured:
    """What the calls of one way took.

    Attributes
    ----------
    seconds : list of float
        Of each call that counts.
    added, held : float
        Megabytes that a call in a fresh process added at its peak, and that the process held then; the most
        of all calls.
    ready : float
        Seconds that the process took to import and prepare.
    facts : dict
        Of the last call.
    """

    seconds: list[float] = field(default_factory=list)
    added: float = 0.0
    held: float = 0.0
    ready: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Seconds of the median call."""
        return statistics.median(self.seconds)

    def over(self, baseline: Measured) -> float:
        """How many times as long as the baseline it took."""
        return self.best / baseline.best

    def per_second(self, count: float) -> int:
        """How many of `count` things each second."""
        return round(count / self.best)


class Bench:
    """A bench's options, measurements and report.

    Parameters
    ----------
    file, doc : str
        ``__file__`` and ``__doc__`` of the bench. The first line of the latter is its title.
    rounds : int, optional
        How often each way is called by default, if the bench calls `measure`.
    packages : sequence of str
        Peers whose versions belong to the machine.
    against : bool
        Whether ``--against`` makes sense.
    """

    def __init__(
        self,
        file: str,
        doc: str | None,
        *,
        rounds: int | None = None,
        packages: Iterable[str] = (),
        against: bool = False,
    ) -> None:
        self.name, self.title = Path(file).stem, (doc or "").partition("\n")[0]
        self._packages = ("numpy", "polars", *packages)
        self._measured: dict[str, tuple[Measured, Measured]] = {}  # here and there
        self._quick: dict[str, Any] = {}
        self.parser = argparse.ArgumentParser(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        self.parser.add_argument("--save", action="store_true", help="keep the results for README.md")
        self.parser.add_argument("--quick", action="store_true", help="small: shows that the bench works")
        if rounds is not None:
            self.option("--rounds", rounds, "how often each way is called", quick=1)
        if against:
            self.option("--against", None, "folder of another checkout, built, to compare with", kind=Path)

    def option(
        self,
        flag: str,
        default: Any,
        text: str,
        *,
        quick: Any = None,
        kind: Callable[[str], Any] | None = None,
    ) -> None:
        """Declare an option; its kind is that of the default, and `quick` the value for ``--quick``."""
        how: dict[str, Any] = {"default": default, "help": f"{text} (default: %(default)s)"}
        if isinstance(default, bool):
            how["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, list):
            how |= {"nargs": "*", "type": type(default[0])}
        else:
            how["type"] = kind or type(default)
        self.parser.add_argument(flag, **how)
        if quick is not None:
            self._quick[flag.lstrip("-").replace("-", "_")] = quick

    def main(self, tables: Callable[[argparse.Namespace], Iterable[Table]]) -> None:
        """Parse the options, measure, report."""
        if self.parser.parse_args().quick:
            self.parser.set_defaults(**self._quick)
        self.options = options = self.parser.parse_args()
        self._other: Path | None = getattr(options, "against", None)
        if self._other is not None:
            self._other = self._other.resolve() / "python"
            if not (self._other / "fasttriplet").is_dir():
                self.parser.error(
                    f"--against: no folder {self._other / 'fasttriplet'}; name a built checkout"
                )
        if options.save and (options.quick or self._other):
            self.parser.error("--save keeps whole runs of this checkout: not with --quick or --against")
        began = _clocks()
        found = list(tables(options))
        wall, machines, own = (after - before for after, before in zip(_clocks(), began, strict=True))
        times = Table("Seconds of all calls", dict(self._times()))
        beside = Table(f"Seconds of the fastest calls, here and in {self._other}", dict(self._beside()))
        machine = self._machine()
        result = _brief({
            "bench": self.name,
            "title": self.title,
            "machine": machine,
            "commit": _commit(),
            "others": max(0.0, machines - own) / wall,  # cores that other work kept busy
            "options": {
                name: _without_folder(value)
                for name, value in vars(options).items()
                if name not in ("json", "save", "quick", "against")
            },
            "tables": [{"title": table.title, "rows": table.rows} for table in found],
            "times": times.rows,
            "against": beside.rows,
        })  # fmt: skip
        if options.save:
            RESULTS.mkdir(exist_ok=True)
            text = json.dumps(result, indent=1)
            (RESULTS / f"{self.name}.{_slug(machine)}.json").write_text(text + "\n")
        if options.json:
            print(json.dumps(result))
        else:
            self._print([*found, beside if beside.rows else times], result)

    def measure(
        self,
        ways: Ways,
        title: str = "",
        *,
        rounds: int | None = None,
        warm_up: bool = True,
        fresh: bool = False,
        small: dict[str, Any] | None = None,
        anonymous: bool = False,
        **case: Any,
    ) -> dict[str, Measured]:
        """Call all ways in turn and give what each took.

        Parameters
        ----------
        ways : function
            Its module must be importable without measuring. It is called with `case` in another process.
        title : str
            Of the case, where there are several.
        rounds : int, optional
            By default ``--rounds``.
        warm_up : bool
            One more round before, which does not count.
        fresh : bool
            Each call in a new process, for what a first call takes, or memory that no earlier call left.
        small : dict, optional
            Changes of `case` for a small call before each call, which loads what it loads.
        anonymous : bool
            Whether memory is without mapped files.
        """
        rounds = self.options.rounds if rounds is None else rounds
        packages = [HERE] if self._other is None else [HERE, self._other]
        found: dict[str, list[Measured]] = {}

        def start(package: Path) -> Process:
            return Process(ways, case, package, self._environment())

        with ExitStack() as stack:
            kept = [stack.enter_context(start(package)) for package in packages]
            peers = kept[0].peers
            if fresh:
                stack.close()
            for number in range(rounds + warm_up):
                for name, peer in peers.items():
                    order = range(1 if peer else len(packages))
                    for side in order if number % 2 == 0 else reversed(order):
                        with ExitStack() as call:
                            process = call.enter_context(start(packages[side])) if fresh else kept[side]
                            took = process.run(name, small, anonymous=anonymous)
                        one = found.setdefault(name, [Measured() for _ in packages])[side]
                        if number or not warm_up:
                            one.seconds.append(took["seconds"])
                        if fresh:
                            one.added, one.held = max(one.added, took["added"]), max(one.held, took["held"])
                        one.ready, one.facts = process.ready, took["facts"]
        for name, sides in found.items():
            self._measured[f"{title}: {name}" if title else name] = (sides[0], sides[-1])
        return {name: sides[0] for name, sides in found.items()}

    def _environment(self) -> dict[str, str]:
        """How many threads BLAS and OpenMP have: they read it when they are loaded.

        Threads of OpenMP that spin while they wait would take the cores from the way that is next: a call of
        3 ms then takes 100 to 300.
        """
        if "threads" not in self.options:
            return {}
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return dict.fromkeys(names, str(self.options.threads)) | {"OMP_WAIT_POLICY": "passive"}

    def _times(self) -> Iterator[tuple[str, dict[str, Cell]]]:
        for name, (here, _) in self._measured.items():
            yield name, {"fastest": here.best, "median": here.median, "calls": len(here.seconds)}

    def _beside(self) -> Iterator[tuple[str, dict[str, Cell]]]:
        for name, (here, there) in self._measured.items():
            if here is there or not there.seconds:
                continue
            cells: dict[str, Cell] = {
                "here": here.best,
                "there": there.best,
                "here / there": here.over(there),
            }
            cells |= {"medians, here / there": here.median / there.median, "calls": len(here.seconds)}
            if here.added:
                cells |= {"MB here": here.added, "MB there": there.added}
            yield name, cells

    def _machine(self) -> dict[str, Any]:
        """Processor, cores, instruction sets and versions."""
        cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
        lines = [line.partition(":")[::2] for line in cpuinfo.splitlines()]
        known = {name.strip(): value.strip() for name, value in lines}
        versions = {"Python": platform.python_version()}
        for package in self._packages:
            with suppress(PackageNotFoundError):
                versions[package] = version(package)
        return {
            "processor": known.get("model name", platform.machine()),
            "cores": CORES,
            "instruction_sets": sorted(set(known.get("flags", "").split()) & INSTRUCTION_SETS),
            "kernel": _core.instruction_set(),
            "versions": versions,
        }

    def _print(self, tables: list[Table], result: dict[str, Any]) -> None:
        from rich.console import Console  # noqa: PLC0415  # not in the processes that are measured
        from rich.table import Table as RichTable  # noqa: PLC0415

        console = Console()
        console.print(self.title, style="bold")
        for table in filter(lambda table: table.rows, tables):
            shown = RichTable(title=table.title, title_justify="left")
            shown.add_column("")
            lines = table.lines()
            for number, column in enumerate(table.columns, 1):  # headings wrap, numbers do not
                width = max(len(line[number]) for line in lines)
                shown.add_column(column, justify="right", min_width=width, overflow="fold")
            for line in lines:
                shown.add_row(*line)
            console.print(shown)
        console.print(machine_line(result), style="dim")


def _commit() -> str | None:
    """The commit that is measured, with ``-dirty`` where code has changed since; None outside of git."""
    git = ["git", "-C", str(HERE.parent)]
    with suppress(FileNotFoundError, subprocess.CalledProcessError):
        found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, check=True)
        # A bench before this one may have kept its results.
        code = [*git, "diff", "--quiet", "HEAD", "--", "rust", "python", "benches/*.py", "Cargo.lock"]
        changed = subprocess.run(code, check=False).returncode != 0
        return found.stdout.decode().strip() + ("-dirty" if changed else "")
    return None


def _clocks() -> tuple[float, float, float]:
    """Seconds: wall, all processors' when not idle, and this process' with those of its children."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    idle = ticks[3] + ticks[4]  # and waiting for a disk
    return time.monotonic(), (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def _brief(value: Any) -> Any:
    """The same with six digits of each number: what the clock can tell."""
    if isinstance(value, dict):
        return {name: _brief(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_brief(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _without_folder(value: Any) -> Any:
    """An option's value, of paths only the last part: results are for other machines."""
    if isinstance(value, list):
        return [_without_folder(one) for one in value]
    return value.name if isinstance(value, Path) else value


def _slug(machine: dict[str, Any]) -> str:
    """A machine's name in a file's name: ``intel-xeon-2.80ghz-2-cores``."""
    words = re.sub(r"\((r|tm)\)|processor|cpu|@", " ", machine["processor"].lower())
    return "-".join([*re.findall(r"[a-z0-9.]+", words), str(machine["cores"]), "cores"])
