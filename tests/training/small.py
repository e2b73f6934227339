"""Small trainings, and how they are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fasttriplet.training import Trained, TrainSettings, train_rec
from fasttriplet.training._state import load_state

OPTIONS: dict[str, Any] = {"embedding_size": 16, "batch_size": 12, "bag_size": 48, "lr_steps": (25, 50)}


def settings(mx: Any, data: Path, **options: Any) -> TrainSettings:
    assert mx
    return TrainSettings(rec=(str(data / "train.rec"),), **{"network": "small"} | OPTIONS | options)


def train(chosen: TrainSettings, out: Path | str, **options: Any) -> Trained:
    how: dict[str, Any] = {"batches": 70, "verify_every": 30, "checkpoint_every": 20, "log_every": 10}
    return train_rec(chosen, out, **how | options)


def records(out: Path) -> list[dict[str, Any]]:
    """The log, without what differs between equal trainings."""
    lines = [json.loads(line) for line in Path(f"{out}-log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return [line for line in lines if line["kind"] != "start"]


def same_training(out: Path, other: Path) -> bool:
    """Whether all numbers of two trainings are the same, and all that they logged."""
    one, two = (load_state(Path(f"{prefix}-state.npz")) for prefix in (out, other))
    files = ("-0000.params", "-symbol.json", "-best-0000.params", "-best-symbol.json")
    return (
        {**one.plain, "options": None} == {**two.plain, "options": None}
        and one.arrays.keys() == two.arrays.keys()
        and all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
        and all(Path(f"{out}{end}").read_bytes() == Path(f"{other}{end}").read_bytes() for end in files)
        and records(out) == records(other)
    )
