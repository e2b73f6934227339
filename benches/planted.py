"""Known noise, planted into a dataset: what an audit has to find, and how much of it one found.

Images are moved to other identities, identities split under two labels, pairs of identities put together,
pictures copied to other identities, and bad pictures added.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from fasttriplet.embedders import Embedder

MOVED = 0.05  # of all images
SPLIT, TOGETHER = 5, 5  # identities, pairs of identities
COPIES, BAD = 20, 10  # pictures
_QUALITY = 70
_LEAST = 8  # images of an identity that is split


@dataclass
class Planted:
    """A dataset with noise, and what the noise is.

    Attributes
    ----------
    rec : Path
        The dataset. Images keep their keys; added ones have keys above.
    person : dict of int to int
        Who the images of a label are, without the noise of single images: labels of one person have one
        number.
    true_person : dict of int to int
        For each key of an original image who that is.
    moved : set of int
        Keys of the images that were moved to another identity.
    split : set of int
        Labels that half the images of an identity have.
    together : set of int
        Labels that two identities have.
    copied : dict of int to int
        For each added copy of a picture the original's key.
    bad : set of int
        Keys of the added bad pictures.
    """

    rec: Path
    person: dict[int, int] = field(default_factory=dict)
    true_person: dict[int, int] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)
    split: set[int] = field(default_factory=set)
    together: set[int] = field(default_factory=set)
    copied: dict[int, int] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)


def plant(source: Path, rec: Path, seed: int, *, spare: Collection[int] = ()) -> Planted:
    """Write a copy of a dataset with noise.

    Parameters
    ----------
    source, rec : Path
        The dataset as it is, and where to write the other one.
    seed : int
        Of all draws.
    spare : collection of int
        Keys of images that are neither moved nor copied: they are findings already.
    """
    rng = np.random.default_rng(seed)
    index = ft.index_rec(source, cache=False).sort("key")
    keys, true = index["key"].to_numpy(), index["label"].to_numpy()
    identities, sizes = np.unique(true, return_counts=True)
    large = rng.permutation(identities[sizes >= _LEAST])
    split, rest = large[:SPLIT], np.setdiff1d(identities, large[:SPLIT])
    pairs = rng.permutation(rest)[: 2 * TOGETHER].reshape(-1, 2)
    found = Planted(rec, together=set(pairs[:, 0].tolist()))
    found.person = {int(label): int(label) for label in identities} | dict(pairs[:, ::-1].tolist())
    person_of = np.vectorize(found.person.__getitem__)
    people = person_of(true)
    found.true_person = dict(zip(keys.tolist(), people.tolist(), strict=True))

    labels = people.copy()
    for number, identity in enumerate(split.tolist(), int(identities.max()) + 1):
        half = rng.permutation(np.flatnonzero(true == identity))
        labels[half[: len(half) // 2]] = number
        found.split.add(number)
        found.person[number] = identity
    free = rng.permutation(np.flatnonzero(~np.isin(keys, list(spare))))
    moved, copied = np.split(free[: round(MOVED * len(keys)) + COPIES], [-COPIES])
    for at in moved:
        labels[at] = _another(rng, identities, found.person, people[at])
    found.moved = set(keys[moved].tolist())

    file = ft.RecordFile(source)
    with ft.RecordWriter(rec) as writer:
        for key, label in zip(keys.tolist(), labels.tolist(), strict=True):
            writer.write(key, ft.IRHeader(0, float(label), key, 0), file.read(key)[1])
        key = int(keys.max())
        for at in copied:
            key += 1
            found.copied[key] = int(keys[at])
            label = _another(rng, identities, found.person, people[at])
            picture = _again(file.decode(keys[at : at + 1])[0], rng)
            writer.write(key, ft.IRHeader(0, float(label), key, 0), picture)
        size = file.decode(keys[:1]).shape[1:3]
        for number in range(BAD):
            key += 1
            found.bad.add(key)
            label = found.person[int(rng.choice(identities))]
            picture = _uniform(size, rng) if number % 2 == 0 else file.read(int(rng.choice(keys)))[1][:200]
            writer.write(key, ft.IRHeader(0, float(label), key, 0), picture)
    return found


def _another(
    rng: np.random.Generator, identities: NDArray[np.int64], person: dict[int, int], than: int
) -> int:
    """The label of another person."""
    while (label := person[int(rng.choice(identities))]) == than:
        pass
    return label


def _again(pixels: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    """A picture shifted by a pixel, its border repeated, and encoded once more."""
    down, right = rng.choice([(0, 1), (1, 0), (1, 1), (0, -1), (-1, 0), (-1, -1), (1, -1), (-1, 1)])
    height, width = pixels.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return _jpeg(pixels[rows][:, columns])


def _uniform(size: tuple[int, ...], rng: np.random.Generator) -> bytes:
    return _jpeg(np.full((*size, 3), rng.integers(256), np.uint8))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


@dataclass
class Score:
    """How much of one kind was found.

    Attributes
    ----------
    planted, found, false : int
        How much was planted, how much of that was found, and how much besides.
    """

    planted: int
    found: int
    false: int

    @property
    def recall(self) -> float:
        """Share of what was planted that was found."""
        return self.found / self.planted

    @property
    def precision(self) -> float:
        """Share of what was found that was planted; 1 where nothing was found."""
        return self.found / max(1, self.found + self.false) if self.found or self.false else 1.0


def scores(planted: Planted, suspects: pl.DataFrame, known: pl.DataFrame) -> dict[str, Score]:
    """Count each kind.

    Parameters
    ----------
    planted : Planted
    suspects : DataFrame
        What an audit found.
    known : DataFrame
        What it finds in the dataset without noise: counted as neither right nor wrong.

    Returns
    -------
    dict of str to Score
        Also ``suggested``: how many of the moved images that were found have the right suggestion.
    """
    alone = set(_of(known, "mislabelled", "outlier")["key"].to_list())
    wrong = set(_of(suspects, "mislabelled")["key"].to_list()) - alone
    wrong -= planted.copied.keys() | set(planted.copied.values())
    right = wrong & planted.moved
    moved = Score(len(planted.moved), len(right), len(wrong - planted.moved))
    suggestions = _of(suspects, "mislabelled").filter(pl.col("key").is_in(list(right)))
    labels_of = dict(_new_people(planted, suspects))
    suggested = sum(
        planted.person.get(label, labels_of.get(label)) == planted.true_person[key]
        for key, label in suggestions.select("key", "suggested_label").iter_rows()
    )
    return {
        "moved": moved,
        "suggested": Score(max(1, len(right)), suggested, len(right) - suggested),
        "same person": _same_person(planted, suspects, known),
        "two people": _two_people(planted, suspects, known),
        "copies": _copies(planted, suspects, known),
        "bad pictures": _bad(planted, suspects, known),
    }


def _of(suspects: pl.DataFrame, *kinds: str) -> pl.DataFrame:
    return suspects.filter(pl.col("kind").is_in(kinds))


def _new_people(planted: Planted, suspects: pl.DataFrame) -> Iterator[tuple[int, int]]:
    """For each new label that an audit suggests, who most of the images are that would have it."""
    for _, rows in _of(suspects, "two-people").group_by("finding"):
        people = [planted.true_person[key] for key in rows["key"] if key in planted.true_person]
        if people:
            yield int(rows["suggested_label"][0]), max(set(people), key=people.count)


def _pairs(suspects: pl.DataFrame) -> set[frozenset[int]]:
    rows = _of(suspects, "same-person").select("label", "suggested_label").unique()
    return {frozenset(row) for row in rows.iter_rows()}


def _same_person(planted: Planted, suspects: pl.DataFrame, known: pl.DataFrame) -> Score:
    pairs = {frozenset(planted.person[label] for label in pair) for pair in _pairs(known)}
    found, false = set[int](), 0
    for pair in _pairs(suspects):
        people = frozenset(planted.person[label] for label in pair)
        if len(people) == 1:
            found |= people
        elif people not in pairs:
            false += 1
    return Score(len(planted.split), len(found), false)


def _two_people(planted: Planted, suspects: pl.DataFrame, known: pl.DataFrame) -> Score:
    before = set(_of(known, "two-people")["label"].to_list())
    labels = set(_of(suspects, "two-people")["label"].to_list())
    together = {label for label, person in planted.person.items() if person in planted.together}
    return Score(
        len(planted.together),
        len({planted.person[label] for label in labels & together}),
        len(labels - together - before),
    )


def _copies(planted: Planted, suspects: pl.DataFrame, known: pl.DataFrame) -> Score:
    """Copies across identities: a finding has both pictures, and one of them is to be dropped."""
    pairs = {frozenset(pair) for pair in planted.copied.items()}
    images = {key for pair in pairs for key in pair}
    before = {key for keys, _ in _pictures(known) for key in keys}
    found, false = set[frozenset[int]](), 0
    for keys, dropped in _pictures(suspects):
        of_finding = {pair for pair in pairs if pair <= keys and pair & dropped}
        found |= of_finding
        false += bool(dropped) and not keys & images and not keys <= before
    return Score(len(pairs), len(found), false)


def _pictures(suspects: pl.DataFrame) -> Iterator[tuple[set[int], set[int]]]:
    """Of each finding about a picture: keys of all images that show it, and of those to be dropped."""
    for _, rows in _of(suspects, "duplicate").group_by("finding"):
        keys = {*rows["key"].to_list(), *rows["evidence_keys"].explode().to_list()}
        yield keys, set(rows.filter(pl.col("action") == "drop")["key"].to_list())


def _bad(planted: Planted, suspects: pl.DataFrame, known: pl.DataFrame) -> Score:
    found = set(_of(suspects, "bad-picture")["key"].to_list()) - set(
        _of(known, "bad-picture")["key"].to_list()
    )
    return Score(len(planted.bad), len(found & planted.bad), len(found - planted.bad))


class Remembering:
    """An embedder that knows the original images: the network sees only those that were added."""

    def __init__(self, network: Embedder, known: dict[int, NDArray[np.float32]]) -> None:
        self._network, self._known = network, known
        self.description, self.needs_images = network.description, True

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Look up what is known and embed the rest."""
        assert images is not None
        keys = rows["key"].to_list()
        found = np.zeros((len(keys), len(next(iter(self._known.values())))), np.float32)
        for at, key in enumerate(keys):
            if key in self._known:
                found[at] = self._known[key]
        new = np.flatnonzero([key not in self._known for key in keys])
        if len(new):
            found[new] = self._network.embed(rows[new], images[new])
        return found
