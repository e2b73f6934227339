"""What is found where identities have several groups, with thresholds that are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._examine import examine
from fasttriplet.auditing._thresholds import LabelOptions

# No image is as near to another identity as `lead` asks for.
OPTIONS = LabelOptions(
    lead=2.0, other_above=1.0, own_below=0.8, same_person_above=0.9, two_people_below=0.5, smallest_group=3
)


def around(*directions: tuple[float, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng(len(directions))
    rows: NDArray[np.float64] = np.array(directions) + 0.01 * rng.standard_normal((len(directions), 4))
    return rows.astype(np.float32)


def test_a_group_is_reported_without_images_that_are_reported_alone() -> None:
    """Six images of identity 1 show identity 0; one of them is far from the other five."""
    one, two = (1.0, 0, 0, 0), (0, 1.0, 0, 0)
    embeddings = around(*[one] * 9, *[two] * 8, *[one] * 5, (0.7, 0, 0.7, 0), *[(0, 0, 0, 1.0)] * 4)
    labels = np.repeat([0, 1, 2], [9, 14, 4])
    keys = np.arange(len(labels)) + 100
    found = examine(embeddings, labels, keys, options=OPTIONS).suspects
    assert set(found["kind"]) == {"two-people", "outlier"}
    (outlier,) = found.filter(kind="outlier").rows(named=True)
    assert outlier["key"] == 122
    two_people = found.filter(kind="two-people")
    assert two_people["key"].to_list() == [117, 118, 119, 120, 121]
    assert set(two_people["suggested_label"]) == {0}
    (reason,) = set(two_people["reason"])
    assert reason.startswith("5 of 14 images of identity 1 are a group that has a likeness of ")
    assert " with the rest and is identity 0; " in reason


def test_of_two_images_that_differ_either_may_be_wrong() -> None:
    """An image that differs from two others is to be dropped; of two that differ both are kept."""
    three, two = [(1.0, 0, 0, 0)] * 2 + [(0, 1.0, 0, 0)], [(0, 0, 1.0, 0), (0, 0, 0, 1.0)]
    labels = np.repeat([0, 1], [3, 2])
    found = examine(around(*three, *two), labels, np.arange(5), options=OPTIONS).suspects
    assert set(found["kind"]) == {"outlier"}
    assert found.sort("key").select("key", "action").rows() == [(2, "drop"), (3, "keep"), (4, "keep")]
