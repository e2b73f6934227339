"""The section on a run: how fast its stages were, and what it waited for, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fasttriplet._words import counted
from fasttriplet.reporting import _charts as charts
from fasttriplet.reporting._html import Markup, element, escaped, facts, joined, sentences, table, titled
from fasttriplet.reporting._page import Section

WHAT = "what `fasttriplet mine --json` printed"
_MOST_LEFT_OUT = 10
_STAGES = {  # how to make faster what a run waits for
    "decode": "To be faster, give it more threads, smaller pictures or a larger prefetch.",
    "embed": "To be faster, embed on a GPU or in larger batches, or take a smaller network.",
    "mine": "To be faster, give it more threads, or mine smaller bags.",
    "write": "To be faster, write to another disk.",
}


def section(run: Mapping[str, Any]) -> Section:
    """Draw the section from the summary of a run as plain data."""
    total = float(run["seconds"]["total"])
    left_out = [str(reason) for reason in run["skipped"]]
    rows: dict[str, object] = {
        "embeddings": run["embedder"],
        "dataset": f"{counted(run['images_indexed'], 'image')} of {counted(run['identities'], 'identity')}",
        "bags": f"{counted(run['bags'], 'bag')} with {counted(run['images'], 'image')}",
        "epochs": f"{run['epochs']:,}",
        "triplets": f"{run['triplets']:,}" + (" (stopped there)" if run["stopped_at_max_triplets"] else ""),
        "pairs": f"{run['pairs']:,}, {run['pairs_without_negative']:,} of them without a negative",
        "written to": run["out"],
    }
    parts = [facts(rows), _stages(run, total)]
    if left_out:
        items = [element("li", reason) for reason in left_out[:_MOST_LEFT_OUT]]
        if len(left_out) > _MOST_LEFT_OUT:
            items.append(element("li", f"and {len(left_out) - _MOST_LEFT_OUT:,} more"))
        parts.append(titled(f"Left out: {counted(len(left_out), 'image')}", element("ul", *items)))
    return Section("run", "The run", *_says(run, total, len(left_out)), joined(*parts))


def _says(run: Mapping[str, Any], total: float, left_out: int) -> tuple[Markup, list[Markup]]:
    rate = f" ({run['images'] / total:,.0f} images/s)" if total else ""
    said = [f"{counted(run['images'], 'image')} in {_seconds(total)}{rate}."]
    todo = []
    waited = {stage: float(seconds) for stage, seconds in run["waited"].items()}
    if waited and total:
        most = max(waited, key=waited.__getitem__)
        said.append(f"It waited longest for the stage {most}, {waited[most] / total:.0%} of the time.")
        if most in _STAGES:
            todo.append(escaped(_STAGES[most]))
    if run["bags_collapsed"]:
        bags = counted(run["bags_collapsed"], "bag")
        said.append(f"In {bags} all embeddings are nearly equal, so their triplets are noise.")
        todo.append(Markup("Check the weights of the model, and what it expects of its input."))
    if left_out:
        said.append(f"{counted(left_out, 'image')} could not be used, see below.")
    return sentences(*said), todo


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.2f} s"


def _stages(run: Mapping[str, Any], total: float) -> Markup:
    rates, waited = run["images_per_second"], run["waited"]
    rows: list[list[object]] = []
    for stage, shares in run["timeline"]["busy"].items():
        busy, rate = float(run["seconds"][stage]), rates.get(stage)
        mean = sum(shares) / max(1, len(shares))
        rows.append(
            [
                stage,
                f"{rate:,.0f}" if rate else "",
                _seconds(busy),
                f"{waited.get(stage, 0.0) / total:.0%}" if total else "",
                charts.busy(
                    [float(share) for share in shares], f"{stage}: busy {mean:.0%} of the time on average"
                ),
            ]
        )
    headings = ["stage", "images/s", "busy", "waited for", "busy over time"]
    says = "Stages overlap. The run is as fast as the one that it waits for."
    return titled("Stages", table(f"Stages, {_seconds(total)} in all", headings, rows), says=says)
