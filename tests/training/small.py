"""Small trainings, and how they are compared."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fasttriplet as ft
from fasttriplet.training import Trained, TrainSettings, train_rec
from fasttriplet.training._state import State, load_state

OPTIONS: dict[str, Any] = {"embedding_size": 16, "batch_size": 12, "bag_size": 48, "lr_steps": (25, 50)}


def write_patterns(
    path: Path, labels: Mapping[int, int], kind: str = "PNG", damaged: Collection[int] = ()
) -> Path:
    """A `.rec`, `labels` by key: 24 x 24, a coarse pattern of the identity under noise; JPEGs are gray."""
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label in labels.items():
            pattern = np.random.default_rng(label).integers(0, 56, (3, 3, 3)).repeat(8, 0).repeat(8, 1)
            noise = np.random.default_rng(1000 + key).integers(0, 200, (24, 24, 3))
            image, encoded = Image.fromarray((pattern + noise).astype(np.uint8)), io.BytesIO()
            (image.convert("L") if kind == "JPEG" else image).save(encoded, kind)
            content = b"no image" if key in damaged else encoded.getvalue()
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    return path


def write_pairs(rec: Path, out: Path, pairs_per_kind: int, seed: int = 0) -> None:
    """A file of pairs that are drawn from a ``.rec``."""
    index, file = ft.index_rec(rec), ft.RecordFile(rec)
    drawn = ft.draw_pairs(index, pairs_per_kind, seed)
    rows = np.stack([drawn.first, drawn.second], axis=1).ravel()
    ft.write_pairs(out, [file.read(key)[1] for key in index["key"].to_numpy()[rows]], drawn.same)


def write_data(folder: Path, labels: Mapping[int, int], pairs_per_kind: int) -> Path:
    """A folder with train.rec and pairs.bin of it."""
    write_patterns(folder / "train.rec", labels)
    write_pairs(folder / "train.rec", folder / "pairs.bin", pairs_per_kind)
    return folder


def settings(data: Path, **options: Any) -> TrainSettings:
    return TrainSettings(rec=(str(data / "train.rec"),), **{"network": "small"} | OPTIONS | options)


def train(chosen: TrainSettings, out: Path | str, **options: Any) -> Trained:
    how: dict[str, Any] = {"batches": 70, "verify_every": 30, "checkpoint_every": 20, "log_every": 10}
    return train_rec(chosen, out, **how | options)


def records(out: Path, *kinds: str) -> list[dict[str, Any]]:
    """The log, without what differs between equal trainings."""
    lines = [json.loads(line) for line in Path(f"{out}-log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return [line for line in lines if line["kind"] in (kinds or ("train", "verification"))]


def state(out: Path) -> State:
    return load_state(Path(f"{out}-state.npz"))


def weights(out: Path) -> bytes:
    return Path(f"{out}-0000.params").read_bytes()


def same_arrays(out: Path, other: Path) -> bool:
    one, two = state(out).arrays, state(other).arrays
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def same_numbers(out: Path, other: Path) -> bool:
    return weights(out) == weights(other) and same_arrays(out, other)


def same_training(out: Path, other: Path) -> bool:
    """Whether all numbers of two trainings are the same, and all that they logged."""
    files = ("-symbol.json", "-best-0000.params", "-best-symbol.json")
    return (
        {**state(out).plain, "options": None} == {**state(other).plain, "options": None}
        and same_numbers(out, other)
        and all(Path(f"{out}{end}").read_bytes() == Path(f"{other}{end}").read_bytes() for end in files)
        and records(out) == records(other)
    )
