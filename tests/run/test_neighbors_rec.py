"""The nearest identities, or images, of a dataset as a file: its rows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.dataset._options import ExcludeOptions
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.run import _neighbors_rec
from fasttriplet.run._neighbors_rec import NeighborsOfRec, check_neighbors_rec, neighbors_rec
from tests.run.leftovers import besides_datasets, nothing_left
from tests.small_rec import Table, identities, random_table, write_rec

# Keys by file: what cannot be decoded, and what is left out whether it can be or not.
DAMAGED = {0: {1, 9}, 1: {12}}
EXCLUDED = {0: {2, 9}, 1: {3, 11}}


def run(rec: Path | tuple[Path, ...], out: Path, **how: Any) -> NeighborsOfRec:
    given: dict[str, Any] = {
        "model": ft.load_embedder("pixels"), "k": 3, "of": "identities", "metric": "sqeuclidean",
        "normalize": True, "on_error": "raise", "threads": 1, "overwrite": False,
        "progress": lambda *_: None, "options": ExcludeOptions(cache=False),
    }  # fmt: skip
    with nothing_left():
        return neighbors_rec(rec if isinstance(rec, tuple) else (rec,), out=out, **given | how)


def files(folder: Path, count: int, damaged: dict[int, set[int]]) -> tuple[Path, ...]:
    """One file or two, of 6 identities of 3 images and of 4 of 3; the keys of both begin with 1."""
    folder.mkdir(exist_ok=True)
    return tuple(
        write_rec(folder / f"train-{file}.rec", identities(people, 3), frozenset(damaged.get(file, ())))
        for file, people in enumerate((6, 4)[:count])
    )


def expected(recs: tuple[Path, ...], gone: dict[int, set[int]], k: int, of: Any, **how: Any) -> pl.DataFrame:
    """What `neighbors` gives for all images but some, which are none of these files' damaged ones."""
    dataset, model = ft.Dataset(recs, labels="separate", cache=False), ft.load_embedder("pixels")
    kept = [
        row
        for row, (file, key) in enumerate(zip(dataset.files, dataset.keys, strict=True))
        if key not in gone.get(file, ())
    ]
    model.prepare(dataset.index)
    vectors = model.embed(dataset.index[kept], dataset.decode(kept).pixels)
    frame = ft.neighbors(vectors, dataset.labels[kept], k, of=of, **how).to_frame()
    if of == "identities":
        return frame
    columns = ["key", "file"][: len(recs)]
    images = dataset.index[kept].select(columns)
    row, neighbor = (images[frame[name].to_numpy()] for name in ("row", "neighbor"))
    return pl.concat(
        [
            row,
            neighbor.rename({name: f"neighbor_{name}" for name in columns}),
            frame.select("label", "neighbor_label", "rank", "distance"),
        ],
        how="horizontal",
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("of", ["identities", "rows"])
@pytest.mark.parametrize("ready", [False, True], ids=["embedded", "read"])
def test_it_is_what_neighbors_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, of: str, *, ready: bool
) -> None:
    """Images that are damaged or excluded are not there; from a network, or from a file of embeddings."""
    monkeypatch.setattr("fasttriplet.run._pass.PART", 4)
    monkeypatch.setattr(_neighbors_rec, "_READ", 5)
    recs = files(tmp_path / "data", count, DAMAGED)
    table = pl.DataFrame(
        [(key, file) for file in range(count) for key in EXCLUDED[file]], ["key", "file"], orient="row"
    )
    how: dict[str, Any] = {"k": 2, "of": of, "metric": "euclidean", "normalize": False, "on_error": "skip"}
    told: list[tuple[str, int, int]] = []
    reserved: dict[str, int] = {}
    monkeypatch.setattr("fasttriplet._core.probe_memory", lambda size, what: reserved.update({what: size}))
    options = ExcludeOptions(labels="separate", cache=False, exclude=table)
    more: dict[str, Any] = {"options": options, "progress": lambda *now: told.append(now)}
    if ready:
        ft.embed_rec(
            recs, model="pixels", out=tmp_path / "e.npy", on_error="skip", labels="separate", cache=False
        )
        more["model"] = PrecomputedEmbedder(tmp_path / "e.npy")
    done = run(recs, tmp_path / "g.parquet", **how, **more)

    gone = {file: DAMAGED[file] | EXCLUDED[file] for file in range(count)}
    whole = files(tmp_path / "whole", count, {})
    del how["on_error"]
    table = pl.read_parquet(tmp_path / "g.parquet")
    assert table.equals(expected(whole, gone, **how))
    dataset = ft.Dataset(recs, labels="separate", cache=False)
    left, in_all = (15, 18) if count == 1 else (15 + 9, 30)
    model = more.get("model", ft.load_embedder("pixels")).description
    assert (done.out, done.files, done.embedder, done.of) == (
        tmp_path / "g.parquet", list(map(str, recs)), model, of,
    )  # fmt: skip
    assert (done.images, done.identities, done.neighbors) == (left, 6 if count == 1 else 10, table.height)
    assert done.images_excluded == 2 * count
    # Not those that are excluded, too.
    assert [one[:3] for one in done.skipped] == [(0, 1, 0), (29, 12, 1)][:count]
    room = left if ready else in_all - 2 * count  # before it is known how many can be decoded
    assert reserved[f"embeddings of {room} images"] == 4 * room * 768
    if ready:
        assert told[:-1] == [("reading embeddings", min(at + 5, left), left) for at in range(0, left, 5)]
    else:
        assert told[:-1] == [("embedding", at, in_all) for at in (*range(0, in_all, 4), in_all)]
    assert told[-1] == ("searching", 0, 0)
    about = ft.read_metadata(tmp_path / "g.parquet")
    assert about.pop("exclude")
    assert about == {
        "kind": "neighbors",
        "version": ft.__version__,
        "dataset": dataset.fingerprint,
        "files": [rec.name for rec in recs],
        "model": model,
        "options": {"of": of, "k": 2, "metric": "euclidean", "normalize": False},
    }
    plain = json.loads(json.dumps(done.to_dict()))
    assert (plain["out"], plain["skipped"][0]["key"], plain["of"]) == (str(done.out), 1, of)
    stages = {"index", "embed", "search", "write"} | (set() if ready else {"decode"})
    assert done.seconds.keys() == stages | {"total"}
    assert all(0 < seconds < 60 for seconds in done.seconds.values())
    assert sum(done.seconds[name] for name in ("index", "search", "write")) < done.seconds["total"]
    if ready:  # stages follow each other
        assert sum(done.seconds[name] for name in stages) == pytest.approx(done.seconds["total"], abs=2)


def test_nothing_is_left_to_compare(tmp_path: Path) -> None:
    """What can be decoded is excluded, and what is not excluded cannot be decoded."""
    rec = write_rec(tmp_path / "train.rec", identities(2, 3), frozenset({5}))
    how: dict[str, Any] = {"options": ExcludeOptions(cache=False, exclude=[1, 2, 3, 4, 6])}
    with pytest.raises(ValueError, match="none of 1 image can be embedded"):
        run(rec, tmp_path / "g.parquet", on_error="skip", **how)
    with pytest.raises(ft.RecordError, match="key 5"):
        run(rec, tmp_path / "g.parquet", **how)
    ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", on_error="skip", cache=False)
    how["model"] = PrecomputedEmbedder(tmp_path / "e.npy")
    with pytest.raises(ValueError, match="key 5 of file 0, which was skipped when the file was made"):
        run(rec, tmp_path / "g.parquet", **how)
    assert sorted(besides_datasets(tmp_path)) == ["e.npy", "e.npy.json"]


class Growing(Table):
    """Gives longer vectors each time."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.rows = np.pad(self.rows, ((0, 0), (0, 1)))
        return super().embed(rows, images)


def test_vectors_of_other_lengths(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttriplet.run._pass.PART", 40)
    with pytest.raises(ValueError, match="a table: vectors of 18 numbers, after some of 17"):
        run(rec, tmp_path / "g.parquet", model=Growing(random_table().rows))
    assert besides_datasets(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"k": 0}, ft.OptionError, "k must be a whole number >= 1, not 0"),
        ({"of": "people"}, ft.OptionError, "of must be one of 'rows', 'identities', not 'people'"),
        (
            {"metric": "cosine", "normalize": False},
            ft.OptionError,
            "metric 'cosine' compares .*normalize=True",
        ),
        ({"out": "old.parquet"}, FileExistsError, "exists already; overwrite=True replaces it"),
        ({"out": "train.rec"}, ft.OptionError, "out must be another file than the dataset"),
        (
            {"out": "x.parquet", "options": "x.parquet"},
            ft.OptionError,
            "out must be another file than the table of excluded images",
        ),
        (
            {"out": "e.npy", "model": "npy:e.npy"},
            ft.OptionError,
            "out must be another file than the embeddings",
        ),
    ],
)
def test_what_is_refused_before_anything_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], error: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rec = write_rec(Path("train.rec"), identities(4, 3))
    Path("old.parquet").write_text("mine")
    pl.DataFrame({"key": [1]}).write_parquet("x.parquet")
    np.save("e.npy", random_table(12).rows)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    model: Any = random_table()
    model.embed = pytest.fail
    how = {"model": model, "out": "g.parquet"} | how
    if isinstance(how["model"], str):
        how |= {"model": ft.load_embedder(how["model"]), "overwrite": True}
    if "options" in how:
        how |= {"options": ExcludeOptions(cache=False, exclude=how["options"]), "overwrite": True}
    out = Path(how.pop("out"))
    with pytest.raises(error, match=message):
        run(rec, out, **how)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_file_is_replaced_if_asked_to(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.parquet"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        check_neighbors_rec((rec,), out, ExcludeOptions(), k=1, of="rows", overwrite=False)
    done = run(rec, out, model=random_table(), overwrite=True, of="rows", k=1)
    assert done.neighbors == pl.read_parquet(out).height == 72
