"""The section on a training, from its log: how the loss and the verification went, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fasttriplet._words import counted
from fasttriplet.reporting import _charts as charts
from fasttriplet.reporting._html import Markup, code, element, facts, joined, sentences
from fasttriplet.reporting._page import Section
from fasttriplet.reporting._records import is_number

WHAT = "the log of a training (PREFIX-log.jsonl)"
_FEW_ACTIVE = 0.05
_FALLEN = 0.005  # of the accuracy, below which it has not become worse
_LINES = ("line-1", "line-2", "line-3", "line-4")
_CURVES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "Loss", charts.number),
    ("active", "Active share: triplets that still violate the margin", lambda value: f"{value:.0%}"),
    ("norm", "Norm of the embeddings (L2)", charts.number),
    ("learning_rate", "Learning rate", charts.number),
    ("images_per_second", "Images per second", charts.number),
)

Points = list[tuple[float, float]]


def section(records: list[dict[str, Any]]) -> Section:
    """Draw the section from the records of a log."""
    trained = [record for record in records if record["kind"] == "train"]
    verified = [record for record in records if record["kind"] == "verification"]
    starts = [record for record in records if record["kind"] == "start"]
    curves = {name: _points(trained, name) for name, *_ in _CURVES}
    drawn = []
    for name, title, show in _CURVES:
        if points := curves[name]:
            said = f"{title}: {show(points[0][1])} at first, {show(points[-1][1])} at the end"
            line = {name: ("line-1", points)}
            drawn.append(charts.lines(title, "batches", line, show=show, description=said))
    by_pairs: dict[str, list[dict[str, Any]]] = {}
    for record in verified:
        by_pairs.setdefault(str(record["pairs"]), []).append(record)
    for name, title in (("accuracy", "Accuracy of the verification"), ("auc", "AUC of the verification")):
        series = {
            Path(pairs).name: (_LINES[at % len(_LINES)], points)
            for at, (pairs, of) in enumerate(by_pairs.items())
            if (points := _points(of, name))
        }
        if series:
            said = ", ".join(
                f"{pairs}: {points[-1][1]:.3f} at the end" for pairs, (_, points) in series.items()
            )
            drawn.append(
                charts.lines(
                    title,
                    "batches",
                    series,
                    show=lambda value: f"{value:.1%}",
                    from_zero=False,
                    description=f"{title}; {said}",
                )
            )
    body = joined(facts(_facts(starts, trained)), element("div", *drawn, class_="charts"))
    return Section("training", "Training", *_says(starts, trained, curves, by_pairs), body)


def _points(records: list[dict[str, Any]], name: str) -> Points:
    """Values over batches. A batch that was trained again after a stop has the last value."""
    return sorted({float(of["batch"]): float(of[name]) for of in records if is_number(of.get(name))}.items())


def _facts(starts: list[dict[str, Any]], trained: list[dict[str, Any]]) -> dict[str, object]:
    first: Mapping[str, Any] = starts[-1] if starts else {}
    settings: Mapping[str, Any] = first.get("settings") or {}
    rows: dict[str, object] = {
        "dataset": f"{counted(first['images'], 'image')} of {counted(first['identities'], 'identity')}"
        if starts
        else None,
        "network": settings.get("network"),
        "framework": first.get("framework"),
        "devices": ", ".join(map(str, first.get("devices") or [])) or None,
        "margin": settings.get("margin"),
        "batch size": settings.get("batch_size"),
        "seed": settings.get("seed"),
        "runs": f"{len(starts):,}, as it was resumed" if len(starts) > 1 else None,
        "epochs begun": f"{int(trained[-1]['epoch']) + 1:,}" if trained else None,
    }
    return {name: value if value is None else str(value) for name, value in rows.items()}


def _says(
    starts: list[dict[str, Any]],
    trained: list[dict[str, Any]],
    curves: Mapping[str, Points],
    by_pairs: Mapping[str, list[dict[str, Any]]],
) -> tuple[Markup, list[Markup]]:
    if not trained:
        return Markup("No step has been logged yet."), []
    last, of = int(trained[-1]["batch"]), int(starts[-1]["batches"]) if starts else 0
    said = [f"{last:,} of {counted(of, 'batch')}." if of > last else f"{counted(last, 'batch')}."]
    todo = []
    losses, active = ([value for _, value in curves[name]] for name in ("loss", "active"))
    if len(losses) > 1:
        first, end = _median(losses[: _tenth(losses)]), _median(losses[-_tenth(losses) :])
        said.append(f"The loss was {first:.3g} at first and is {end:.3g} now (medians of tenths).")
    if active and (share := _median(active[-_tenth(active) :])) < _FEW_ACTIVE:
        said.append(f"Only {share:.1%} of the triplets still violate the margin.")
        todo.append(Markup("Mine larger bags, where harder negatives are, or stop here."))
    for pairs, records in by_pairs.items():
        if scored := _points(records, "accuracy"):
            at, best = max(scored, key=lambda point: point[1])
            name, first, end = Path(pairs).name, scored[0][1], scored[-1][1]
            said.append(f"The best accuracy on {name} is {best:.2%}, after {counted(int(at), 'batch')}.")
            if end < best - _FALLEN:
                said.append(f"It has fallen to {end:.2%} since.")
                todo.append(Markup("Use the best network, PREFIX-best."))
            elif len(scored) > 2 and best <= first:
                todo.append(
                    Markup("Lower the learning rate, or raise it slowly at first: nothing was learned.")
                )
    if not by_pairs:
        todo.append(sentences("Verify while training, with", joined(code("--verify-on FILE.bin"), ".")))
    return sentences(*said), todo


def _tenth(values: list[float]) -> int:
    return max(1, len(values) // 10)


def _median(values: list[float]) -> float:
    return float(np.median(values))
