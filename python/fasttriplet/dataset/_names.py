"""Names of the labels of a dataset."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fasttriplet._forks import ensure_polars_threads
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._numbering import names_beside


def class_names(dataset: Dataset, labels: Iterable[int]) -> list[str]:
    """The folder of each label in the ``.identities.csv`` beside its file, or the label itself."""
    names = known_names(dataset)
    return [names.get(label, str(label)) for label in labels]


def known_names(dataset: Dataset) -> dict[int, str]:
    """The folder of each label that has one in the ``.identities.csv`` beside its file.

    A table that does not have the labels of its file is another file's.
    """
    ensure_polars_threads()
    names: dict[int, str] = {}
    for number, (path, shift) in enumerate(zip(dataset.paths, dataset.label_shifts, strict=True)):
        table = names_beside(path)
        if table is None or table.null_count().row(0) != (0, 0):
            continue
        of_file = dataset.labels[dataset.files == number]
        if np.array_equal(np.sort(table["label"].to_numpy()) + shift, np.unique(of_file)):
            names |= dict(zip((table["label"] + shift).to_list(), table["folder"].to_list(), strict=True))
    return names
