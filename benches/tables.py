"""The tables of README.md, written from the results that the benches saved.

    python benches/tables.py            rewrites the tables
    python benches/tables.py --check    fails where the page and the results disagree

The results of a bench stand between ``<!-- bench_mine -->`` and ``<!-- /bench_mine -->``: the tables of every
machine that ``results/`` has, below the machine's description. Nothing is measured or imported here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

PAGE = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).with_name("results")
_PLACE = re.compile(r"<!-- (bench_\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)
_LEAST = (100, 10, 1, 0.1, 0.01)  # that are shown with 0, 1, 2, 3 and 4 decimals

Cell: TypeAlias = "float | int | str | bool | None"


@dataclass
class Table:
    """Rows of named numbers: what a bench reports, and what the page shows.

    Attributes
    ----------
    title : str
        What the numbers are, and their unit where it is the same for all.
    rows : dict of str to dict of str to number
        Each row's cells by column. A cell that is missing stays empty.
    """

    title: str
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order in which they first occur."""
        return list(dict.fromkeys(name for cells in self.rows.values() for name in cells))

    def lines(self) -> list[list[str]]:
        """The rows as text, each with its name first."""
        return [
            [name, *(shown(cells.get(column)) for column in self.columns)]
            for name, cells in self.rows.items()
        ]

    def markdown(self) -> str:
        """The table as the page has it."""
        head = [["", *self.columns], ["---", *("---:" for _ in self.columns)]]
        body = "\n".join(f"| {' | '.join(line)} |" for line in head + self.lines())
        return f"{self.title}:\n\n{body}\n"


def shown(cell: Cell) -> str:
    """Three digits that count; whole numbers in full."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        if cell == 0:
            return "0"
        digits = next((digits for digits, least in enumerate(_LEAST) if abs(cell) >= least), 5)
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def commit_of(result: dict[str, Any]) -> str:
    """The commit that was measured, in words."""
    return f"commit {result['commit']}" if result.get("commit") else "of a commit that was not noted"


def machine_line(result: dict[str, Any]) -> str:
    """What the results were measured on, in words."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instruction_sets'])}), "
        f"kernel {machine['kernel']}; {versions}; {commit_of(result)}. "
        f"Other work kept {result['others']:.2f} cores busy."
    )


def tables_of(bench: str, results: Path = RESULTS) -> str:
    """Everything that goes to the place of a bench."""
    parts = []
    for path in sorted(results.glob(f"{bench}.*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"*{machine_line(result)}*\n")
        parts += [Table(**table).markdown() for table in result["tables"]]
    return "\n".join(parts) if parts else "Not measured yet.\n"


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with its tables written anew.

    Raises
    ------
    ValueError
        If the page has no place for a result that there is.
    """
    places = {match[1] for match in _PLACE.finditer(page)}
    homeless = sorted({path.name.partition(".")[0] for path in results.glob("*.json")} - places)
    if homeless:
        raise ValueError(f"{PAGE.name} has no place for {', '.join(homeless)}: add <!-- {homeless[0]} -->")
    return _PLACE.sub(lambda at: f"<!-- {at[1]} -->\n\n{tables_of(at[1], results)}\n<!-- /{at[1]} -->", page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if they disagree")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    wanted = filled(page)
    if check and page != wanted:
        sys.exit(f"{PAGE}: not what {RESULTS} says. Run: make bench-tables")
    if not check:
        PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
