"""A run without triplets says why, and writes nothing; a run says why pairs have no negative."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.run.leftovers import besides_datasets
from tests.run.plain_feed import Watched, stop
from tests.small_rec import Table, identities, random_table, write_rec


def one_hot(keys: int) -> NDArray[np.float32]:
    return np.eye(keys, dtype=np.float32)


@pytest.mark.parametrize(
    ("labels", "rows", "options", "why"),
    [
        (identities(3, 2), np.ones((9, 4), np.float32), {}, "nearly equal .* collapsed"),
        (
            identities(3, 2),
            one_hot(9),
            {"max_ap": 1.5},
            r"max_ap=1.5 skips 3 pairs and leaves none .* d_ap=2\b",
        ),
        (identities(3, 2), one_hot(9), {}, "no negative .* strictly between"),
        (identities(3, 2), one_hot(9)[:, :1] + [[1, 0]] * 9, {"band": "hard"}, ""),
        (
            identities(3, 2),
            one_hot(9),
            {"band": "d_an < 1.5"},
            r"no negative is nearer than the band \(d_an < 1.5\) has a place for",
        ),
        (
            identities(3, 2),
            one_hot(9),
            {"band": "d_an > d_ap + margin"},
            r"no negative has d_an > d_ap \+ margin \(0.3\): the nearest negatives are at d_an = 2 to 2",
        ),
        (
            identities(3, 2),
            one_hot(9),
            {"band": "any", "ranks": (4, None)},
            "no pair has more than 4 negatives that qualify, and ranks leave these out",
        ),
        (identities(3, 2), one_hot(9), {"bag_size": 7, "tail": "drop"}, "no bag has 7 images"),
        (
            {1: 0, 2: 0, 3: 1, 4: 2, 5: 3},
            one_hot(9),
            {"bag_size": 3, "seed": 3},
            "2 bags with 5 images; epoch 0, bag 0: .* has one image, .*: raise bag_size",
        ),
    ],
)
def test_a_run_without_triplets_says_why_and_writes_nothing(
    tmp_path: Path, labels: dict[int, int], rows: NDArray[np.float32], options: dict[str, Any], why: str
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels)
    out = tmp_path / "t.parquet"
    out.write_text("an older result")
    if not why:
        # Identities lie far apart and their images close together: nothing is hard.
        rows = (
            np.repeat(one_hot(4), 2, axis=0)[[0, 0, 1, 2, 3, 4, 5, 6, 7]]
            + np.float32(0.001) * one_hot(9)[:, :4]
        )
        why = "no negative is nearer than d_ap"
    with pytest.raises(ft.NoTripletsError, match=why):
        ft.mine_rec(rec, model=Table(rows.astype(np.float32)), out=out, overwrite=True, **options)
    assert besides_datasets(tmp_path) == ["t.parquet"]
    assert out.read_text() == "an older result"


@pytest.mark.parametrize(
    ("labels", "options", "why"),
    [
        (identities(1, 5), {}, "train.rec: 5 images of one identity and none"),
        (identities(5, 1), {}, "each of the 5 identities has one image"),
        (identities(3, 2), {"images_per_identity": 1}, "images_per_identity is 1, .*: raise it"),
        (identities(3, 2), {"bag_size": 3}, "a bag of 3 images .* raise bag_size to 4 or more"),
        (identities(3, 2), {"bag_size": 2, "boundary": "split"}, "raise bag_size to 3 or more"),
        ({1: 0, 2: 1, 3: 1, 4: 1}, {"bag_size": 3}, "raise bag_size to 4 or more"),
    ],
)
def test_a_dataset_that_can_give_none_is_refused_before_anything_is_decoded(
    tmp_path: Path, labels: dict[int, int], options: dict[str, Any], why: str
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels, damaged=frozenset(labels))
    for model in ("pixels", "npy"):
        if model == "npy":
            np.save(tmp_path / "a.npy", one_hot(3))
            model = f"npy:{tmp_path / 'a.npy'}"  # noqa: PLW2901
        with pytest.raises(ft.NoTripletsError, match=why):
            ft.mine_rec(rec, model=model, **options)
        with pytest.raises(ft.NoTripletsError, match=why):
            ft.Feed(rec, model=model, **options)


@pytest.mark.parametrize("bag_size", [3, 4])
def test_a_bag_that_just_has_room_is_not_refused(tmp_path: Path, bag_size: int) -> None:
    labels = {1: 0, 2: 1, 3: 1} if bag_size == 3 else identities(2, 2)
    rec = write_rec(tmp_path / "train.rec", labels)
    assert ft.mine_rec(rec, model=random_table(9), bag_size=bag_size, band="any").summary.triplets > 0


def test_an_error_says_what_was_left_out(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 3), frozenset(range(1, 10)))
    note = r"^9 of 12 images had been left out; the first: .*train.rec, key [1-9], offset \d+"
    options: dict[str, Any] = {"model": "pixels", "on_error": "skip"}
    broken: dict[str, Any] = options | {"model": Watched(one_hot(13), stop(OSError("the disk is full"), 1))}
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (ft.NoTripletsError, lambda: ft.mine_rec(rec, **options)),
        (ft.NoTripletsError, lambda: next(ft.Feed(rec, **options))),
        (OSError, lambda: ft.mine_rec(rec, **broken)),
    ]
    for kind, call in calls:
        with pytest.raises(kind) as caught:
            call()
        (found,) = caught.value.__notes__
        assert re.match(note, found)
    with pytest.raises(ft.NoTripletsError) as caught:
        ft.mine_rec(write_rec(tmp_path / "whole.rec", identities(2, 2)), margin=0, **options)
    assert not hasattr(caught.value, "__notes__")


def test_collapsed_is_relative_to_the_norm_of_rows_that_are_not_normalized(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(3, 2))
    small = np.float32(1e-4) * one_hot(9)  # squared distances of 2e-8, all of them: far apart for their norm
    for rows, why in ((small, "strictly between"), (small[:1] + 1e-4 * small, "collapsed")):
        with pytest.raises(ft.NoTripletsError, match=why):
            ft.mine_rec(rec, model=Table(rows), normalize=False)


def test_bags_without_triplets_are_counted_and_the_first_explained(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", {1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 6: 1, 7: 2, 8: 2})
    summary = ft.mine_rec(rec, model=random_table(9), bag_size=4, band="any", seed=1).summary
    assert (summary.bags, summary.bags_without_triplets) == (2, 1)
    assert "of one identity" in (summary.why_no_triplets or "")


def test_of_pairs_without_a_negative_the_first_bag_says_why(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(12, 6))
    summary = ft.mine_rec(rec, margin=0.01, bag_size=30).summary
    assert summary.without_negative is not None
    assert (summary.without_negative["epoch"], summary.without_negative["bag"]) == (0, 0)
    assert summary.to_dict()["without_negative"] == summary.without_negative
    assert ft.mine_rec(rec, band="any").summary.without_negative is None
