"""What findings say is what their definitions give: cosines, likeness, counts, and the images beside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._examine import examine
from fasttriplet.auditing._neighbors import SCALE, unit
from tests.auditing.drawn import draw
from tests.auditing.test_groups import direction, plain_strength

Doubles = NDArray[np.float64]


def test_reasons_are_what_was_measured() -> None:
    drawn = draw(20, 12, noise=0.5)
    person, labels = drawn.person, drawn.labels
    moved = {5: 7, 100: 3}  # images, and the labels that they have instead of 0 and 8
    for image, label in moved.items():
        labels[image] = label
    labels[np.flatnonzero(person == 10)[7:]] = 20
    labels[person == 12] = 11
    found = examine(drawn.embeddings, labels, drawn.keys)
    rows: Doubles = unit(drawn.embeddings).astype(np.float64) / SCALE
    usual = found.thresholds.usual
    assert usual is not None
    key = dict(zip(drawn.keys.tolist(), range(len(rows)), strict=True))
    suspects = {
        kind[0]: sorted(some.rows(named=True), key=lambda row: row["key"])
        for kind, some in found.suspects.group_by("kind")
    }
    assert found.suspects["finding"].n_unique() == 4
    alone = [*moved]

    def group(label: int, who: int | None = None) -> NDArray[np.int64]:
        """Images of a person under a label."""
        chosen = (labels == label) & ~np.isin(np.arange(len(rows)), alone)
        return np.flatnonzero(chosen if who is None else chosen & (person == who))

    def nearest(image: int, among: NDArray[np.int64]) -> list[int]:
        found: list[int] = among[np.argsort(-rows[among] @ rows[image])[:5]].tolist()
        return found

    def centre(some: NDArray[np.int64]) -> Doubles:
        return direction(rows[some].sum(axis=0))

    def likeness(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
        strong = plain_strength(rows[one], usual) * plain_strength(rows[two], usual)
        return float(centre(one) @ centre(two) * strong)

    def across(one: NDArray[np.int64], two: NDArray[np.int64]) -> str:
        cosines, enough = rows[one] @ rows[two].T, usual / 2
        return (
            f"{cosines.size} pairs of images across: mean cosine {cosines.mean():.2f}, "
            f"{(cosines >= enough).mean():.0%} above {enough:.2f}"
        )

    assert [key[row["key"]] for row in suspects["mislabelled"]] == alone
    for row, image in zip(suspects["mislabelled"], alone, strict=True):
        theirs, own = group(person[image]), group(labels[image])
        fit, here = rows[image] @ centre(theirs), rows[image] @ centre(own)
        both = nearest(image, np.concatenate([theirs, own]))
        assert row["reason"] == (
            f"cosine {fit:.2f} with identity {person[image]}, {here:.2f} with its own; "
            f"{np.isin(both, theirs).sum()} of the 5 nearest images of both are identity {person[image]}"
        )
        assert row["score"] == round(fit - here, 6)
        assert [key[one] for one in row["evidence_keys"]] == nearest(image, theirs)

    one, two = group(20), group(10)
    assert [key[row["key"]] for row in suspects["same-person"]] == one.tolist()
    for row, image in zip(suspects["same-person"], one, strict=True):
        alike = likeness(one, two)
        assert row["reason"] == f"identities 20 and 10 have a likeness of {alike:.2f}; {across(one, two)}"
        assert (row["score"], row["suggested_label"]) == (round(min(alike, 1.0), 6), 10)
        assert [key[one] for one in row["evidence_keys"]] == nearest(image, two)

    groups = [group(11, 11), group(11, 12)]  # of one size: which is the first depends on nothing else
    reported = np.array([key[row["key"]] for row in suspects["two-people"]])
    rest = groups[0] if set(reported) == set(groups[1].tolist()) else groups[1]
    assert sorted([*reported, *rest]) == sorted(np.concatenate(groups).tolist())
    for row, image in zip(suspects["two-people"], reported.tolist(), strict=True):
        alike = likeness(reported, rest)
        assert row["reason"] == (
            "12 of 24 images of identity 11 are a group that has a likeness of "
            f"{alike:.2f} with the rest; {across(reported, rest)}"
        )
        assert (row["score"], row["suggested_label"]) == (round(1 - max(alike, 0), 6), 21)
        assert [key[one] for one in row["evidence_keys"]] == nearest(image, rest)
