"""The chart of the five numbers that matter, drawn from the results that the benches saved.

    python benches/chart.py            draws docs/numbers.svg
    python benches/chart.py --check    fails where the chart and the results disagree

Nothing is measured here. A panel shows one bench, on the machine that has saved the most of these benches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import RESULTS, Cell, commit_of, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHART = Path(__file__).parents[1] / "docs" / "numbers.svg"
BENCHES = ("bench_mine", "bench_feed", "bench_networks", "bench_training", "bench_audit")
OURS, PEER, INK, GRID = "#1f77b4", "#b8bec6", "#222222", "#e4e7ea"
Rows = dict[str, dict[str, Cell]]


def results() -> dict[str, dict[str, Any]]:
    """The result of each bench, of the machine that has the most of them."""
    found = {
        bench: {path.name.split(".", 1)[1]: path for path in RESULTS.glob(f"{bench}.*.json")}
        for bench in BENCHES
    }
    machines = Counter(machine for paths in found.values() for machine in sorted(paths))
    order = [machine for machine, _ in machines.most_common()]
    return {
        bench: json.loads(paths[min(paths, key=order.index)].read_text(encoding="utf-8"))
        for bench, paths in found.items()
    }


def rows(result: dict[str, Any], title: str) -> Rows:
    """The rows of a table of a result: the first with that title."""
    table: Rows = next(table["rows"] for table in result["tables"] if table["title"].startswith(title))
    return table


def number(cell: Cell) -> float:
    """A cell that holds a number."""
    assert isinstance(cell, int | float)
    return float(cell)


def bars(axes: Axes, title: str, values: dict[str, float], *, log: bool = False) -> None:
    """A bar for each name, ours in colour, with its number beside it."""
    names = list(values)
    colours = [OURS if name.startswith("fasttriplet") else PEER for name in names]
    places = range(len(names))
    axes.barh(places, list(values.values()), color=colours, height=0.65)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    if log:
        axes.set_xscale("log")
        axes.set_xlim(left=min(values.values()) / 3)
    for place, value in zip(places, values.values(), strict=True):
        whole = int(value) if value >= 1000 else value
        axes.annotate(shown(whole), (value, place), (4, 0), textcoords="offset points", va="center")
    axes.margins(x=0.22)
    axes.xaxis.set_visible(False)  # each bar has its number
    axes.set_title(title, loc="left")


def mining(axes: Axes, result: dict[str, Any]) -> None:
    """`bench_mine`: seconds of a bag of random rows."""
    seconds = rows(result, "Seconds")
    loop = rows(result, "Random rows")["the original's loop in NumPy"]["seconds"]
    bars(
        axes,
        "Mining a bag, seconds (log scale)",
        {
            "fasttriplet": number(seconds[result["machine"]["kernel"]]["random"]),
            "E @ F.T in NumPy": number(seconds["E @ F.T"]["random"]),
            "InsightFace's loop": number(loop),
        },
        log=True,
    )


def decoding(axes: Axes, result: dict[str, Any]) -> None:
    """`bench_feed`: images a second. DALI is there if it was installed."""
    found = rows(result, "Images a second")
    loaders = {
        "fasttriplet, uint8": "fasttriplet, to uint8 NHWC",
        "DALI, uint8": "DALI on the CPU, to uint8 NHWC",
        "fasttriplet, float32": "fasttriplet, to float32 NCHW",
        "MXNet's ImageRecordIter": "ImageRecordIter, to float32 NCHW",
        "InsightFace's loop": "the original's loop, to float32 NCHW",
    }
    best = {
        name: max(number(cell) for cell in found[row].values())
        for name, row in loaders.items()
        if row in found
    }
    bars(axes, "Decoding, images a second", best)


def networks(axes: Axes, result: dict[str, Any]) -> None:
    """`bench_networks`: images a second of the same network on each backend."""
    found = rows(result, "1,024 images")
    backends = {
        "mxnet:": "MXNet",
        "torch:mxnet:": "fasttriplet, PyTorch",
        "onnx:": "fasttriplet, ONNX Runtime",
    }
    speed = {
        name: number(found[f"InsightFace's `y1`, `{spec}`"]["images/s, the network alone"])
        for spec, name in backends.items()
    }
    bars(axes, "Embedding on the CPU, images a second", dict(reversed(speed.items())))


def learning(axes: Axes, result: dict[str, Any]) -> None:
    """`bench_training`: how good the best network was until then, with the same settings."""
    sides = {
        "ours, PyTorch": "fasttriplet, PyTorch",
        "ours, MXNet": "fasttriplet, MXNet",
        "original": "InsightFace",
    }
    found = rows(result, "The same settings")
    for side, name in sides.items():
        reached = {
            number(cells[side]): float(title.removeprefix("seconds to an AUC of "))
            for title, cells in found.items()
            if title.startswith("seconds to") and not isinstance(cells[side], str)
        }
        *_, end = rows(result, f"The same settings, {side}").values()
        reached[number(end["seconds"])] = next(
            number(cells[side])
            for title, cells in found.items()
            if title.startswith("best AUC in") and side in cells
        )
        colour, dashes = (PEER if side == "original" else OURS), ("--" if "MXNet" in side else "-")
        axes.plot([*reached], [*reached.values()], dashes, color=colour, marker="o", markersize=3, label=name)
    axes.set_title("Best AUC so far, over seconds", loc="left")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0.87)  # the legend is there
    axes.legend(loc="lower right", frameon=False)


def auditing(axes: Axes, result: dict[str, Any]) -> None:
    """`bench_audit`: moved images of faces, by what each decides by itself."""
    found = rows(result, "Images moved, beside cleanlab")
    cleanlab = found["cleanlab, 10 nearest neighbours, self confidence"]
    ours = found["`ft.audit`"]
    values = {
        "fasttriplet, recall": number(ours["own recall"]),
        "cleanlab, recall": number(cleanlab["own recall"]),
        "fasttriplet, precision": number(ours["own precision"]),
        "cleanlab, precision": number(cleanlab["own precision"]),
    }
    bars(axes, "Wrong labels found among faces", values)


def origin(found: dict[str, dict[str, Any]]) -> Sequence[str]:
    """Where the numbers come from: a line for each machine, version and commit."""
    lines: dict[str, list[str]] = {}
    for bench, result in found.items():
        machine = result["machine"]
        sets = ", ".join(machine["instruction_sets"])
        where = f"{machine['processor']}, {machine['cores']} cores ({sets})"
        lines.setdefault(f"{where}; {commit_of(result)}", []).append(bench)
    versions = {name: one for result in found.values() for name, one in result["machine"]["versions"].items()}
    return [
        *(f"{', '.join(benches)}: {where}" for where, benches in lines.items()),
        ", ".join(f"{name} {one}" for name, one in versions.items()),
    ]


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the chart."""
    import matplotlib as mpl  # noqa: PLC0415  tests ask only whether the chart fits the results

    mpl.use("svg")
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    style: dict[Any, Any] = {
        "svg.fonttype": "path",
        "svg.hashsalt": "fasttriplet",  # the same file each time
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.edgecolor": GRID,
        "text.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": "#777777",
        "ytick.color": INK,
        "xtick.labelsize": 8,
    }
    with mpl.rc_context(style):
        figure, places = plt.subplots(
            3, 2, figsize=(9.5, 7), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        )
        panels = (mining, decoding, networks, learning, auditing)
        for panel, axes, result in zip(panels, places.flat, found.values(), strict=False):
            panel(axes, result)
            axes.tick_params(length=0)
            axes.spines["bottom"].set_visible(panel is learning)
        words = places.flat[-1]
        words.axis("off")
        words.text(0, 1, "\n".join(_wrapped(origin(found))), va="top", fontsize=7.5, color="#555555")
        figure.savefig(path, metadata={"Date": None, "Description": stamp(found)})
        plt.close(figure)


def _wrapped(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in (*textwrap.wrap(line, 50), "")]


def stamp(found: dict[str, dict[str, Any]]) -> str:
    """What the chart is drawn from, in full: kept in it, so that `--check` sees whether it is up to date."""
    text = json.dumps(found, sort_keys=True).encode()
    return f"drawn from results {hashlib.sha256(text).hexdigest()[:16]}"


def is_current() -> bool:
    """Whether the chart shows the results that there are."""
    return CHART.is_file() and stamp(results()) in CHART.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="draw nothing; exit code 1 if they disagree")
    if not parser.parse_args().check:
        draw(results(), CHART)
    elif not is_current():
        sys.exit(f"{CHART}: not what {RESULTS} says. Run: make bench-tables")


if __name__ == "__main__":
    main()
