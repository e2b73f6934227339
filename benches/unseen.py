"""What a network says about identities that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft

Embed = Callable[[pl.DataFrame, NDArray[np.uint8]], NDArray[np.float32]]


def verifier(unseen: Path, embed: Embed) -> Callable[[], tuple[float, float, float]]:
    """A function that gives AUC, recall@1 and TAR of a network as it is then."""
    index = ft.index_rec(unseen, cache=False).sort("key")
    pixels = ft.RecordFile(unseen).decode(index["key"].to_numpy())
    labels = index["label"].to_numpy()
    first, second = np.triu_indices(len(labels), 1)
    shuffled = np.random.default_rng(0).permutation(len(first))  # folds want both kinds
    first, second = first[shuffled], second[shuffled]
    same = labels[:, None] == labels

    def verify() -> tuple[float, float, float]:
        rows = embed(index, pixels).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        distances = np.clip(2 - 2 * rows @ rows.T, 0, 4)
        found = ft.verify_distances(distances[first, second], same[first, second])
        np.fill_diagonal(distances, np.inf)
        recall = same[np.arange(len(labels)), distances.argmin(axis=1)].mean()
        assert found.auc is not None
        return found.auc, float(recall), found.tar[1e-3]

    return verify
