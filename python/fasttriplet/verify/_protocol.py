"""The protocol of LFW: from the distances of pairs to accuracy, ROC and true accept rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasttriplet._checks import whole_number
from fasttriplet._words import counted
from fasttriplet.mining._mine import as_array
from fasttriplet.verify._separation import what_is_wrong

FOLDS = 10
_THRESHOLDS = np.arange(400) / 100  # squared L2; InsightFace's, 0.00 to 3.99
_LARGEST = 4.0 + 1e-3  # squared L2 of unit rows, and what rounding may add
_FAR_EXPONENTS = range(1, 7)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of :func:`verify_distances`, :func:`verify_pairs` and :func:`verify_rec`.

    Distances are squared L2 between unit embeddings. A pair is accepted as one identity if its distance is
    below the threshold (strictly).

    Attributes
    ----------
    pairs, genuine, impostors : int
        How many there are of all, of the same identity, and of different identities.
    folds : int
        Parts into which the pairs were cut.
    accuracy, accuracy_std : float or None
        Mean and standard deviation (of the population, ``numpy.std``) over the folds. The threshold of a
        fold is chosen on the other folds, so they are None unless the other folds of each fold hold pairs of
        both kinds.
    threshold : float or None
        The threshold that is best for all pairs together, and the smallest one if several are. None without
        pairs of both kinds.
    fold_accuracies, fold_thresholds : tuple of float
        One per fold; empty where the accuracy is None.
    auc : float or None
        Probability that a genuine pair is nearer than an impostor pair, where a tie counts half (the area
        under the ROC curve; Mann and Whitney's U over the product of the counts). None without pairs of both
        kinds.
    tar : dict of float to float
        True accept rate by false accept rate, 0.1 to 1e-6: the share of genuine pairs below the largest
        threshold that accepts at most ``floor(FAR * impostors)`` impostor pairs. Rates that allow no impostor
        pair at all are left out, and without genuine pairs all rates are.
    images : int or None
        Images that were embedded.
    flip : bool or None
        Whether the embedding of the mirrored image was added.
    xnorm : float or None
        Mean L2 norm of the embeddings of images and mirror images, before they were added and normalised.
    recall_at_1 : float or None
        Share of the images whose nearest other image shows the same identity, among the images whose identity
        has another image. A tie between the two kinds counts as a miss.
    recall_images : int or None
        How many images have another image of their identity.
    warning : str or None
        For people: that the model separates nothing, and what to try. It is given where the AUC is below 0.6,
        where it is below 0.7 and the median distance of impostor pairs below 0.1, and where embeddings are
        nearly equal. Otherwise it is None, and so it is with fewer than about 150 pairs of a kind, where
        guessing could give an AUC of 0.6.
    distances : (pairs,) float64
        Squared L2 of each pair.
    same : (pairs,) bool
        Whether the pair is genuine.
    ids : (pairs, 2) int64 or None
        The two images of each pair: their :attr:`Dataset.ids <fasttriplet.Dataset>`, or their positions in a
        ``.bin`` file. None for distances alone.
    dataset : str or None
        ``Dataset.fingerprint`` of the dataset that the pairs were drawn from. None for other pairs.
    """

    pairs: int
    genuine: int
    impostors: int
    folds: int
    accuracy: float | None
    accuracy_std: float | None
    threshold: float | None
    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]
    auc: float | None
    tar: dict[float, float]
    images: int | None = None
    flip: bool | None = None
    xnorm: float | None = None
    recall_at_1: float | None = None
    recall_images: int | None = None
    warning: str | None = None
    distances: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    same: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_), repr=False, compare=False)
    ids: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    dataset: str | None = field(default=None, repr=False, compare=False)

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the exact ROC curve: one point for each distance that occurs, and (1, 1).

        Returns
        -------
        far, tar : (P,) float64
            Shares of impostor and of genuine pairs below the threshold, both ascending.

        Raises
        ------
        ValueError
            If all pairs are of one kind.
        """
        check_for_roc(self.same)
        thresholds = np.append(np.unique(self.distances), np.inf)
        below = [
            np.searchsorted(np.sort(self.distances[kind]), thresholds, side="left") / np.count_nonzero(kind)
            for kind in (~self.same, self.same)
        ]
        return below[0], below[1]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pairs themselves as plain data, for JSON."""
        of_pairs = {"distances", "same", "ids", "dataset"}
        names = [name for name in self.__dataclass_fields__ if name not in of_pairs]
        return {name: getattr(self, name) for name in names} | {
            "fold_accuracies": list(self.fold_accuracies),
            "fold_thresholds": list(self.fold_thresholds),
            "tar": {f"{far:g}": tar for far, tar in self.tar.items()},
        }


def verify_distances(distances: ArrayLike, same: ArrayLike, folds: int = FOLDS) -> Verification:
    """Judge the distances of pairs by the protocol of LFW, as InsightFace's ``verification.py`` does.

    The pairs are cut, in their order, into folds of equal size (the first folds have one pair more if the
    number is not divisible). The accuracy on a fold is that of the threshold out of 0.00, 0.01, ... 3.99 that
    is most accurate on the other folds, or the smallest such threshold if there are several.

    Parameters
    ----------
    distances : (P,) float
        Squared L2 distances of unit embeddings, 0 to 4.
    same : (P,) bool
        Whether the pair shows one identity.
    folds : int, default 10
        At least 2, and at most the number of pairs.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If shapes or values are not as described above; names the first pair, counted from 0.

    Examples
    --------
    >>> import fasttriplet as ft
    >>> found = ft.verify_distances([0.1, 1.9, 0.2, 2.1], [True, False, True, False], folds=2)
    >>> found.accuracy, found.auc
    (0.75, 1.0)
    """
    folds = whole_number("folds", folds, 2)
    measured = _distances(distances)
    genuine = _truth(same, len(measured))
    check_enough_pairs(len(measured), folds)
    ends = _ends(len(measured), folds)
    right = np.stack([_correct(measured[a:b], genuine[a:b]) for a, b in pairwise(ends)])  # (folds, 400)
    in_all = right.sum(axis=0)
    chosen = np.argmax(in_all - right, axis=1)  # the first maximum
    accuracies = right[np.arange(folds), chosen] / np.diff(ends)
    near, far = np.sort(measured[genuine]), np.sort(measured[~genuine])
    judged = why_no_accuracy(genuine, folds) is None
    auc = _auc(near, far)
    return Verification(
        pairs=len(measured),
        genuine=len(near),
        impostors=len(far),
        folds=folds,
        accuracy=float(accuracies.mean()) if judged else None,
        accuracy_std=float(accuracies.std()) if judged else None,
        threshold=float(_THRESHOLDS[np.argmax(in_all)]) if len(near) and len(far) else None,
        fold_accuracies=tuple(accuracies.tolist()) if judged else (),
        fold_thresholds=tuple(_THRESHOLDS[chosen].tolist()) if judged else (),
        auc=auc,
        tar=_true_accept_rates(near, far),
        warning=what_is_wrong(auc, near, far),
        distances=measured,
        same=genuine,
    )


def _distances(distances: ArrayLike) -> NDArray[np.float64]:
    given = as_array("distances", distances)
    if given.ndim != 1 or (len(given) and given.dtype.kind not in "iuf"):
        raise ValueError(
            "distances must be a list of numbers, one for each pair, not "
            f"{given.dtype} of shape {given.shape}"
        )
    measured = given.astype(np.float64)  # a copy
    bad = np.flatnonzero(~((measured >= 0) & (measured <= _LARGEST)))
    if bad.size:
        raise ValueError(
            f"the distance of pair {bad[0]} is {measured[bad[0]]}; squared L2 distances of unit embeddings "
            "are 0 to 4: divide the embeddings by their L2 norm first"
        )
    return measured


def _truth(same: ArrayLike, count: int) -> NDArray[np.bool_]:
    given = as_array("same", same)
    if given.shape != (count,):
        raise ValueError(
            f"{counted(count, 'distance')} but truth values of shape {given.shape}; give one for each pair"
        )
    if count and given.dtype.kind not in "biu":
        raise ValueError(f"same must be True or False for each pair, not {given.dtype}")
    bad = np.flatnonzero((given != 0) & (given != 1))
    if bad.size:
        raise ValueError(f"same of pair {bad[0]} is {given[bad[0]]}; expected True or False")
    return given.astype(np.bool_)


def check_enough_pairs(pairs: int, folds: int) -> None:
    """Raise a ValueError if there are fewer pairs than folds."""
    if pairs < 2:
        raise ValueError(f"{counted(pairs, 'pair')} cannot be judged; at least 2 are needed, and better many")
    if pairs < folds:
        raise ValueError(
            f"{pairs} pairs are too few for {folds} folds; give more pairs, or fewer folds: folds={pairs}"
        )


def check_for_roc(same: NDArray[np.bool_]) -> None:
    """Raise a ValueError if all pairs are of one kind."""
    if same.all() or not same.any():
        kind = "genuine" if same.any() else "impostors"
        raise ValueError(f"a ROC curve needs pairs of both kinds, and all pairs are {kind}")


def why_no_accuracy(same: NDArray[np.bool_], folds: int) -> str | None:
    """Say why these pairs have no accuracy: the threshold of a fold would be chosen on pairs of one kind.

    None if they have one.
    """
    for kind, of_kind, other in (("genuine", same, "impostors"), ("impostor", ~same, "genuine")):
        places = np.flatnonzero(of_kind)
        if not len(places):
            return f"all pairs are {other}"
        first, last = np.searchsorted(_ends(len(same), folds), places[[0, -1]], side="right").tolist()
        if first == last:
            return (
                f"all {kind} pairs are in fold {first} of {folds}, and the other folds decide its threshold"
            )
    return None


def _ends(pairs: int, folds: int) -> NDArray[np.int64]:
    """Where folds end, after 0: (folds + 1,) int64."""
    count = np.arange(folds + 1)
    ends: NDArray[np.int64] = count * (pairs // folds) + np.minimum(count, pairs % folds)
    return ends


def _correct(distances: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pairs that each threshold judges correctly: (400,) int64."""
    accepted = np.searchsorted(np.sort(distances[same]), _THRESHOLDS, side="left")
    wrongly = np.searchsorted(np.sort(distances[~same]), _THRESHOLDS, side="left")
    return accepted - wrongly + np.count_nonzero(~same)


def _auc(near: NDArray[np.float64], far: NDArray[np.float64]) -> float | None:
    """Mann and Whitney's (1947) U / (n m), from ranks; both arrays are sorted."""
    if not len(near) or not len(far):
        return None
    not_above = np.searchsorted(far, near, side="right")
    below = np.searchsorted(far, near, side="left")
    twice = 2 * len(near) * len(far) - int(not_above.sum()) - int(below.sum())
    return twice / (2 * len(near) * len(far))


def _true_accept_rates(near: NDArray[np.float64], far: NDArray[np.float64]) -> dict[float, float]:
    rates = {}
    for exponent in _FAR_EXPONENTS:
        allowed = len(far) // 10**exponent
        if not allowed or not len(near):
            break
        # At most `allowed` impostors are below this distance, and more below any larger one.
        accepted = np.searchsorted(near, far[allowed], side="left")
        rates[float(f"1e-{exponent}")] = int(accepted) / len(near)
    return rates
