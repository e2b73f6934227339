"""Embeddings are computed once, kept, and used again for the dataset and the model that they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.auditing.pictures import SIDE, People, jpeg, plain, scene, write

WHO = {key: key // 4 for key in range(200)}


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """Forty pictures of ten people, one that cannot be decoded and one of another size."""
    images = plain(10, 4) | {50: (3, b"no image"), 51: (4, jpeg(scene(1, SIDE + 1)))}
    return write(tmp_path / "a.rec", images)


def run(rec: Path, out: Path, model: Any = None, **options: Any) -> ft.Audit:
    return ft.audit(rec, model=model or People(WHO), out=out, cache=False, threads=2, **options)


def test_they_are_those_of_the_model_in_key_order(rec: Path, tmp_path: Path) -> None:
    found = run(rec, tmp_path / "out")
    vectors = np.load(tmp_path / "out/embeddings.npy")
    rows = pl.DataFrame({"key": list(range(40))})
    expected = People(WHO, needs_images=False).embed(rows, None)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[:40], expected)
    assert np.isnan(vectors[40:]).all()
    assert vectors.shape == (42, 32)
    assert found.undecodable == 2
    bad = found.suspects.filter(pl.col("kind") == "bad-picture")
    assert bad["key"].to_list() == [50, 51]
    about = json.loads((tmp_path / "out/embeddings.json").read_text())
    assert (about["model"], about["images"], about["size"]) == ("people", 42, 32)
    assert about["dataset"] == ft.Dataset(rec, cache=False).fingerprint


def test_a_second_audit_uses_them_again(rec: Path, tmp_path: Path) -> None:
    first = run(rec, tmp_path / "out")
    model = People(WHO)
    again = run(rec, tmp_path / "out", model, overwrite=True)
    assert len(model.asked) <= 32  # a few, to compare
    assert (
        again.notes[0]
        == f"{tmp_path / 'out/embeddings.npy'} is of this dataset and model, and was used again"
    )
    assert again.suspects.equals(first.suspects)
    assert again.undecodable == 2


def test_those_of_another_model_are_refused_or_replaced(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "out")
    before = (tmp_path / "out/embeddings.npy").read_bytes()
    for name in ("suspects", "identities"):
        (tmp_path / f"out/{name}.parquet").unlink()
    others = (
        (People(WHO, seed=1), "it is of another model (people), or of the same one with other weights"),
        (People(WHO, size=16), "it is of another model (people)"),
    )
    for other, why in others:
        with pytest.raises(FileExistsError, match=r"embeddings\.npy") as refused:
            run(rec, tmp_path / "out", other)
        assert refused.value.strerror == f"{why}; overwrite=True replaces it, or give another folder"
        assert (tmp_path / "out/embeddings.npy").read_bytes() == before
        assert not (tmp_path / "out/suspects.parquet").exists()
    for other, why in others:
        found = run(rec, tmp_path / "out", other, overwrite=True)
        assert found.notes[0].endswith(f"was computed again: {why}")
        assert np.load(tmp_path / "out/embeddings.npy").shape == (42, other.size)
        run(rec, tmp_path / "out", overwrite=True)


def test_those_of_another_dataset_are_not_used(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "out")
    other = write(tmp_path / "b.rec", plain(11, 4))
    with pytest.raises(FileExistsError, match=r"suspects\.parquet"):
        run(other, tmp_path / "out")
    found = run(other, tmp_path / "out", overwrite=True)
    assert "it is of another dataset, or of one that has changed" in found.notes[0]
    assert len(np.load(tmp_path / "out/embeddings.npy")) == 44
    assert found.undecodable == 0  # nor is what was seen of it


@pytest.mark.parametrize(
    "damage", ["cut", "no side file", "nonsense", "a list", "no model", "other shape", "no shape", "empty"]
)
def test_a_damaged_file_is_named(rec: Path, tmp_path: Path, damage: str) -> None:
    run(rec, tmp_path / "out", kinds=["mislabelled"])
    vectors, about = tmp_path / "out/embeddings.npy", tmp_path / "out/embeddings.json"
    if damage == "cut":
        vectors.write_bytes(vectors.read_bytes()[:-1])
    elif damage == "no side file":
        about.unlink()
    elif damage == "nonsense":
        about.write_bytes(b"\xff{")
    elif damage == "a list":
        about.write_text("[]")
    elif damage == "no model":
        about.write_text(about.read_text().replace('"model"', '"mode"'))
    elif damage == "no shape":
        vectors.write_bytes(vectors.read_bytes().replace(b"(42, 32)", b"(42,-32)"))
    elif damage == "other shape":
        np.save(vectors, np.zeros((3, 32), np.float32))
    else:
        vectors.write_bytes(b"")
    found = run(rec, tmp_path / "out", overwrite=True, kinds=["mislabelled"])
    assert "an audit did not write it, or did not complete it" in found.notes[0]
    assert np.load(vectors).shape == (42, 32)


def test_only_what_is_missing_is_done(rec: Path, tmp_path: Path) -> None:
    """An audit without the kinds of pixels decodes nothing for embeddings that exist; the next one does."""
    np.save(
        tmp_path / "e.npy",
        People(WHO, needs_images=False).embed(pl.DataFrame({"key": list(range(42))}), None),
    )
    spec = f"npy:{tmp_path / 'e.npy'}"
    found = run(rec, tmp_path / "out", spec, kinds=["mislabelled", "outlier"])
    assert not (tmp_path / "out/pictures.parquet").exists()
    assert found.undecodable == 0
    told: list[tuple[str, int, int]] = []
    found = run(rec, tmp_path / "out", spec, overwrite=True, progress=lambda *now: told.append(now))
    assert [now[1:] for now in told if now[0] == "looking at pictures"] == [(0, 42), (42, 42)]
    assert "embedding" not in {now[0] for now in told}
    assert found.undecodable == 2
    told.clear()
    run(rec, tmp_path / "out", spec, overwrite=True, progress=lambda *now: told.append(now))
    assert "looking at pictures" not in {now[0] for now in told}


def test_its_own_file_can_be_the_model(rec: Path, tmp_path: Path) -> None:
    """Also with the rows of NaN of images that cannot be decoded, and into the same folder."""
    first = run(rec, tmp_path / "out")
    spec = f"npy:{tmp_path / 'out/embeddings.npy'}"
    for folder in ("other", "out"):
        again = run(rec, tmp_path / folder, spec, overwrite=True)
        assert again.suspects.equals(first.suspects)


def test_embeddings_that_do_not_fit(rec: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(42, 8)).astype(np.float32)
    np.save(tmp_path / "few.npy", vectors[:-1])
    with pytest.raises(ValueError, match=r"few\.npy has 41 rows but the index has 42 images"):
        run(rec, tmp_path / "out", f"npy:{tmp_path / 'few.npy'}")
    vectors[7] = np.nan
    np.save(tmp_path / "nan.npy", vectors)
    with pytest.raises(ValueError, match="the embedding of the image with key 7 holds NaN"):
        run(rec, tmp_path / "out", f"npy:{tmp_path / 'nan.npy'}")
    with pytest.raises(FileNotFoundError, match=r"missing\.npy"):
        run(rec, tmp_path / "out", f"npy:{tmp_path / 'missing.npy'}")
    assert not (tmp_path / "out").exists()


class Changing(People):
    """Gives longer vectors each time."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.size += 1
        return super().embed(rows, images)


def test_vectors_of_other_lengths_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttriplet.run._pass.PART", 8)
    rec = write(tmp_path / "a.rec", plain(5, 4))
    with pytest.raises(ValueError, match="people: vectors of 34 numbers, after some of 33"):
        run(rec, tmp_path / "out", Changing(WHO))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [1, 3, 8, 1024])
def test_parts_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Also those in which no image can be decoded, the first of them among these."""
    monkeypatch.setattr("fasttriplet.run._pass.PART", part)
    images = dict.fromkeys(range(5), (9, b"nothing"))
    images |= {key + 30: image for key, image in plain(5, 4).items()}
    run(write(tmp_path / "a.rec", images), tmp_path / "out", People({key: key // 4 for key in range(60)}))
    vectors = np.load(tmp_path / "out/embeddings.npy")
    assert np.isnan(vectors[:5]).all()
    expected = People(WHO, needs_images=False).embed(pl.DataFrame({"key": list(range(30, 50))}), None)
    assert np.array_equal(vectors[5:], expected)


def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    rec = write(tmp_path / "a.rec", {key: (key, b"nothing") for key in range(5)})
    with pytest.raises(ValueError, match=r"none of 5 images can be decoded; the first: .*key 0"):
        run(rec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
