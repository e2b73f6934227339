"""What there is to see of a verification: the curve, the distances and the worst pairs, as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np

from fasttriplet.verify._protocol import Verification

_POINTS = 100  # of the curve
_WIDTH = 0.05  # squared L2, of a bin of the histogram; distances are 0 to 4
_BINS = 80
_WORST = 10  # pairs of each kind


def details(found: Verification) -> dict[str, Any]:
    """Plain data of moderate size, for JSON.

    Returns
    -------
    dict
        ``dataset``: the fingerprint of the dataset that the pairs were drawn from, None for other pairs.
        ``roc``: true accept rates ``tar`` at 100 false accept rates ``far``, evenly spread on a logarithmic
        scale from that of one impostor pair to 1, or None if all pairs are of one kind. ``histogram``: counts
        of ``genuine`` and ``impostors`` by distance, in 80 bins of the ``width`` 0.05 from 0 on. ``worst``:
        the 10 farthest ``genuine`` and the 10 nearest ``impostors`` that have no image in common, each with
        its ``distance`` and the ``ids`` of its two images.
    """
    edges = _WIDTH * np.arange(_BINS + 1)
    kinds = {"genuine": found.same, "impostors": ~found.same}
    inside = found.distances.clip(max=edges[-1])  # rounding may give a little more than 4
    counts = {name: np.histogram(inside[kind], edges)[0].tolist() for name, kind in kinds.items()}
    return {
        "dataset": found.dataset,
        "roc": _roc(found),
        "histogram": {"width": _WIDTH, **counts},
        "worst": {
            "genuine": _pairs(found, np.argsort(-found.distances, kind="stable"), same=True),
            "impostors": _pairs(found, np.argsort(found.distances, kind="stable"), same=False),
        },
    }


def _roc(found: Verification) -> dict[str, list[float]] | None:
    if not 0 < found.genuine < found.pairs:
        return None
    far, tar = found.roc()
    rates = np.geomspace(1 / found.impostors, 1, _POINTS)
    reached = tar[np.searchsorted(far, rates * (1 + 1e-12), side="right") - 1]  # at most this rate
    return {"far": rates.tolist(), "tar": reached.tolist()}


def _pairs(found: Verification, order: Any, *, same: bool) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = []
    seen: set[int] = set()
    for at in order[found.same[order] == same].tolist():
        ids = [] if found.ids is None else found.ids[at].tolist()
        if len(chosen) == _WORST:
            break
        if seen.isdisjoint(ids):  # else one wrong label would fill the list
            seen.update(ids)
            chosen.append({"ids": ids, "distance": float(found.distances[at])})
    return chosen
