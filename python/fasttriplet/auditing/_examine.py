"""All that embeddings say about a dataset's labels, in an order in which each step helps the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.auditing import _calibrate
from fasttriplet.auditing._frames import identities
from fasttriplet.auditing._groups import divide
from fasttriplet.auditing._identities import elsewhere, people
from fasttriplet.auditing._labels import other_fit, own_fit
from fasttriplet.auditing._neighbors import Images
from fasttriplet.auditing._suspects import Measured, suspects
from fasttriplet.auditing._thresholds import LabelOptions, Thresholds
from fasttriplet.mining._mine import COLLAPSE, COLLAPSED

Progress = Callable[[str, int, int], None]

_STRAY = 0.25  # of an identity: up to here a group that is another identity is some mislabelled images
_FEW = 10  # identities, below which a distribution of cosines between them is rough


@dataclass(frozen=True, eq=False)
class Examined:
    """What embeddings say about the labels of a dataset.

    Attributes
    ----------
    suspects : DataFrame
        Findings of the kinds mislabelled, outlier, same-person and two-people, numbered from 0.
    identities : DataFrame
        One row per identity, where no findings are counted yet.
    thresholds : Thresholds
        That decided.
    own : (N,) float64
        Cosine of each image with its own identity without itself; NaN where there is nothing else in it, and
        for images that were left out.
    notes : list of str
        What could not be looked for, and why.
    """

    suspects: pl.DataFrame
    identities: pl.DataFrame
    thresholds: Thresholds
    own: NDArray[np.float64]
    notes: list[str]


def examine(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    keys: NDArray[np.int64],
    files: NDArray[np.uint32] | None = None,
    options: LabelOptions | None = None,
    *,
    leave_out: NDArray[np.bool_] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Examined:
    """Look for wrong labels, images that fit nowhere, identities that are one person, and that are several.

    The result does not depend on the order of the rows, the number of threads or the instruction set.

    Parameters
    ----------
    embeddings : (N, D) float32
        One row per image, perhaps mapped from a file; they need not have unit length. A row that is not
        finite or all zeros stands for an image without an embedding, which is in no finding.
    labels, keys : (N,) int64
        Of the images.
    files : (N,) uint32, optional
        Number of each image's file; by default there is one file.
    options : LabelOptions, optional
        Thresholds that are not to be calibrated.
    leave_out : (N,) bool, optional
        Images that are known to be bad: they say nothing about others, and are in no finding.
    threads : int, optional
        That look for the nearest identities; by default one for each core. Those of NumPy's matrix products
        are not counted.
    progress : callable, optional
        Called with what is being done in words, how many images or findings are done, and how many there are.

    Raises
    ------
    ValueError
        For arrays that do not fit together, and where no image has an embedding.
    """
    images = Images.of(embeddings, labels, keys, files, leave_out)
    options, report = options or LabelOptions(), progress or _silent

    def step(words: str) -> Callable[[int], None]:
        return lambda done: report(words, done, len(images))

    known = Thresholds(
        images=len(images), identities=images.identities, smallest_group=options.smallest_group
    )
    known = known.with_values(_calibrate.of_chance(images))
    notes = list(_what_is_missing(known))
    why_nothing = _why_nothing(known)
    if why_nothing is not None:
        notes.append(why_nothing)
        known = replace(known, chance=None, likeness=None)
    known = known.with_values(_calibrate.of_identities(known)).overridden(options)
    usual = 1.0 if known.usual is None else known.usual

    groups = divide(
        images, usual, known.two_people_below, options.smallest_group, step("dividing identities")
    )
    alike = people(images, groups, known.same_person_above, threads, step("comparing identities"))
    known_as = np.full(len(groups.sizes), -1)
    if known.same_person_above is not None:
        known_as = elsewhere(groups, known.same_person_above, threads)
        few = groups.sizes <= _STRAY * np.diff(images.starts)[groups.identity]
        kept = ~few | (known_as < 0)
        groups, known_as = groups.kept(kept), known_as[kept]
    own = own_fit(images, groups)
    other = other_fit(images, groups, alike.person, threads, step("comparing images"))
    known = known.with_values(_calibrate.of_images(known, own.fit, other.fit)).overridden(options)

    measured = Measured(images, groups, known_as, alike.person, own.fit, other, known)
    fit = np.full(len(embeddings), np.nan)
    fit[images.rows] = own.fit
    found = suspects(measured, int(labels.max()), partial(report, "gathering evidence"))
    return Examined(found, identities(images, alike, own.centre), known, fit, notes)


def _silent(_: str, __: int, ___: int) -> None:
    """Show no progress."""


def _what_is_missing(known: Thresholds) -> Iterator[str]:
    """Say what a dataset of this shape cannot show."""
    if known.identities == 1:
        yield (
            f"{counted(known.images, 'image')} of one identity and none of another: there is nothing to "
            "compare with, and no threshold can be calibrated"
        )
    elif known.identities == known.images:
        yield (
            f"each of the {counted(known.identities, 'identity')} has one image, so nothing shows whether an "
            "image fits its label: only identities that are the same person were looked for"
        )
    elif known.identities < _FEW:
        yield (
            f"thresholds calibrated from {counted(known.identities, 'identity')} are rough: look at each "
            "finding"
        )


def _why_nothing(known: Thresholds) -> str | None:
    """Say why these embeddings show nothing about labels; None if they may."""
    if known.chance is None or known.chance_spread is None:
        return None
    if 2 - 2 * known.chance <= COLLAPSED:
        return COLLAPSE
    if known.own is not None and known.own <= known.chance + known.chance_spread:
        return (
            "images fit their own identity hardly better than another one (median cosine "
            f"{known.own:.2f}, and {known.chance:.2f} +- {known.chance_spread:.2f} with others), so the "
            "embeddings say nothing about labels: does row i belong to image i, and is the network trained "
            "for such images?"
        )
    return None
