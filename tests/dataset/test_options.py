"""Options of datasets and bags by themselves: what is refused, and what is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.dataset._options import (
    KINDS,
    BagOptions,
    DatasetOptions,
    ExcludeOptions,
    IndexOptions,
    RefreshOptions,
    kinds_of,
)
from fasttriplet.dataset._packing._options import PackOptions

FRAME = pl.DataFrame({"label": [1]})


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (IndexOptions, {"labels": "own"}, "labels must be one of 'shared', 'separate', not 'own'"),
        (IndexOptions, {"cache": None}, "cache must be True, False or the path of a folder, not None"),
        (IndexOptions, {"cache": ""}, "cache must be True, False or the path of a folder, not ''"),
        (DatasetOptions, {"max_pixels": 0}, "max_pixels must be a whole number >= 1, not 0"),
        (DatasetOptions, {"cache": 1}, "cache must be True, False or the path of a folder, not 1"),
        (ExcludeOptions, {"labels": "own"}, "labels must be one of 'shared', 'separate', not 'own'"),
        (
            ExcludeOptions,
            {"exclude_kinds": ["outlier"]},
            "exclude_kinds goes with exclude=FILE, a table of suspects",
        ),
        (
            ExcludeOptions,
            {"exclude": "a", "exclude_kinds": []},
            f"exclude_kinds must be a list of one or more of {', '.join(KINDS)}, not []",
        ),
        (
            ExcludeOptions,
            {"exclude": "a", "exclude_kinds": "outlier"},
            f"exclude_kinds must be a list of one or more of {', '.join(KINDS)}, not 'outlier'",
        ),
        (BagOptions, {"images_per_identity": 0}, "images_per_identity must be a whole number >= 1, not 0"),
        (BagOptions, {"bag_size": 0}, "bag_size must be a whole number >= 1, not 0"),
        (BagOptions, {"boundary": "cut"}, "boundary must be one of 'keep', 'split', not 'cut'"),
        (BagOptions, {"tail": None}, "tail must be one of 'keep', 'drop', not None"),
        (
            BagOptions,
            {"neighbors": 3},
            "neighbors must be a Parquet file or a frame, an identity graph, not 3",
        ),
        (
            BagOptions,
            {"neighbors": FRAME, "random_share": -0.1},
            "random_share must be a number from 0 to 1, not -0.1",
        ),
        (BagOptions, {"random_share": 0.1}, "random_share goes with neighbors=FILE, an identity graph"),
        (RefreshOptions, {"refresh_epochs": 0}, "refresh_epochs must be a whole number >= 1, not 0"),
        (RefreshOptions, {"refresh_epochs": 2}, "refresh_epochs goes with neighbors='running'"),
        (
            RefreshOptions,
            {"refresh_epochs": 2, "neighbors": "a.parquet"},
            "refresh_epochs goes with neighbors='running'",
        ),
        (RefreshOptions, {"bag_size": 0}, "bag_size must be a whole number >= 1, not 0"),
        *(
            (
                PackOptions,
                {"size": size},
                f"size must have a height and width up to 16384 pixels, not {size}",
            )
            for size in ((1, 2**14 + 1), (2**14 + 1, 1))
        ),
        (PackOptions, {"size": (0, 1)}, "the height in size must be a whole number >= 1, not 0"),
        (
            PackOptions,
            {"size": (8, 8), "max_pixels": 63},
            "size must be at most 63 pixels, not 8 x 8; for more, raise max_pixels",
        ),
        (PackOptions, {"fit": "pad"}, "fit must not be 'pad' without a size"),
        (PackOptions, {"quality": 0}, "quality must be a whole number >= 1, not 0"),
        (PackOptions, {"quality": 101}, "quality must be a whole number up to 100, not 101"),
        (PackOptions, {"identity_depth": 0}, "identity_depth must be a whole number >= 1, not 0"),
        (PackOptions, {"split": 0.0}, "split must be a number above 0 and below 1, not 0.0"),
        (PackOptions, {"split": 1}, "split must be a number above 0 and below 1, not 1"),
        (PackOptions, {"split": -1}, "split must be a number from 0 to 1, not -1"),
        (PackOptions, {"split": 1.5}, "split must be a number from 0 to 1, not 1.5"),
        (PackOptions, {"on_error": None}, "on_error must be one of 'raise', 'skip', not None"),
        (PackOptions, {"format": "gif"}, "format must be one of 'jpeg', 'png', 'keep', not 'gif'"),
        (PackOptions, {"max_pixels": 0}, "max_pixels must be a whole number >= 1, not 0"),
        (PackOptions, {"seed": -1}, "seed must be a whole number >= 0, not -1"),
        (PackOptions, {"threads": 0}, "threads must be a whole number >= 1, not 0"),
    ],
)  # fmt: skip
def test_what_is_refused(group: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ft.OptionError) as caught:
        group(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("group", "options"),
    [
        (IndexOptions, {"labels": "shared", "cache": False}),
        (DatasetOptions, {"max_pixels": 1, "cache": "folder"}),
        (DatasetOptions, {"max_pixels": 2**30}),
        (ExcludeOptions, {"exclude": [1], "exclude_kinds": None}),
        (BagOptions, {"images_per_identity": 1, "bag_size": 1}),
        (BagOptions, {"bag_size": None, "boundary": "split", "tail": "drop"}),
        (BagOptions, {"neighbors": FRAME, "random_share": 1}),
        (BagOptions, {"neighbors": "graph.parquet", "random_share": 0}),
        (RefreshOptions, {"refresh_epochs": 1}),
        (RefreshOptions, {"refresh_epochs": 2, "neighbors": "running"}),
        (PackOptions, {"size": (2**14, 1), "fit": "crop", "quality": 1}),
        (PackOptions, {"size": (8, 8), "max_pixels": 64, "quality": 100}),
        (PackOptions, {"identity_depth": 1, "split": 0.01, "threads": 1, "seed": 0}),
        (PackOptions, {"split": 0.99, "seed": 2**64 - 1, "max_pixels": 1}),
    ],
)
def test_the_least_and_the_most_of_each(group: Any, options: dict[str, Any]) -> None:
    found = group(**options)
    for name, value in options.items():
        assert getattr(found, name) is value


def test_paths_are_kept_as_texts(tmp_path: Path) -> None:
    """Plain, to be compared and stored."""
    assert IndexOptions(cache=tmp_path) == IndexOptions(cache=str(tmp_path))
    assert ExcludeOptions(exclude=tmp_path) == ExcludeOptions(exclude=str(tmp_path))
    assert BagOptions(neighbors=tmp_path) == BagOptions(neighbors=str(tmp_path))
    for name in (IndexOptions(cache=tmp_path).cache, BagOptions(neighbors=tmp_path).neighbors):
        assert type(name) is str


def test_values_of_numpy_are_kept_as_those_of_python() -> None:
    numpy: Any = {"quality": np.int8(80), "split": np.float32(0.25), "fit": np.str_("crop"), "size": (8, 8)}
    found = PackOptions(**numpy)
    assert [type(value) for value in (found.quality, found.split, found.fit)] == [int, float, str]
    for given in (False, True):
        assert IndexOptions(cache=np.bool_(given)).cache is given  # type: ignore[arg-type]


def test_kinds_are_in_the_order_of_a_table() -> None:
    assert kinds_of("kinds", ["duplicate", "mislabelled", "duplicate"]) == ("mislabelled", "duplicate")
    assert kinds_of("kinds", KINDS[::-1]) == KINDS
    assert ExcludeOptions(exclude="a", exclude_kinds=["outlier"]).exclude_kinds == ("outlier",)
    with pytest.raises(ft.OptionError, match=r"^each of kinds must be one of .*, not 'noise'$"):
        kinds_of("kinds", ["outlier", "noise"])  # type: ignore[list-item]
    with pytest.raises(ft.OptionError, match=re.escape("not {'outlier'}")):
        kinds_of("kinds", {"outlier"})  # type: ignore[arg-type]


def test_a_graph_that_a_training_makes() -> None:
    assert BagOptions(neighbors="running").has_running_graph is True
    for neighbors in (None, "graph.parquet", FRAME):
        assert BagOptions(neighbors=neighbors).has_running_graph is False
    with pytest.raises(ft.OptionError, match="neighbors 'running' is for a training, which makes the graph"):
        ft.triplet_seq(
            pl.DataFrame({"key": np.arange(4), "label": np.arange(4) // 2}),
            neighbors="running",  # type: ignore[arg-type]
        )
