"""Verification: the protocol against its plain definition, pairs that are drawn, and pickles of strangers."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import draw_pairs, verify_distances, verify_pairs, verify_rec
from fasttriplet.cli import _verify as verify_module
from fasttriplet.cli._pack_pairs import pack_pairs as pack_command
from fasttriplet.cli._verify import verify as verify_command
from fasttriplet.embedders._pixels import PixelEmbedder
from fasttriplet.verify._bin_file import read_pairs, write_pairs
from tests.small_rec import Table, identities, picture, write_rec

# The protocol


def folds_of(count: int, folds: int) -> list[range]:
    ends = [0]
    for fold in range(folds):
        ends.append(ends[-1] + count // folds + (fold < count % folds))
    return [range(a, b) for a, b in pairwise(ends)]


def accuracy_at(threshold: float, distances: list[float], same: list[bool], pairs: list[int]) -> float:
    return sum((distances[pair] < threshold) == same[pair] for pair in pairs) / len(pairs)


def plain_accuracy(
    distances: list[float], same: list[bool], folds: int
) -> tuple[list[float], list[float], float]:
    thresholds = [step / 100 for step in range(400)]

    def best(pairs: list[int]) -> float:
        scores = [accuracy_at(threshold, distances, same, pairs) for threshold in thresholds]
        return thresholds[scores.index(max(scores))]

    accuracies, chosen = [], []
    for fold in folds_of(len(same), folds):
        chosen.append(best([pair for pair in range(len(same)) if pair not in fold]))
        accuracies.append(accuracy_at(chosen[-1], distances, same, list(fold)))
    return accuracies, chosen, best(list(range(len(same))))


def plain_auc(near: list[float], far: list[float]) -> float | None:
    if not near or not far:
        return None
    wins = sum((g < i) + (g == i) / 2 for g in near for i in far)
    return wins / (len(near) * len(far))


def plain_tar(near: list[float], far: list[float], rate: int) -> float | None:
    """At a FAR of 1/rate: the best of all thresholds that let no more than the allowed impostors in."""
    allowed = len(far) // rate
    if not allowed or not near:
        return None
    fitting = [t for t in {*near, *far, 5.0} if sum(i < t for i in far) <= allowed]
    # Between two distances nothing changes, so these thresholds are all that matter.
    return max(sum(g < t for g in near) for t in fitting) / len(near)


distances_in_steps = st.integers(0, 400).map(lambda step: step / 100)  # many lie on thresholds, and tie


@settings(deadline=None)
@given(
    st.lists(st.tuples(distances_in_steps | st.floats(0, 4), st.booleans()), min_size=2, max_size=45),
    st.data(),
)
def test_protocol_is_its_plain_definition(pairs: list[tuple[float, bool]], data: st.DataObject) -> None:
    distances, same = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    folds = data.draw(st.integers(2, min(10, len(pairs))))
    found = verify_distances(distances, same, folds)
    accuracies, thresholds, best = plain_accuracy(distances, same, folds)
    assert np.allclose(found.fold_accuracies, accuracies, rtol=0, atol=1e-12)
    assert list(found.fold_thresholds) == thresholds
    assert found.threshold == best
    assert found.accuracy == pytest.approx(np.mean(accuracies))
    assert found.accuracy_std == pytest.approx(np.std(accuracies))
    near = [d for d, s in pairs if s]
    far = [d for d, s in pairs if not s]
    assert (found.pairs, found.genuine, found.impostors) == (len(pairs), len(near), len(far))
    assert found.auc == (None if (auc := plain_auc(near, far)) is None else pytest.approx(auc, abs=1e-15))
    for exponent in range(1, 7):
        assert found.tar.get(10.0**-exponent) == plain_tar(near, far, 10**exponent)
    if near and far:
        far_rates, tar_rates = found.roc()
        steps = [*sorted(set(distances)), np.inf]
        assert far_rates.tolist() == [sum(d < t for d in far) / len(far) for t in steps]
        assert tar_rates.tolist() == [sum(d < t for d in near) / len(near) for t in steps]


def test_known_values() -> None:
    distances = [0.5] * 10 + [1.5] * 10
    same = [True] * 10 + [False] * 10
    order = [i for pair in zip(range(10), range(10, 20), strict=True) for i in pair]
    found = verify_distances(np.array(distances)[order], np.array(same)[order])
    assert (found.accuracy, found.accuracy_std, found.auc) == (1.0, 0.0, 1.0)
    assert found.threshold == 0.51  # 0.50 does not accept: below is strict
    assert found.tar == {0.1: 1.0}
    assert verify_distances([1.0] * 20, same).auc == 0.5
    # Two impostors at one distance, one allowed: a threshold above both would let in two.
    tied = verify_distances([0.1, 0.3, *[0.2] * 2, *[3.0] * 8], [True] * 2 + [False] * 10, folds=2)
    assert tied.tar == {0.1: 0.5}


def test_all_rates_that_the_pairs_carry() -> None:
    rng = np.random.default_rng(3)
    distances = rng.uniform(0, 4, 1_000_100)
    same = np.arange(1_000_100) < 100
    found = verify_distances(distances, same)
    assert list(found.tar) == [0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6]
    far = np.sort(distances[~same])
    for rate, tar in found.tar.items():
        assert tar == (distances[same] < far[round(rate * 1_000_000)]).mean()
    assert list(verify_distances(distances[:-1], same[:-1]).tar)[-1] == 1e-5
    assert list(verify_distances(distances[same], ~same[same]).tar) == []


@pytest.mark.parametrize("genuine", [True, False])
def test_one_kind_of_pairs(genuine: bool) -> None:
    found = verify_distances(np.linspace(0.1, 3, 12), [genuine] * 12)
    assert (found.auc, found.tar) == (None, {})
    assert found.accuracy == 1.0 or genuine
    with pytest.raises(ValueError, match=r"all pairs are (genuine|impostors)"):
        found.roc()
    assert json.loads(json.dumps(found.to_dict()))["auc"] is None


@pytest.mark.parametrize(
    ("distances", "same", "folds", "said"),
    [
        ([0.1] * 9, [True] * 9, 10, "9 pairs are too few for 10 folds"),
        ([0.1, float("nan")], [True] * 2, 2, "pair 1 is nan"),
        ([0.1, 4.1], [True] * 2, 2, "divide the embeddings by their L2 norm"),
        ([0.1, -0.1], [True] * 2, 2, "pair 1 is -0.1"),
        ([[0.1, 0.2]], [True] * 2, 2, "one for each pair"),
        ([0.1, 0.2], [True], 2, "2 distances but truth values of shape"),
        ([0.1, 0.2], [1, 2], 2, "same of pair 1 is 2"),
        ([0.1, 0.2], ["a", "b"], 2, "True or False"),
        ([0.1, 0.2], [1, 0], 1, "folds must be"),
    ],
)
def test_what_cannot_be_judged(distances: Any, same: Any, folds: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        verify_distances(distances, same, folds)


# Pairs that are drawn


def frame(labels: list[int], keys: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"key": keys or list(range(len(labels))), "label": labels})


def drawn_keys(index: pl.DataFrame, count: int, seed: int = 0) -> list[tuple[int, int, bool]]:
    drawn, keys = draw_pairs(index, count, seed), index["key"].to_list()
    return [(keys[a], keys[b], bool(s)) for a, b, s in zip(*drawn, strict=True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(-2, 4), min_size=2, max_size=30).filter(lambda x: len(set(x)) < len(x)),
    st.integers(1, 300),
    st.integers(0, 2**64 - 1),
    st.randoms(use_true_random=False),
)
def test_drawn_pairs(labels: list[int], count: int, seed: int, random: Any) -> None:
    keys = random.sample(range(1000), len(labels))
    of = dict(zip(keys, labels, strict=True))
    pairs = drawn_keys(frame(labels, keys), count, seed)
    assert all(a != b and (of[a] == of[b]) == s for a, b, s in pairs)
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
    sizes = Counter(labels).values()
    genuine = sum(n * (n - 1) // 2 for n in sizes)
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    same = [s for *_, s in pairs]
    assert sum(same) == min(count, genuine)
    assert len(same) - sum(same) == min(count, genuine, impostors)
    # Any run of consecutive pairs has of each kind what its share would be.
    for start in range(0, len(same), 7):
        part = same[start : start + 7]
        assert abs(sum(part) - len(part) * sum(same) / len(same)) <= 1
    rows = list(zip(labels, keys, strict=True))
    random.shuffle(rows)
    assert drawn_keys(frame([row[0] for row in rows], [row[1] for row in rows]), count, seed) == pairs


def test_drawn_pairs_are_frozen() -> None:
    index = frame([key // 5 for key in range(100)])
    assert drawn_keys(index, 4, seed=7) == FROZEN
    assert drawn_keys(index, 4, seed=8) != FROZEN
    # More than half of all genuine pairs takes the other way through the code.
    assert drawn_keys(index, 150, seed=7)[:4] == FROZEN_OF_MANY


FROZEN = [
    (6, 8, True),
    (27, 97, False),
    (87, 88, True),
    (4, 12, False),
    (56, 58, True),
    (16, 49, False),
    (5, 7, True),
    (6, 75, False),
]
FROZEN_OF_MANY = [(41, 43, True), (13, 20, False), (93, 94, True), (59, 88, False)]


def test_every_pair_is_drawn_equally_often() -> None:
    index = frame([0, 0, 0, 1, 1, 2, 2, 2, 2])
    for count in (2, 7):  # 10 genuine pairs: drawn, or left out
        seen = Counter(frozenset(pair[:2]) for seed in range(2000) for pair in drawn_keys(index, count, seed))
        genuine = [n for pair, n in seen.items() if len({index["label"][key] for key in pair}) == 1]
        impostors = [n for pair, n in seen.items() if len({index["label"][key] for key in pair}) == 2]
        assert (len(genuine), len(impostors)) == (10, 26)
        for counts in (genuine, impostors):
            expected = 2000 * count / len(counts)
            chi = sum((n - expected) ** 2 / expected for n in counts)
            assert chi < 60  # 25 degrees of freedom: 1e-4


def test_shards_and_indexes_without_pairs() -> None:
    shards = pl.DataFrame({"key": [1, 2, 1, 2], "label": [0, 1, 0, 1], "file": [0, 0, 1, 1]})
    drawn = draw_pairs(shards.with_columns(pl.col("file").cast(pl.UInt32)), 9)
    genuine = {frozenset((int(a), int(b))) for a, b, s in zip(*drawn, strict=True) if s}
    assert genuine == {frozenset((0, 2)), frozenset((1, 3))}
    one = draw_pairs(frame([5, 5, 5]), 9)
    assert one.same.tolist() == [True] * 3
    with pytest.raises(ValueError, match="none of the 3 labels has two images"):
        draw_pairs(frame([1, 2, 3]))
    with pytest.raises(ValueError, match="no images"):
        draw_pairs(frame([]).cast(pl.Int64))
    with pytest.raises(ValueError, match="label not found"):
        draw_pairs(pl.DataFrame({"key": [1]}))
    with pytest.raises(ValueError, match="pairs_per_kind"):
        draw_pairs(frame([1, 1]), 0)


# Embedding


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    divided: NDArray[np.float64] = rows / np.where(norms > 0, norms, 1)
    return divided


def plain_recall(embeddings: NDArray[np.float64], labels: list[int]) -> tuple[float | None, int]:
    hits, asked = 0, 0
    for i, label in enumerate(labels):
        ds = ((embeddings - embeddings[i]) ** 2).sum(axis=1)
        same = [ds[j] for j in range(len(labels)) if labels[j] == label and j != i]
        other = [ds[j] for j in range(len(labels)) if labels[j] != label]
        if same:
            asked += 1
            hits += min(same) < min(other, default=np.inf)
    return (hits / asked if asked else None), asked


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "val.rec", identities(8, 4))


@pytest.mark.parametrize("flip", [True, False])
def test_a_rec_by_the_plain_definition(rec: Path, flip: bool) -> None:
    told: list[tuple[int, int]] = []
    found = verify_rec(
        rec, "pixels", pairs_per_kind=30, seed=3, flip=flip, progress=lambda *now: told.append(now)
    )
    index = ft.index_rec(rec)
    images = ft.RecordFile(rec).decode(index["key"].to_numpy())
    raw = PixelEmbedder().embed(index, images)
    mirrored = PixelEmbedder().embed(index, images[:, :, ::-1])
    embeddings = unit(raw.astype(np.float64) + mirrored if flip else raw)
    drawn = draw_pairs(index, 30, 3)
    distances = ((embeddings[drawn.first] - embeddings[drawn.second]) ** 2).sum(axis=1)
    assert np.allclose(found.distances, distances, rtol=0, atol=1e-14)
    assert found.same.tolist() == drawn.same.tolist()
    expected = verify_distances(found.distances, drawn.same)
    assert (found.accuracy, found.auc, found.tar) == (expected.accuracy, expected.auc, expected.tar)
    norms = np.linalg.norm([*raw, *mirrored] if flip else raw, axis=1)
    assert found.xnorm == pytest.approx(norms.mean())
    rounded = embeddings.astype(np.float32).astype(np.float64)
    assert (found.recall_at_1, found.recall_images) == plain_recall(rounded, index["label"].to_list())
    assert (found.images, found.flip) == (32, flip)
    assert told == [(0, 32), (32, 32)]
    assert verify_rec(rec, PixelEmbedder(), pairs_per_kind=30, seed=3, flip=flip, threads=1) == found
    alone = verify_rec(rec, "pixels", pairs_per_kind=5, seed=3, flip=flip, recall=False)
    assert alone.images == len(np.unique(np.concatenate(draw_pairs(index, 5, 3)[:2]))) < 32
    assert alone.recall_at_1 is None
    of_all = verify_rec(rec, "pixels", pairs_per_kind=5, seed=3, flip=flip)
    assert np.allclose(of_all.distances, alone.distances, rtol=0, atol=1e-14)


def test_parts_do_not_matter(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = verify_rec(rec, "pixels", pairs_per_kind=20)
    monkeypatch.setattr("fasttriplet.verify._run.PART", 5)
    monkeypatch.setattr("fasttriplet.verify._run._PAIRS_AT_ONCE", 3)
    told: list[int] = []
    parts = verify_rec(rec, "pixels", pairs_per_kind=20, progress=lambda done, _: told.append(done))
    assert np.array_equal(parts.distances, whole.distances)
    assert told == [0, 5, 10, 15, 20, 25, 30, 32]


def test_embeddings_computed_before(rec: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((33, 6)).astype(np.float32)
    found = verify_rec(rec, Table(rows), pairs_per_kind=10)
    assert found.flip is False
    np.save(tmp_path / "emb.npy", rows[1:])
    again = verify_rec(rec, f"npy:{tmp_path / 'emb.npy'}", pairs_per_kind=10)
    assert again == found
    write_pairs(tmp_path / "a.bin", [picture(i) for i in range(20)], [True] * 10)
    with pytest.raises(ValueError, match="embeds no images"):
        verify_pairs(tmp_path / "a.bin", Table(rows))


def test_ties_are_misses_and_one_identity_is_a_hit(tmp_path: Path) -> None:
    many = write_rec(tmp_path / "b.rec", identities(4, 3) | {99: 9})
    same = np.ones((100, 3), dtype=np.float32)
    collapsed = verify_rec(many, Table(same), pairs_per_kind=20)
    assert (collapsed.recall_at_1, collapsed.recall_images, collapsed.auc) == (0.0, 12, 0.5)
    zeros = verify_rec(many, Table(np.zeros((100, 3), dtype=np.float32)), pairs_per_kind=20)
    assert (zeros.xnorm, zeros.recall_at_1) == (0.0, 0.0)
    alone = write_rec(tmp_path / "c.rec", identities(1, 6))
    only = verify_rec(alone, Table(same), pairs_per_kind=20)
    assert (only.recall_at_1, only.recall_images, only.auc) == (1.0, 6, None)


def test_several_shards(tmp_path: Path) -> None:
    one = write_rec(tmp_path / "1.rec", identities(6, 3))
    two = write_rec(tmp_path / "2.rec", identities(6, 2, first_key=4))
    found = verify_rec([one, two], "pixels", pairs_per_kind=12)
    assert (found.images, found.pairs, found.recall_images) == (30, 24, 30)


class Bad:
    """An embedder that returns what it was given."""

    description = "bad"
    needs_images = True

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def prepare(self, index: pl.DataFrame) -> None:
        pass

    def embed(self, rows: pl.DataFrame, images: Any) -> Any:  # noqa: ARG002
        return self.rows


def test_what_an_embedder_may_not_return(rec: Path) -> None:
    for rows in (np.ones((3, 2)), np.ones(32), np.ones((32, 0))):
        with pytest.raises(ValueError, match="bad: expected one vector for each of 32 images"):
            verify_rec(rec, Bad(rows))
    rows = np.ones((32, 2), dtype=np.float32)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match="key 5 holds NaN"):
        verify_rec(rec, Bad(rows))


def test_too_few_pairs_are_told_before_embedding(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", {1: 0, 2: 0, 3: 1})
    with pytest.raises(ValueError, match=r"a\.rec: 2 pairs are too few for 10 folds"):
        verify_rec(rec, Bad(None))
    write_pairs(tmp_path / "a.bin", [picture(1)] * 8, [True] * 4)
    with pytest.raises(ValueError, match=r"a\.bin: 4 pairs are too few for 10 folds"):
        verify_pairs(tmp_path / "a.bin", Bad(None))


# Files of pairs


def pairs_of(count: int = 12) -> tuple[list[bytes], list[bool]]:
    return [picture(i % 5) for i in range(2 * count)], [i % 3 != 0 for i in range(count)]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    images, same = pairs_of()
    arrays: list[Any] = [np.frombuffer(image, np.uint8) for image in images]
    for given_images in (images, arrays, [array[:, None] for array in arrays]):
        write_pairs(path, given_images, np.array(same))
        read, truth = read_pairs(path)
        assert read == images
        assert truth.dtype == np.bool_
        assert truth.tolist() == same
        assert pickle.loads(path.read_bytes(), encoding="bytes") == (images, same)
        opcodes = [op.name for op, _, _ in pickletools.genops(path.read_bytes())]
        assert opcodes[0] == "PROTO"
        assert not {"BINBYTES", "SHORT_BINBYTES", "FRAME"} & set(opcodes)  # Python 2 does not know them
    assert list(tmp_path.iterdir()) == [path]


def test_all_that_pickle_makes_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    images, same = pairs_of()
    arrays = [np.frombuffer(image, np.uint8).copy() for image in images]
    truths = [
        same, tuple(same), [int(s) for s in same], [np.bool_(s) for s in same], np.array(same),
        np.array(same).astype(np.int64), np.array(same).astype(">i4")[:, None], [np.int32(s) for s in same],
    ]  # fmt: skip
    forms: list[Any] = [images, arrays, [array[:, None] for array in arrays], tuple(images)]
    forms.append([np.asfortranarray(array[:, None]) for array in arrays])
    for protocol in range(6):
        for form in forms:
            for truth in truths if form is images or protocol in (2, 5) else truths[:1]:
                for whole in ((form, truth), [form, truth]):
                    path.write_bytes(pickle.dumps(whole, protocol))
                    read, found = read_pairs(path)
                    assert read == images
                    assert found.tolist() == same
    # NumPy 2 has other names for the same.
    renamed = pickle.dumps((arrays, np.array(same)), 2).replace(b"numpy.core.", b"numpy._core.")
    path.write_bytes(renamed)
    assert read_pairs(path)[0] == images
    path.write_bytes(pickletools.optimize(pickle.dumps((arrays, same), 4)))
    assert read_pairs(path)[0] == images


def python2(images: list[bytes], same: list[bool]) -> bytes:
    """What cPickle of Python 2 writes in protocol 2 for lists of str and bool."""
    short = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    truths = b"".join(b"\x88" if s else b"\x89" for s in same)
    return b"\x80\x02](" + short + b"e](" + truths + b"e\x86q\x01."


def python2_array(image: bytes) -> bytes:
    """A uint8 array of shape (n, 1), whose text is all str."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    raw = b"T" + struct.pack("<i", len(image)) + image
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = b"J" + struct.pack("<i", len(image)) + b"K\x01\x86"
    return start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def test_pickles_of_python_2(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    images, same = pairs_of()
    data = python2(images, same)
    assert pickle.loads(data, encoding="bytes") == (images, same)  # the bytes are what they should be
    path.write_bytes(data)
    read, truth = read_pairs(path)
    assert read == images
    assert truth.tolist() == same
    arrays = b"\x80\x02](" + b"".join(map(python2_array, images)) + b"e]("
    arrays += b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86."
    real, _ = pickle.loads(arrays, encoding="bytes")
    assert [array.tobytes() for array in real] == images
    assert real[0].shape == (len(images[0]), 1)
    path.write_bytes(arrays)
    assert read_pairs(path)[0] == images
    # Protocol 0, the default there: text, bytes as repr writes them.
    strings = b"".join(b"S" + repr(image)[1:].encode() + b"\na" for image in images)
    truths = b"".join(b"I0%d\na" % s for s in same)
    path.write_bytes(b"((lp1\n" + strings + b"(lp2\n" + truths + b"tp3\n.")
    assert read_pairs(path)[0] == images


def test_a_real_file(real_data: Path) -> None:
    images, same = read_pairs(real_data / "pairs" / "small_lfw.bin")
    assert same.tolist() == [True] * 10
    assert ft.decode_images(images).shape == (20, 112, 112, 3)
    found = verify_pairs(real_data / "pairs" / "small_lfw.bin", "pixels")
    assert (found.pairs, found.impostors, found.auc, found.tar) == (10, 0, None, {})
    assert (found.images, found.recall_at_1) == (20, None)


def test_images_of_one_pair_that_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttriplet.verify._run.PART", 4)
    images, same = pairs_of()
    for bad, said in (
        (images[0][:-40], "damaged JPEG"),
        (b"no", "not an image"),
        (picture(3, 25), "25 x 25 pixels"),
    ):
        for position, name in ((13, "pair 6 (counted from 0), second image"), (0, "pair 0")):
            if position == 0 and b"no" not in bad:
                continue
            broken = list(images)
            broken[position] = bad
            write_pairs(tmp_path / "a.bin", broken, same)
            with pytest.raises(ValueError) as error:
                verify_pairs(tmp_path / "a.bin", "pixels")
            assert str(error.value).startswith(f"{tmp_path / 'a.bin'}: {name}")
            assert said in str(error.value)


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        read_pairs(path)
    assert str(error.value).startswith(str(path))
    return str(error.value)


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    path, witness = tmp_path / "a.bin", tmp_path / "witness"
    code = f"open({str(witness)!r}, 'w')"
    for evil in (
        Call(os.system, f"touch {witness}"),
        Call(eval, code),
        Call(exec, code),
        Call(getattr, "a", "upper"),
        Call(subprocess.check_output, ["touch", str(witness)]),
        Call(np.load, str(witness)),
        Call(np.fromfile, str(witness)),
        Path(witness),
        np.array([Call(eval, code)], dtype=object),
        Call,
    ):
        said = refused(path, pickle.dumps(([evil] * 20, [True] * 10), protocol))
        assert "wants to load" in said or "dtype" in said or "something else than verification pairs" in said
        assert "numpy.ndarray" not in said
    assert not witness.exists()
    named = refused(path, pickle.dumps(([Call(eval, "1")], [True]), protocol))
    assert "eval, which verification pairs do not need; nothing of it was run" in named


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


U1 = glob("numpy.dtype") + b"X\x02\x00\x00\x00u1K\x00K\x01\x87R"
ARRAY = glob("numpy.core.multiarray._reconstruct") + glob("numpy.ndarray") + b"K\x00\x85C\x01b\x87R"
HUGE = b"\x8a\x05" + (2**33).to_bytes(5, "little")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (ARRAY + b"(K\x01" + HUGE + b"\x85" + U1 + b"\x89C\x01xtb", "8,589,934,592 bytes, and 1 are there"),
        (ARRAY + b"(K\x01(" + HUGE * 40 + b"t" + U1 + b"\x89C\x01xtb", "40 dimensions"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + U1 + b"\x89C\x01xtb", "not described as NumPy does"),
        (ARRAY + b"(K\x01K\x01\x85K\x05\x89C\x01xtb", "not described as NumPy does"),
        (ARRAY + b"Nb", "not described as NumPy does"),
        (ARRAY, "an empty array"),
        (glob("numpy.dtype") + b"X\x01\x00\x00\x00OK\x00K\x01\x87R", "dtype 'O'"),
        (glob("numpy.dtype") + b"X\x02\x00\x00\x00f8K\x00K\x01\x87R", "dtype 'f8'"),
        (glob("numpy.dtype") + HUGE + b"\x85R", "dtype 8589934592"),
        # Flags of an object dtype on a dtype of bytes: NumPy itself would follow the bytes as pointers.
        (U1 + b"(K\x03C\x01|NNNK\x08K\x08K\x3ftb", "several parts"),
        (U1 + b"(K\x03C\x01|NK\x01NK\x08K\x08K\x00tb", "several parts"),
        (U1 + b"(K\x03C\x01?NNNK\x08K\x08K\x00tb", "byte order"),
        (glob("numpy.ndarray") + HUGE + b"\x85R", "otherwise than NumPy"),
        (glob("numpy.ndarray") + b")b", "changes ndarray"),
        (glob("numpy.core.multiarray._reconstruct") + b"N(X\x01\x00\x00\x00ak1\x86b", "damaged"),
        (glob("numpy.core.multiarray._reconstruct") + b"Nb", "changes _reconstruct"),
        (glob("numpy.core.multiarray.scalar") + U1 + b"C\x02xx\x86R", "number is not described"),
        (glob("numpy.core.multiarray.scalar") + glob("numpy.dtype") + b"C\x01x\x86R", "number is not"),
        (glob("_codecs.encode") + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R", "encodes str as 'hex'"),
        (glob("_codecs.decode") + b")R", "_codecs.decode"),
        (glob("numpy.load") + b")R", "numpy.load"),
        (glob("numpy.core.multiarray.fromfile") + b")R", "fromfile"),
        (glob("numpy.core.multiarray._reconstruct") + b"))R", "damaged"),
        (b"r\xff\xff\xff\x7f", "place 2,147,483,647 of the memo"),  # 2**31 pointers would be written
        (b"p2000000000\n", "place 2,000,000,000 of the memo"),
        (b"\x95\xff\xff\xff\xff\xff\x00\x00\x00", "cut off"),
        (b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00", "cut off"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "damaged"),
        (b"T\xff\xff\xff\xff", "damaged"),
        (b"Pname\n", "PERSID"),
        (b"}", "EMPTY_DICT"),
        (b"\x82\x01", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (glob("numpy.ndarray") + b")\x81", "NEWOBJ"),
        (b"\xfe", "damaged, or no pickle"),
        (b"h\x09", "damaged"),
        (b"0000", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n", "damaged"),
    ],
)
def test_pickles_made_by_hand(tmp_path: Path, program: bytes, said: str) -> None:
    # As the one image of a pickle that is otherwise whole; 20 of them, so that a wrong number is no reason.
    said_so = refused(tmp_path / "a.bin", b"\x80\x04](" + program + b"e]\x86.")
    assert said in said_so or (said == "an empty array" and "odd" in said_so)


def test_no_memory_is_filled(tmp_path: Path) -> None:
    """A megabyte that is encoded, or copied, a thousand times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"\x94X\x06\x00\x00\x00latin1\x940"
    again = glob("_codecs.encode") + b"h\x00h\x01\x86R"
    assert "again and again" in refused(
        tmp_path / "a.bin", b"\x80\x04" + text + b"0](" + again * 1000 + b"e."
    )
    buffer = b"\x96" + struct.pack("<Q", 2**20) + b"a" * 2**20 + b"\x940"
    again = glob("numpy.core.numeric._frombuffer") + b"(h\x00" + U1 + b"J\x00\x00\x10\x00\x85tR"
    assert "again and again" in refused(
        tmp_path / "a.bin", b"\x80\x05" + buffer + b"](" + again * 1000 + b"e."
    )


def test_stand_ins_do_not_keep_anything(tmp_path: Path) -> None:
    """A pickle that tries to change what the next one sees."""
    images, same = pairs_of()
    for name in ("numpy.core.multiarray._reconstruct", "numpy.dtype", "_codecs.encode"):
        for state in (b"N", b")", b"NN\x86", b"N]\x86", b"K\x01"):
            refused(tmp_path / "a.bin", b"\x80\x04" + glob(name) + state + b"b.")
    write_pairs(tmp_path / "a.bin", images, same)
    assert read_pairs(tmp_path / "a.bin")[0] == images


@pytest.mark.parametrize("protocol", range(6))
def test_files_that_are_cut_off_or_changed(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.bin"
    images = [b"\xff\xd8" + bytes([i]) * 6 for i in range(4)]
    for form in (images, [np.frombuffer(image, np.uint8).copy() for image in images]):
        whole = pickle.dumps((form, [True, False]), protocol)
        for length in range(len(whole)):
            said = refused(path, whole[:length])
            assert "cut off" in said or length < 3 or "damaged" in said or protocol == 0, said
        rng = np.random.default_rng(protocol)
        for _ in range(200):
            changed = bytearray(whole)
            for place in rng.integers(0, len(whole), 2):
                changed[place] = rng.integers(0, 256)
            path.write_bytes(changed)
            try:
                read, truth = read_pairs(path)
            except ValueError as error:
                assert str(error).startswith(str(path))
            else:
                assert len(read) == 2 * len(truth)


def test_what_a_file_is_instead(tmp_path: Path, rec: Path) -> None:
    path = tmp_path / "a.bin"
    assert "is a .rec file; give it as --rec" in refused(path, rec.read_bytes())
    assert "is text (it starts with b'a.jpg b.jpg 1" in refused(path, b"a.jpg b.jpg 1\n" * 40)
    assert "is text" in refused(path, b"hello.")
    assert "Git LFS pointer" in refused(path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is empty" in refused(path, b"")
    assert "single JPEG" in refused(path, picture(1))
    assert "npz" in refused(path, b"PK\x03\x04rest")
    assert "not a .bin file" in refused(path, bytes(range(1, 30)))
    with pytest.raises(FileNotFoundError):
        read_pairs(tmp_path / "none.bin")
    for other, said in (
        ({"a": 1}, "EMPTY_DICT"),
        ([1, 2, 3], "a pickle of a list of 3; expected (images, same)"),
        (7, "a pickle of a 7"),
        ((b"ab", [True]), "the images are a bytes"),
        (([b"a", b"b"], None), "the truth values are a NoneType"),
        (np.zeros((2, 3), np.uint8), "a pickle of a array, u1 of shape (2, 3)"),
    ):
        assert said in refused(path, pickle.dumps(other, 2))


@pytest.mark.parametrize(
    ("images", "same", "said"),
    [
        ([b"a"] * 3, [True], "3 images are not pairs: their number is odd"),
        ([b"a"] * 4, [True], "4 images are 2 pairs, but there are 1 truth values"),
        ([b"a"] * 4, [True, 2], r"pair 1 \(counted from 0\): expected True or False, got 2"),
        ([b"a"] * 4, [True, 0.0], "pair 1 .* got 0.0"),
        ([b"a"] * 4, [True, "1"], "pair 1 .* got str"),
        ([b"a", b"a", b"a", "a"], [True] * 2, "pair 1 .*, second image, is str; expected an encoded image"),
        ([b"a", b"a", b"", b"a"], [True] * 2, r"pair 1 .*, first image, is nothing \(0 bytes\)"),
        ([b"a", np.zeros((4, 4), np.uint8)], [True], r"pair 0 .*, second image, is .*\(4, 4\)"),
        ([b"a", np.zeros(4, np.int32)], [True], "pair 0 .*, second image, is .*i"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path: Path, images: Any, same: Any, said: str) -> None:
    path = tmp_path / "a.bin"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps((images, same), protocol))
        # Protocol 2 writes b"" as a call of bytes, which no image needs.
        wanted = (
            "load __builtin__.bytes"
            if b"" in [i for i in images if type(i) is bytes] and protocol == 2
            else said
        )
        with pytest.raises(ValueError, match=wanted):
            read_pairs(path)
    path.unlink()
    with pytest.raises(ValueError, match=said):
        write_pairs(path, images, same)
    assert list(tmp_path.iterdir()) == []


def test_writing_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("pickle.dump", fail)
        with pytest.raises(OSError, match="No space"):
            write_pairs(path, [b"a", b"b"], [True])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_pairs(tmp_path / "none" / "a.bin", [b"a", b"b"], [True])
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_pairs(tmp_path, [b"a", b"b"], [True])


# Commands


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(verify_command, [str(argument) for argument in arguments])


def pack_pairs(*arguments: object) -> Result:
    return CliRunner().invoke(pack_command, [str(argument) for argument in arguments])


def test_verify_prints_a_table(rec: Path, tmp_path: Path) -> None:
    done = verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", "20", "--seed", "4")
    assert done.exit_code == 0, done.output
    found = verify_rec(rec, "pixels", pairs_per_kind=20, seed=4)
    assert found.auc is not None
    assert found.recall_at_1 is not None
    for said in (
        str(rec),
        "40: 20 genuine, 20 impostor",
        f"{found.accuracy:.3%}",
        f"{found.auc:.6f}",
        f"{found.tar[0.1]:.3%}",
        "20 impostor pairs are too few",
        f"{found.xnorm:.4f}",
        f"{found.recall_at_1:.3%} of 32 images",
    ):
        assert said in done.output
    without = verify("--rec", rec, "--model", "pixels", "--no-flip", "--no-recall", "--pairs-per-kind", "20")
    assert "not used" in without.output
    assert "recall" not in without.output
    np.save(tmp_path / "emb.npy", np.random.default_rng(0).standard_normal((32, 4)))
    before = verify("--rec", rec, "--model", f"npy:{tmp_path / 'emb.npy'}", "--pairs-per-kind", "20")
    assert before.exit_code == 0, before.output
    assert "the embeddings were computed before" in before.output


def test_verify_several_files_as_json(tmp_path: Path) -> None:
    images, same = pairs_of()
    paths = [tmp_path / "a.bin", tmp_path / "b.bin"]
    write_pairs(paths[0], images, same)
    write_pairs(paths[1], images, [True] * len(same))
    done = verify("--pairs", paths[0], "--pairs", paths[1], "--model", "pixels", "--json", "--threads", "1")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert "baseline" in result["model"]
    assert [one["file"] for one in result["results"]] == list(map(str, paths))
    for one, path in zip(result["results"], paths, strict=True):
        assert one == {"file": str(path)} | verify_pairs(path, "pixels").to_dict()
    assert result["results"][1]["auc"] is None
    table = verify("--pairs", paths[0], "--pairs", paths[1], "--model", "pixels")
    assert table.output.count("accuracy") == 2
    assert "undefined: all pairs are genuine" in table.output


def test_usage(rec: Path, tmp_path: Path) -> None:
    assert verify("--model", "pixels").exit_code == 2
    assert verify("--rec", rec).exit_code == 2
    assert verify("--rec", rec, "--pairs", rec, "--model", "pixels").exit_code == 2
    assert verify("--rec", rec, "--model", "nothing").exit_code == 2
    assert verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", "0").exit_code == 2
    assert "must end in .png or .svg" in verify("--rec", rec, "--model", "pixels", "--roc", "a.gif").output
    done = verify("--pairs", rec, "--model", "pixels")
    assert "is a .rec file; give it as --rec" in str(done.exception)
    assert pack_pairs(tmp_path / "a.bin").exit_code == 2
    assert pack_pairs(tmp_path / "a.rec", "--rec", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--list", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--folder", tmp_path).exit_code == 2


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fasttriplet.cli._verify import verify\nfrom fasttriplet.cli._pack_pairs import pack_pairs\n"
        "for command in (verify, pack_pairs): command.main(['--help'], standalone_mode=False)\n"
        "assert not {'numpy', 'polars', 'rich', 'mxnet', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_roc_needs_matplotlib(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = verify("--rec", rec, "--model", "pixels", "--roc", tmp_path / "roc.png")
    assert isinstance(done.exception, ImportError)
    assert "pip install 'fasttriplet[plot]'" in str(done.exception)
    assert not (tmp_path / "roc.png").exists()


class Figure:
    """Takes what matplotlib's would."""

    fails = False
    lines: list[tuple[Any, Any]]

    def __init__(self, **_: Any) -> None:
        type(self).lines = []

    def add_subplot(self) -> Figure:
        return self

    def plot(self, far: Any, tar: Any, **_: Any) -> None:
        self.lines.append((far, tar))

    def set(self, **_: Any) -> None:
        pass

    grid: Any = set
    legend: Any = set

    def savefig(self, path: Path, format: str, dpi: int) -> None:
        path.write_text(f"{format} {dpi}")
        if self.fails:
            raise OSError("disk full")


def no_grid(*_: Any, **__: Any) -> None:
    pass


def test_roc_is_written_whole(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "grid", no_grid)
    monkeypatch.setattr(verify_module, "_figure", lambda: Figure)
    out = tmp_path / "roc.SVG"
    arguments = ("--rec", rec, "--model", "pixels", "--pairs-per-kind", "20", "--roc", out)
    done = verify(*arguments)
    assert done.exit_code == 0, done.output
    assert out.read_text() == "svg 150"
    far, tar = verify_rec(rec, "pixels", pairs_per_kind=20).roc()
    assert np.array_equal(Figure.lines[0][0], far)
    assert np.array_equal(Figure.lines[0][1], tar)
    monkeypatch.setattr(Figure, "fails", True)
    out.write_text("old")
    assert isinstance(verify(*arguments).exception, OSError)
    assert out.read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    nowhere = verify("--rec", rec, "--model", "pixels", "--roc", tmp_path / "none" / "a.png")
    assert "there is no folder" in str(nowhere.exception)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the [plot] extra")
@pytest.mark.parametrize(("name", "start"), [("roc.png", b"\x89PNG"), ("roc.svg", b"<?xml")])
def test_roc_by_matplotlib(rec: Path, tmp_path: Path, name: str, start: bytes) -> None:
    done = verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", "20", "--roc", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_bytes().startswith(start)


def test_packed_pairs_are_those_of_verify_rec(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.bin"
    done = pack_pairs(out, "--rec", rec, "--pairs-per-kind", "20", "--seed", "4")
    assert done.exit_code == 0, done.output
    assert "40 pairs, 20 genuine and 20 impostor, 24 x 24" in done.output
    images, same = read_pairs(out)
    index = ft.index_rec(rec)
    drawn = draw_pairs(index, 20, 4)
    file = ft.RecordFile(rec)
    rows = np.stack([drawn.first, drawn.second], axis=1).ravel()
    assert images == [file.read(key)[1] for key in index["key"].to_numpy()[rows]]
    assert same.tolist() == drawn.same.tolist()
    of_file, of_rec = verify_pairs(out, "pixels"), verify_rec(rec, "pixels", pairs_per_kind=20, seed=4)
    assert np.array_equal(of_file.distances, of_rec.distances)
    assert "exists already; --overwrite replaces it" in str(pack_pairs(out, "--rec", rec).exception)
    assert pack_pairs(out, "--rec", rec, "--pairs-per-kind", "10", "--overwrite").exit_code == 0
    assert len(read_pairs(out)[1]) == 20
    shards = pack_pairs(
        tmp_path / "two.bin", "--rec", rec, "--rec", write_rec(tmp_path / "b.rec", identities(3, 2))
    )
    assert shards.exit_code == 0, shards.output


def test_pairs_of_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    (folder / "ann b").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(4)] + ["ann b/x.jpg"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    listing, out = folder / "pairs.txt", tmp_path / "a.bin"
    listing.write_text("# a comment\n0.jpg 1.jpg 1\n\n2.jpg\tann b/x.jpg\t0\n  3.jpg   0.jpg  0\n")
    done = pack_pairs(out, "--list", listing)
    assert done.exit_code == 0, done.output
    assert "3 pairs, 1 genuine and 2 impostor, 24 x 24" in done.output
    images, same = read_pairs(out)
    assert images == [picture(number) for number in (0, 1, 2, 4, 3, 0)]
    assert same.tolist() == [True, False, False]
    moved = tmp_path / "moved.txt"
    moved.write_bytes(listing.read_bytes())
    assert pack_pairs(out, "--list", moved, "--folder", folder, "--overwrite").exit_code == 0
    assert read_pairs(out)[0] == images
    out.unlink()
    (folder / "small.jpg").write_bytes(picture(1, 20))
    for text, said in (
        ("0.jpg 1.jpg 1\n0.jpg 1.jpg\n", "line 2: expected PATH PATH 1"),
        ("0.jpg 1.jpg 2\n", "line 1: expected PATH PATH 1"),
        ("ann b/x.jpg 1.jpg 1\n", "by tabs if a path has spaces"),
        ("0.jpg none.jpg 1\n", "line 1: .*none.jpg: No such file"),
        ("0.jpg 1.jpg 1\n0.jpg pairs.txt 1\n", "line 2: .*pairs.txt: not an image"),
        ("0.jpg 1.jpg 1\n0.jpg small.jpg 1\n", "line 2: .*small.jpg: the image is 20 x 20"),
        ("# nothing\n", "lists no pair"),
    ):
        listing.write_text(text)
        failed = pack_pairs(out, "--list", listing)
        assert isinstance(failed.exception, ValueError)
        with pytest.raises(ValueError, match=said):
            raise failed.exception
        assert not out.exists()
    listing.write_bytes(b"\xff\xfe\x00")
    assert "is no text file" in str(pack_pairs(out, "--list", listing).exception)


# Real faces


def test_a_trained_network_on_real_faces(real_data: Path) -> None:
    folder = real_data / "lfw112-a"
    embeddings, labels = unit(np.load(folder / "emb_a.npy")), np.load(folder / "lab_a.npy").ravel()
    first, second = np.triu_indices(len(labels), 1)
    dots = embeddings @ embeddings.T
    distances, same = (2 - 2 * dots[first, second]).clip(min=0), labels[first] == labels[second]
    found = verify_distances(distances, same)
    assert (found.genuine, found.impostors) == (63_682, 2_755_443)
    ranks = np.empty(len(distances))
    ranks[np.argsort(-distances)] = np.arange(1, len(distances) + 1)
    wins = ranks[same].sum() - found.genuine * (found.genuine + 1) / 2
    assert found.auc == pytest.approx(wins / (found.genuine * found.impostors), abs=1e-9)
    assert found.auc == pytest.approx(0.9974, abs=1e-4)
    # The share of genuine pairs above the quantile of impostors: the strict count and it meet to 1e-4 here.
    assert found.tar[1e-3] == pytest.approx(
        (distances[same] < np.quantile(distances[~same], 1e-3)).mean(), abs=1e-4
    )
    assert list(found.tar) == [0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6]
    # The published 0.998 and 0.979 are of pairs in which each identity counts alike.
    rng = np.random.default_rng(0)
    of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    balanced = np.array([rng.choice(of[who], 2, replace=False) for who in rng.integers(len(of), size=20_000)])
    others = rng.integers(len(labels), size=(60_000, 2))
    pairs = np.concatenate([balanced, others[labels[others[:, 0]] != labels[others[:, 1]]]])
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    alike = verify_distances((2 - 2 * dots[pairs[:, 0], pairs[:, 1]]).clip(min=0), same)
    assert alike.auc == pytest.approx(0.998, abs=1e-3)
    assert alike.tar[1e-3] == pytest.approx(0.979, abs=3e-3)
    drawn = verify_rec(folder / "train.rec", f"npy:{folder / 'emb_a.npy'}", threads=2)
    assert (drawn.pairs, drawn.flip) == (12_000, False)
    assert drawn.auc == pytest.approx(found.auc, abs=1e-3)
    assert drawn.tar[1e-3] == pytest.approx(found.tar[1e-3], abs=1e-2)
    assert drawn.accuracy > 0.985
    np.fill_diagonal(dots, -2)
    nearest = labels[dots.argmax(axis=1)] == labels
    assert drawn.recall_images == len(labels)
    assert drawn.recall_at_1 == nearest.mean()


@pytest.mark.mxnet
def test_a_network_sees_both_images(real_data: Path, mx: Any) -> None:  # noqa: ARG001  skips without MXNet
    path = real_data / "pairs" / "small_lfw.bin"
    network = ft.load_embedder(f"mxnet:{real_data / 'model-y1' / 'model'},0", batch_size=20, devices="cpu")
    found = verify_pairs(path, network)
    images = ft.decode_images(read_pairs(path)[0])
    rows = pl.DataFrame({"key": range(20)})
    raw = [
        network.embed(rows, np.ascontiguousarray(pixels)).astype(np.float64)
        for pixels in (images, images[:, :, ::-1])
    ]
    summed = unit(raw[0] + raw[1])
    assert np.allclose(found.distances, ((summed[::2] - summed[1::2]) ** 2).sum(axis=1), atol=1e-5)
    assert found.xnorm == pytest.approx(np.linalg.norm(np.concatenate(raw), axis=1).mean(), rel=1e-4)
    assert found.distances.max() < 1.5
