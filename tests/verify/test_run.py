"""Verification of embedders: on pairs of a file, and on pairs drawn from a dataset."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import draw_pairs, read_pairs, verify_distances, verify_pairs, verify_rec, write_pairs
from fasttriplet.embedders._pixels import PixelEmbedder
from fasttriplet.verify._examine import check_for_training
from tests.dataset.bombs import flat_png
from tests.documented import defaults_differ
from tests.small_rec import Table, identities, picture, write_rec


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


class Listens(PixelEmbedder):
    """Thumbnails, and the rows that came with the images."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[pl.DataFrame] = []

    def prepare(self, index: pl.DataFrame) -> None:
        self.prepared = index
        super().prepare(index)

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.rows.append(rows)
        return super().embed(rows, images)


def test_images_of_a_file_are_embedded_with_their_positions(
    tmp_path: Path, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasttriplet.verify._run.PART", 10)
    write_pairs(tmp_path / "a.bin", *pairs)
    told: list[tuple[int, int]] = []
    for flip in (True, False):
        told.clear()
        model = Listens()
        found = verify_pairs(tmp_path / "a.bin", model, flip=flip, progress=lambda *now: told.append(now))
        assert model.prepared.rows() == [(key, -1) for key in range(24)]
        times = 2 if flip else 1  # an image, and its mirror image
        expected = [[*range(start, min(start + 10, 24))] for start in (0, 10, 20) for _ in range(times)]
        assert [rows["key"].to_list() for rows in model.rows] == expected
        assert told == [(0, 24), (10, 24), (20, 24), (24, 24)]
        images = ft.decode_images(pairs[0])
        raw = model.embed(model.prepared, images)
        mirrored = model.embed(model.prepared, images[:, :, ::-1])
        rows = unit(raw.astype(np.float64) + mirrored if flip else raw)
        assert np.allclose(found.distances, ((rows[::2] - rows[1::2]) ** 2).sum(axis=1), rtol=0, atol=1e-14)
        assert found.xnorm == pytest.approx(np.linalg.norm([*raw, *mirrored] if flip else raw, axis=1).mean())
        assert (found.images, found.flip, found.pairs) == (24, flip, 12)
        assert found.ids is not None
        assert found.ids.tolist() == [[at, at + 1] for at in range(0, 24, 2)]


def test_wrong_options_are_named_before_anything_is_read(tmp_path: Path) -> None:
    wrong: list[tuple[str, Any]] = [
        ("pairs_per_kind", 0), ("folds", 1), ("seed", -1), ("threads", 0), ("max_pixels", 0), ("labels", 1),
        ("flip", "no"), ("recall", 0),
    ]  # fmt: skip
    for name, value in wrong:
        with pytest.raises(ft.OptionError, match=name):
            verify_rec(tmp_path / "none.rec", Bad(None), **{name: value})
        if name in ("folds", "threads", "max_pixels", "flip"):
            with pytest.raises(ft.OptionError, match=name):
                verify_pairs(tmp_path / "none.bin", "none", **{name: value})


def test_an_embedder_may_use_its_array_again(rec: Path) -> None:
    class Shades:
        description, needs_images = "shades", True

        def __init__(self, *, again: bool) -> None:
            self.found: Any = np.empty((1000, 3)) if again else None

        def prepare(self, index: pl.DataFrame) -> None:
            pass

        def embed(self, rows: pl.DataFrame, images: Any) -> Any:
            out = None if self.found is None else self.found[: rows.height]
            return np.mean(images[:, :, :9], axis=(1, 2), out=out)

    found, expected = (verify_rec(rec, Shades(again=again)) for again in (True, False))
    assert found == expected
    assert np.array_equal(found.distances, expected.distances)


def test_ties_are_misses(tmp_path: Path) -> None:
    many = write_rec(tmp_path / "b.rec", identities(4, 3) | {99: 9})
    same = np.ones((100, 3), dtype=np.float32)
    collapsed = verify_rec(many, Table(same), pairs_per_kind=20)
    assert (collapsed.recall_at_1, collapsed.recall_images, collapsed.auc) == (0.0, 12, 0.5)
    zeros = verify_rec(many, Table(np.zeros((100, 3), dtype=np.float32)), pairs_per_kind=20)
    assert (zeros.xnorm, zeros.recall_at_1) == (0.0, 0.0)


def test_the_nearest_is_that_of_unit_rows_rounded_once(tmp_path: Path) -> None:
    """Embeddings so near each other that dividing the rounded rows by their norms again gives others."""
    angles = 0.7 + np.random.default_rng(2).uniform(0, 1e-5, 121)
    rows: Any = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = {key: key % 5 for key in range(1, 121)}
    rounded = rows[1:].astype(np.float32)
    expected, count = plain_recall(rounded.astype(np.float64), [*labels.values()])
    assert (
        expected != plain_recall(unit(rounded).astype(np.float32).astype(np.float64), [*labels.values()])[0]
    )
    found = verify_rec(write_rec(tmp_path / "a.rec", labels), Table(rows))
    assert (found.recall_at_1, found.recall_images) == (expected, count)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (identities(1, 40), r"a\.rec: no impostor pair can be drawn"),
        ({1: 0}, r"a\.rec: no impostor pair can be drawn"),
        ({1: 0, 2: 1}, r"a\.rec: no genuine pair can be drawn, as each of the 2 identities has one image"),
    ],
)
def test_a_dataset_with_pairs_of_one_kind_is_refused(tmp_path: Path, labels: Any, said: str) -> None:
    rec = write_rec(tmp_path / "a.rec", labels)
    for recall in (True, False):
        with pytest.raises(ValueError, match=said):
            verify_rec(rec, Bad(None), folds=2, recall=recall)


def test_folds(rec: Path, tmp_path: Path) -> None:
    found = verify_rec(rec, "pixels", pairs_per_kind=4, folds=4)
    assert (found.pairs, found.folds, len(found.fold_accuracies)) == (8, 4, 4)
    assert found == replace(
        verify_distances(found.distances, found.same, 4),
        **{
            name: getattr(found, name) for name in ("images", "flip", "xnorm", "recall_at_1", "recall_images")
        },
    )
    write_pairs(tmp_path / "a.bin", [picture(i) for i in range(8)], [True, False] * 2)
    of_file = verify_pairs(tmp_path / "a.bin", "pixels", folds=2)
    assert (of_file.folds, len(of_file.fold_accuracies)) == (2, 2)
    wrong: Any
    for wrong in (1, True, 2.0):
        with pytest.raises(ValueError, match="folds must be a whole number >= 2"):
            verify_pairs(tmp_path / "a.bin", Bad(None), folds=wrong)
        with pytest.raises(ValueError, match="folds must be a whole number >= 2"):
            verify_rec(rec, Bad(None), folds=wrong)
    with pytest.raises(ValueError, match=r"^pairs_per_kind must be a whole number >= 1, not 0$"):
        verify_rec(rec, Bad(None), pairs_per_kind=0)


def test_what_a_training_can_be_verified_on(tmp_path: Path) -> None:
    path, images, same = tmp_path / "a.bin", [picture(i) for i in range(20)], [True, False] * 5
    write_pairs(path, images, same)
    check_for_training(path)
    check_for_training(path, (24, 24))
    for one, truth, size, said in (
        (images, same, (112, 112), r"its images are 24 x 24 \(H x W\), and those of the training 112 x 112"),
        (images[:18], same[:9], None, "holds 9 pairs, and a training is verified on at least 10"),
        (images, [True] * 10, None, "accuracy is undefined: all pairs are genuine"),
        (images, [True] + [False] * 9, None, "undefined: all genuine pairs are in fold 1"),
        ([*images[:-1], b"no"], same, (24, 24), r"pair 9 \(counted from 0\), second image, not an image"),
        (
            [*images[:-2], picture(1, 20), picture(2, 20)],
            same,
            (24, 24),
            r"pair 9 \(counted from 0\), first image, the image is 20 x 20 .* \(and 1 other image\)",
        ),
        ([b"no"] * 20, same, (24, 24), "pair 0 .* not an image"),
    ):
        write_pairs(path, one, truth, overwrite=True)
        with pytest.raises(ValueError, match=rf"a\.bin.*{said}"):
            check_for_training(path, size)


def test_images_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for sizes in ([(20, 24)] * 20, [*[(20, 24)] * 19, (24, 24)]):
        write_pairs(path, [flat_png(*size) for size in sizes], [True, False] * 5, overwrite=True)
        if sizes[-1] == (20, 24):
            assert check_for_training(path, (20, 24)) == 20
        with pytest.raises(ValueError, match=r"20 x 24 \(H x W\), and those of the training 24 x 20"):
            check_for_training(path, (24, 20))
    said = r"pair 9 \(counted from 0\), second image, the image is 24 x 24 pixels .*, not 20 x 24"
    with pytest.raises(ValueError, match=said):
        check_for_training(path, (20, 24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasttriplet.verify._examine.PART", 7)
        with pytest.raises(ValueError, match=said):
            check_for_training(path, (20, 24))


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
        with pytest.raises(ValueError, match=r"val\.rec: bad: expected a vector for each of 32 images"):
            verify_rec(rec, Bad(rows))
    rows = np.ones((32, 2), dtype=np.float32)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"val\.rec: .*key 5 holds NaN"):
        verify_rec(rec, Bad(rows))
    write_pairs(rec.parent / "a.bin", [picture(i) for i in range(4)], [True, False])
    with pytest.raises(ValueError, match=r"a\.bin: bad: expected a vector for each of 4 images"):
        verify_pairs(rec.parent / "a.bin", Bad(rows), folds=2)


def test_too_few_pairs_are_told_before_embedding(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", {1: 0, 2: 0, 3: 1})
    with pytest.raises(ValueError, match=r"a\.rec: 2 pairs are too few for 10 folds; .* folds=2"):
        verify_rec(rec, Bad(None))
    write_pairs(tmp_path / "a.bin", [picture(1)] * 8, [True] * 4)
    with pytest.raises(ValueError, match=r"a\.bin: 4 pairs are too few for 10 folds"):
        verify_pairs(tmp_path / "a.bin", Bad(None))


def test_a_real_file(real_data: Path) -> None:
    images, same = read_pairs(real_data / "pairs" / "small_lfw.bin")
    assert same.tolist() == [True] * 10
    assert ft.decode_images(images).shape == (20, 112, 112, 3)
    found = verify_pairs(real_data / "pairs" / "small_lfw.bin", "pixels")
    assert (found.pairs, found.impostors, found.accuracy, found.auc, found.tar) == (10, 0, None, None, {})
    assert (found.images, found.recall_at_1) == (20, None)


def test_images_of_one_pair_that_cannot_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: Any
) -> None:
    monkeypatch.setattr("fasttriplet.verify._run.PART", 4)
    images, same = pairs
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
            write_pairs(tmp_path / "a.bin", broken, same, overwrite=True)
            with pytest.raises(ValueError) as error:
                verify_pairs(tmp_path / "a.bin", "pixels")
            assert str(error.value).startswith(f"{tmp_path / 'a.bin'}: {name}")
            assert said in str(error.value)


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
    assert drawn.accuracy is not None
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


def test_defaults_are_those_of_the_docstrings() -> None:
    for call, count in (
        (verify_pairs, 3),
        (verify_rec, 2),
        (draw_pairs, 2),
        (verify_distances, 1),
        (write_pairs, 1),
    ):
        assert defaults_differ(call) == (count, [])
    by_name = {name: one.default for name, one in inspect.signature(verify_rec).parameters.items()}
    for call in (verify_pairs, draw_pairs):
        for name, one in inspect.signature(call).parameters.items():
            assert name in ("path", "index") or by_name[name] == one.default
