"""Embeddings of people that were drawn, with known noise in their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIM = 48


@dataclass
class Drawn:
    """Rows around the centres of people.

    Attributes
    ----------
    embeddings : (N, D) float32
    person, labels, keys : (N,) int64
        Who each image shows, the label it has, and its key.
    """

    embeddings: NDArray[np.float32]
    person: NDArray[np.int64]
    labels: NDArray[np.int64]
    keys: NDArray[np.int64]

    def at(self, order: NDArray[np.int64]) -> Drawn:
        """Some of the images, in another order."""
        return Drawn(self.embeddings[order], self.person[order], self.labels[order], self.keys[order])


def draw(identities: int, images: int, seed: int = 0, *, noise: float = 1.0, dim: int = DIM) -> Drawn:
    """People who have `images` images each; noise of 1 is as long as the centres."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(identities), images)
    rows = rng.standard_normal((identities, dim))[person] + noise * rng.standard_normal((len(person), dim))
    # Networks give vectors of any length, and keys have gaps.
    rows *= rng.uniform(0.1, 10, (len(rows), 1))
    return Drawn(rows.astype(np.float32), person, person.copy(), 3 * np.arange(len(person)) + 7)


def noisy(seed: int = 0, *, identities: int = 40, images: int = 12) -> tuple[Drawn, dict[str, set[int]]]:
    """Noise of all kinds; and for each the keys or labels that it is about."""
    rng = np.random.default_rng(1000 + seed)
    drawn = draw(identities, images, seed, noise=0.8)
    labels, person = drawn.labels, drawn.person
    split, one, two = rng.permutation(identities)[:3].tolist()
    labels[rng.permutation(np.flatnonzero(person == split))[: images // 3]] = identities
    labels[person == two] = one
    still = np.flatnonzero(~np.isin(person, (split, one, two)))
    moved, alone = np.split(rng.permutation(still)[: identities // 2 + 2], [-2])
    for image in moved:
        labels[image] = rng.choice(np.setdiff1d(np.arange(identities), (person[image], two, split)))
    drawn.embeddings[alone] = rng.standard_normal((2, DIM))
    return drawn, {
        "moved": set(drawn.keys[moved].tolist()),
        "alone": set(drawn.keys[alone].tolist()),
        "split": {split, identities},
        "together": {one},
    }
