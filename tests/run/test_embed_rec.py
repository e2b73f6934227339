"""The embeddings of a dataset as a file: its rows, what is said beside it, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.run._unfinished import Unfinished
from tests.interrupted import names
from tests.run.leftovers import nothing_left
from tests.small_rec import Table, identities, random_table, write_rec

PART = "fasttriplet.run._pass.PART"


def directly(*recs: Path, model: str = "pixels") -> NDArray[np.float32]:
    """All images decoded and embedded in one go."""
    found = []
    for rec in recs:
        dataset, embedder = ft.Dataset(rec), ft.load_embedder(model)
        embedder.prepare(dataset.index)
        found.append(embedder.embed(dataset.index, dataset.decode(dataset.index).pixels))
    return np.concatenate(found)


def run(rec: Any, out: Path, **options: Any) -> ft.Embedded:
    given: dict[str, Any] = {"model": "pixels"} | options
    with nothing_left():
        return ft.embed_rec(rec, out=out, **given)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Thirty images with the keys 1 to 30, of which the first and others cannot be decoded."""
    return write_rec(tmp_path / "train.rec", identities(5, 6), damaged=frozenset({1, 2, 9, 30}))


@pytest.mark.parametrize("part", [1, 7, 72, 1024])
def test_rows_are_those_of_the_embedder_in_key_order(
    rec: Path, tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PART, part)
    done = run(rec, tmp_path / "new/e.npy")
    expected = directly(rec)
    stored = np.load(tmp_path / "new/e.npy", allow_pickle=False)
    assert stored.dtype == np.float32
    assert stored.flags.c_contiguous
    assert np.array_equal(stored, expected)
    np.save(tmp_path / "saved.npy", expected)
    assert (tmp_path / "new/e.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()
    assert names(tmp_path / "new") == ["e.npy", "e.npy.json"]
    assert (done.images, done.size, done.dtype, done.skipped, done.resumed_after) == (
        *expected.shape, "float32", [], 0,
    )  # fmt: skip
    assert done.bytes == (tmp_path / "new/e.npy").stat().st_size
    assert done.seconds.keys() == {"index", "decode", "embed", "write", "total"}
    assert min(done.seconds.values()) > 0
    assert json.loads(json.dumps(done.to_dict()))["images_per_second"]["decode"] > 0


def test_what_is_beside_it(rec: Path, tmp_path: Path) -> None:
    dataset = ft.Dataset(rec)
    run(dataset, tmp_path / "e.npy")
    about = json.loads((tmp_path / "e.npy.json").read_text())
    assert len(about.pop("rows")) == 16
    assert about == {
        "fasttriplet": "embeddings",
        "version": 1,
        "dataset": dataset.fingerprint,
        "files": [str(rec)],
        "max_pixels": 89_478_485,
        "model": ft.load_embedder("pixels").description,
        "images": 72,
        "size": 768,
        "dtype": "float32",
        "skipped": [],
    }


def test_several_files_and_an_embedder_without_images(tmp_path: Path) -> None:
    """The first file's rows come first, and nothing is decoded."""
    first = write_rec(tmp_path / "b.rec", identities(4, 3, 5), damaged=frozenset({5}))
    second = write_rec(tmp_path / "a.rec", identities(3, 2))
    table = random_table(20)
    seen: list[tuple[str, int, int]] = []
    progress = lambda *now: seen.append(now)  # noqa: E731
    done = run([first, second], tmp_path / "e.npy", labels="shared", model=table, progress=progress)
    assert np.array_equal(np.load(tmp_path / "e.npy"), table.rows[[*range(5, 17), *range(1, 7)]])
    assert seen == [("embedding", 0, 18), ("embedding", 18, 18)]
    assert done.skipped == []


def test_a_dataset_of_one_image(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "one.rec", {3: 7})
    table = random_table(20)
    run(rec, tmp_path / "e.npy", model=table)
    assert np.array_equal(np.load(tmp_path / "e.npy"), table.rows[[3]])
    assert table.prepared.equals(ft.index_rec(rec))


def test_nothing_is_written_before_there_is_a_file(tmp_path: Path) -> None:
    assert Unfinished(tmp_path / "e.npy").written() == 0


def test_images_that_are_skipped_are_listed(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"
    with pytest.raises(ft.RecordError, match="key 1") as refused:
        run(damaged, out)
    assert not hasattr(refused.value, "__notes__")
    assert names(tmp_path) == ["train.idx", "train.rec", "train.rec.index"]
    other = write_rec(tmp_path / "other.rec", identities(2, 2), damaged=frozenset({3}))
    done = run([damaged, other], out, labels="shared", on_error="skip")
    assert [one[:3] for one in done.skipped] == [(0, 1, 0), (1, 2, 0), (8, 9, 0), (29, 30, 0), (32, 3, 1)]
    stored = np.load(out)
    assert stored.shape == (34, 768)
    bad = [one.row for one in done.skipped]
    assert np.isnan(stored[bad]).all()
    assert np.isfinite(np.delete(stored, bad, axis=0)).all()
    about = json.loads((tmp_path / "e.npy.json").read_text())
    assert about["skipped"] == [one._asdict() for one in done.skipped]
    assert "no image" in about["skipped"][0]["reason"] or "JPEG" in about["skipped"][0]["reason"]


@pytest.mark.parametrize("part", [1, 3, 1024])
def test_parts_without_an_image(
    damaged: Path, tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PART, part)
    run(damaged, tmp_path / "e.npy", on_error="skip")
    dataset = ft.Dataset(damaged)
    kept = [key - 1 for key in range(1, 31) if key not in {1, 2, 9, 30}]
    expected = ft.load_embedder("pixels").embed(dataset.index[kept], dataset.decode(kept).pixels)
    assert np.array_equal(np.load(tmp_path / "e.npy")[kept], expected)


def test_no_image_can_be_embedded(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(2, 3), damaged=frozenset(range(1, 7)))
    with pytest.raises(ValueError, match=r"none of 6 images can be decoded; the first: .*key 1"):
        run(rec, tmp_path / "e.npy", on_error="skip")
    assert names(tmp_path) == ["train.idx", "train.rec", "train.rec.index"]


# float16


def test_float16(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "e.npy", dtype="float16")
    stored = np.load(tmp_path / "e.npy")
    assert stored.dtype == np.float16
    assert np.array_equal(stored, directly(rec).astype(np.float16))
    assert json.loads((tmp_path / "e.npy.json").read_text())["dtype"] == "float16"


def test_a_number_beyond_float16_names_the_image(rec: Path, tmp_path: Path) -> None:
    table = random_table(100)
    table.rows[41, 3] = -70_000
    expected = "a table: the embedding of the image with key 41 has -70000, and float16 holds"
    with pytest.raises(ValueError, match=expected):
        run(rec, tmp_path / "e.npy", model=table, dtype="float16")
    assert names(tmp_path) == []
    table.rows[41, 3] = 65_519  # which is rounded to 65,504
    run(rec, tmp_path / "e.npy", model=table, dtype="float16")


# As a model


def test_the_file_is_a_model(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "e.npy")
    spec = f"npy:{tmp_path / 'e.npy'}"
    triplets = ft.mine_rec(rec, model=spec, band="any").triplets.collect()
    assert triplets.equals(ft.mine_rec(rec, model="pixels", band="any").triplets.collect())


def test_labels_of_the_dataset_may_be_others(tmp_path: Path) -> None:
    """Labels that are shifted, or changed, are of the same images."""
    recs = [write_rec(tmp_path / f"{name}.rec", identities(count, 4)) for name, count in (("a", 3), ("b", 5))]
    table = random_table()
    run(recs, tmp_path / "e.npy", model=table, labels="shared")
    labels: Any
    for labels in ("shared", "separate"):
        embedder = ft.load_embedder(f"npy:{tmp_path / 'e.npy'}")
        index = ft.Dataset(recs, labels=labels).index
        embedder.prepare(index)
        assert np.array_equal(embedder.embed(index, None), table.embed(index, None))


def test_a_file_of_another_dataset_is_refused(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "e.npy")
    other = write_rec(tmp_path / "other.rec", {key: (key + 5) // 6 for key in range(1, 73)})
    expected = rf"e\.npy is of another dataset \({rec}\), or of one that has changed.*fasttriplet embed"
    with pytest.raises(ValueError, match=expected):
        ft.mine_rec(other, model=f"npy:{tmp_path / 'e.npy'}")
    (tmp_path / "e.npy.json").unlink()  # nobody knows
    ft.mine_rec(other, model=f"npy:{tmp_path / 'e.npy'}", band="any")


def test_a_file_that_was_replaced_is_noticed(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", np.zeros((72, 5), np.float32))
    with pytest.raises(ValueError, match=r"has 72 rows of 5 float32, and .*e\.npy\.json is about 72 of 768"):
        ft.mine_rec(rec, model=f"npy:{tmp_path / 'e.npy'}")


def test_a_skipped_image_says_why(damaged: Path, tmp_path: Path) -> None:
    done = run(damaged, tmp_path / "e.npy", on_error="skip")
    embedder, index = ft.load_embedder(f"npy:{tmp_path / 'e.npy'}"), ft.Dataset(damaged).index
    embedder.prepare(index)
    assert np.isfinite(embedder.embed(index[[2, 3]], None)).all()
    with pytest.raises(
        ValueError, match="no embedding of the image with key 9, which was skipped when"
    ) as why:
        embedder.embed(index[[3, 8, 1]], None)
    assert str(why.value).endswith(done.skipped[2].reason)


# What is refused


class Growing(Table):
    """Gives longer vectors each time."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.rows = np.pad(self.rows, ((0, 0), (0, 1)))
        return super().embed(rows, images)


def test_models_that_give_nonsense(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PART, 60)
    with pytest.raises(ValueError, match="a table: vectors of 18 numbers, after some of 17") as stopped:
        run(rec, tmp_path / "e.npy", model=Growing(random_table().rows))
    note = f"60 of 72 images are kept in {tmp_path / 'e.npy.unfinished'}; resume=True continues"
    assert stopped.value.__notes__ == [note]
    table = random_table()
    table.rows[7] = np.nan
    with pytest.raises(ValueError, match="image with key 7 holds NaN"):
        run(rec, tmp_path / "f.npy", model=table)
    assert names(tmp_path) == ["e.npy.unfinished"]


def test_what_is_refused_at_once(rec: Path, tmp_path: Path) -> None:
    table: Any = random_table()
    np.save(tmp_path / "e.npy", table.rows)
    stored = PrecomputedEmbedder(tmp_path / "e.npy")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": f"npy:{tmp_path / 'e.npy'}"}, "model must compute embeddings; those of 'npy:"),
        ({"model": stored}, r"model must compute embeddings; those of 'npy:.*e\.npy' are in a file"),
        ({"out": tmp_path / "e.parquet"}, "out must end in .npy"),
        ({"dtype": "float64"}, "dtype must be one of 'float32', 'float16', not 'float64'"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"threads": 0}, "threads must be"),
        ({"resume": True, "overwrite": True}, "resume does not go with overwrite=True"),
        ({"resume": 1}, "resume must be True or False"),
    ]
    for options, message in wrong:
        given: dict[str, Any] = {"model": table, "out": tmp_path / "new.npy"} | options
        with pytest.raises(ft.OptionError, match=message):
            ft.embed_rec(rec, **given)
    with pytest.raises(ft.OptionError, match="out must be another file than the dataset"):
        odd = write_rec(tmp_path / "odd.rec", identities(2, 2)).rename(tmp_path / "odd.npy")
        ft.embed_rec(odd, model=table, out=odd, overwrite=True)
    with pytest.raises(TypeError, match=r"embed_rec\(\) has no option 'dtyp'; did you mean 'dtype'\?"):
        ft.embed_rec(rec, model=table, out=tmp_path / "new.npy", dtyp="float16")  # type: ignore[call-arg]
    assert not (tmp_path / "new.npy").exists()


@pytest.mark.parametrize("name", ["e.npy", "e.npy.json"])
def test_files_that_are_there(rec: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        # Before a model is looked for: that may take minutes.
        with pytest.raises(FileExistsError, match=rf"{name}"):
            run(rec, tmp_path / "e.npy", resume=resume, model="onnx:none.onnx")
    assert (tmp_path / name).read_text() == "mine"
    run(rec, tmp_path / "e.npy", overwrite=True)
    assert np.array_equal(np.load(tmp_path / "e.npy"), directly(rec))
    assert names(tmp_path) == ["e.npy", "e.npy.json"]


def test_a_link_is_followed(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "e.npy").symlink_to("disk/far.npy")
    run(rec, tmp_path / "e.npy")
    assert (tmp_path / "e.npy").is_symlink()
    assert names(tmp_path / "disk") == ["far.npy"]
    assert names(tmp_path) == ["disk", "e.npy", "e.npy.json"]


def test_two_runs_at_once(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PART, 8)

    def beside(_: str, done: int, __: int) -> None:
        if done:
            for options in ({"overwrite": True}, {"resume": True}):
                with pytest.raises(FileExistsError, match="another run is writing it"):
                    ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", **options)  # type: ignore[arg-type]

    run(rec, tmp_path / "e.npy", progress=beside)
    assert np.array_equal(np.load(tmp_path / "e.npy"), directly(rec))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to all folders")
def test_a_folder_that_is_read_only(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="closed"):
        run(rec, tmp_path / "closed/e.npy")
