"""Wrong options of a feed are named before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from tests.documented import defaults_differ
from tests.run.leftovers import nothing_left
from tests.small_rec import random_table


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"batch_size": 0},
        {"batch_size": -3},
        {"batch_size": True},
        {"batch_size": 60.0},
        {"epochs": 0},
        {"epochs": True},
        {"epochs": 1.5},
        {"devices": 0},
        {"devices": True},
        {"first_epoch": -1},
        {"first_epoch": 2**31},
        {"augment": "mirror"},
        {"augment": True},
        {"memory": 0},
        {"memory": -1},
        {"memory": True},
        {"memory": 1e9},
        {"prefetch": -1},
        {"prefetch": True},
        {"prefetch": 1.0},
        {"prefetch": None},
        {"images_per_identity": 0},
        {"bag_size": 0},
        {"boundary": "cut"},
        {"tail": "cut"},
        {"margin": -1},
        {"band": "soft"},
        {"pick": "best"},
        {"negatives_per_pair": 0},
        {"pairs": "all"},
        {"max_ap": "far"},
        {"on_error": "ignore"},
        {"seed": -1},
        {"threads": 0},
        {"group": object()},
    ],
)
def test_wrong_options_are_named_before_anything_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with nothing_left(), pytest.raises(ValueError, match=name):
        ft.Feed(tmp_path / "no.rec", **{"model": random_table()} | options)


def test_a_model_that_is_none_and_a_file_that_is_none(rec: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.SpecError, match="resnet"):
        ft.Feed(tmp_path / "no.rec", model="resnet")
    with nothing_left(), pytest.raises(FileNotFoundError, match=r"no\.rec"):
        next(ft.Feed(tmp_path / "no.rec", model=random_table()))
    with nothing_left(), ft.Feed(rec, model="pixels", batch_size=9) as feed:
        assert next(feed).images.shape == (9, 3, 24, 24)


@pytest.mark.parametrize(("call", "count"), [(ft.Feed, 10), (ft.mine_rec, 8), (ft.embed_rec, 5)])
def test_defaults_are_those_of_the_docstring(call: Any, count: int) -> None:
    assert defaults_differ(call) == (count, [])
