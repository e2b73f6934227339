"""The audit from end to end: what wins, what it depends on, bad input, and what an interruption leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet._hidden import hidden_of
from fasttriplet.auditing._findings import IDENTITIES, KINDS, SCHEMA
from fasttriplet.auditing._options import PictureOptions
from fasttriplet.auditing._thresholds import LabelOptions
from fasttriplet.errors import OptionError
from tests.auditing.pictures import SIDE, People, jpeg, plain, scene, shifted, write
from tests.documented import defaults_differ
from tests.interrupted import disk_is_full
from tests.small_rec import Table
from tests.threads_asked import threads_asked

PEOPLE, IMAGES = 12, 6
WHO = {key: key // IMAGES for key in range(PEOPLE * IMAGES)}
FILES = ["embeddings.json", "embeddings.npy", "identities.parquet", "pictures.parquet", "suspects.parquet"]


def faulty() -> tuple[dict[int, tuple[int, bytes]], dict[int, int]]:
    """Images by key, and who is on them: some are copies, some have a wrong label, some are bad."""
    images, who = plain(PEOPLE, IMAGES), dict(WHO)
    images[7] = (4, images[7][1])  # of 1
    images[100], who[100] = (3, jpeg(shifted(scene(20), 1, 0), 70)), 3  # of 20, harmless
    images[101], who[101] = (5, jpeg(shifted(scene(21)[:, ::-1], 0, 1), 70)), 3  # of 21, harmful
    images[102], who[102] = (6, b"no image"), 6
    images[103], who[103] = (8, jpeg(np.full((SIDE, SIDE, 3), 50, np.uint8))), 2  # uniform, and not of 8
    return images, who


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("rec") / "a.rec", faulty()[0])


def run(rec: Any, out: Path, **options: Any) -> ft.Audit:
    given: dict[str, Any] = {"model": People(faulty()[1]), "out": out, "cache": False, "threads": 2} | options
    return ft.audit(rec, **given)


@pytest.fixture(scope="module")
def found(rec: Path, tmp_path_factory: pytest.TempPathFactory) -> ft.Audit:
    return run(rec, tmp_path_factory.mktemp("out"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def of(found: ft.Audit, kind: str) -> list[int]:
    return found.suspects.filter(pl.col("kind") == kind)["key"].to_list()


def test_an_image_has_one_cause(rec: Path, tmp_path: Path) -> None:
    """A bad picture is nothing else; a copy in another identity is no wrong label."""
    found = run(rec, tmp_path / "out")
    assert of(found, "mislabelled") == [7]
    assert sorted(of(found, "duplicate")) == [20, 101]  # of 20 and 100, that which fits worse
    assert sorted(of(found, "bad-picture")) == [102, 103]
    assert of(found, "outlier") == of(found, "same-person") == of(found, "two-people") == []
    rows = {row["key"]: row for row in found.suspects.rows(named=True)}
    assert (rows[7]["suggested_label"], rows[7]["action"]) == (1, "relabel")
    assert (rows[20]["action"], rows[20]["evidence_keys"]) == ("keep", [100])
    assert (rows[101]["action"], rows[101]["evidence_keys"]) == ("drop", [21])
    assert found.suspects.schema == SCHEMA
    assert found.suspects["finding"].to_list() == [0, 1, 2, 3, 4]
    # Without that kind it is a wrong label.
    kinds = [kind for kind in KINDS if kind != "duplicate"]
    without = run(rec, tmp_path / "out", kinds=kinds, overwrite=True)
    assert sorted(of(without, "mislabelled")) == [7, 101]
    assert of(without, "duplicate") == []
    assert without.kinds == tuple(kinds)


def test_the_files_say_what_was_found(rec: Path, tmp_path: Path) -> None:
    found = run(rec, tmp_path / "out")
    assert names(tmp_path / "out") == FILES
    for name, schema in (("suspects", SCHEMA), ("identities", IDENTITIES)):
        frame = pl.read_parquet(tmp_path / f"out/{name}.parquet")
        assert frame.equals(getattr(found, name))
        assert frame.schema == schema
        about = pl.read_parquet_metadata(tmp_path / f"out/{name}.parquet")["fasttriplet"]
        assert f'"dataset": "{ft.Dataset(rec, cache=False).fingerprint}"' in about
        assert '"copies_above": 0.8' in about
        assert str(rec) in about
    counts = found.counts()
    assert counts["duplicate"] == {"findings": 2, "images": 2, "relabel": 0, "drop": 1, "keep": 1}
    assert found.identities["findings"].sum() == 5
    plain_data = found.to_dict()
    assert plain_data["kinds"] == counts
    assert (plain_data["images"], plain_data["undecodable"]) == (76, 1)


def test_all_that_is_said_of_an_audit(rec: Path, tmp_path: Path) -> None:
    chosen: list[Any] = [KINDS, ["outlier"], ["mislabelled", "duplicate"], ["two-people", "bad-picture"]]
    of_labels = {"mislabelled": 2, "outlier": 1, "same-person": 1, "two-people": 1, "duplicate": 1}
    for kinds in chosen:
        found = run(rec, tmp_path / "out", kinds=kinds, overwrite=True, smallest_group=2)
        about = ft.read_metadata(tmp_path / "out/suspects.parquet")
        assert about == ft.read_metadata(tmp_path / "out/identities.parquet")
        options = about.pop("options")
        assert (options["smallest_group"], options["copies_above"], options["lead"]) == (2, 0.8, None)
        assert "cache" not in options
        assert about == {
            "kind": "suspects",
            "version": 1,
            "dataset": ft.Dataset(rec, cache=False).fingerprint,
            "files": [str(rec)],
            "model": "people",
            "kinds": [*kinds],
            "thresholds": found.thresholds,
            "decided_by": [[*one] for one in found.decided_by],
        }
        lines = dict(found.decided_by)
        with_pictures = "bad-picture" in kinds
        assert len(lines) == sum(of_labels.get(kind, 0) for kind in kinds) + 3 * with_pictures
        assert ("  and" in lines) == ("mislabelled" in kinds)
        assert ("dark" in lines) == ("brightness_below" in found.thresholds) == with_pictures
        assert ("duplicate" in lines) == ("copies_above" in found.thresholds) == ("duplicate" in kinds)
        if "outlier" in kinds:
            assert lines["outlier"] == (
                f"cosine with the own identity below {found.thresholds['own_below']:.3f}"
            )
        stages = {"index", "embed", "examine", "write", "total"} | (
            {"duplicates"} & {*(f"{k}s" for k in kinds)}
        )
        assert found.seconds.keys() == stages
        parts = sum(found.seconds.values()) - found.seconds["total"]
        assert all(seconds >= 0 for seconds in found.seconds.values())
        assert 0 < parts <= found.seconds["total"] < 60
        assert found.to_dict() == {
            "files": [str(rec)],
            "folder": str(tmp_path / "out"),
            "embedder": "people",
            "images": 76,
            "identities": PEOPLE,
            "undecodable": 1,
            "kinds": found.counts(),
            "thresholds": found.thresholds,
            "notes": found.notes,
            "seconds": found.seconds,
        }
        assert [*found.counts()] == [*kinds]


def test_identities_without_a_usable_image_are_listed(tmp_path: Path) -> None:
    images, who = faulty()
    images[200] = images[201] = (99, b"no image")
    who[200] = who[201] = 9
    rec = write(tmp_path / "a.rec", images)
    found = run(rec, tmp_path / "out", model=People(who))
    labels, counts = np.unique([label for label, _ in images.values()], return_counts=True)
    assert found.identities["label"].to_list() == labels.tolist()
    assert found.identities["images"].to_list() == counts.tolist()
    last = found.identities.row(-1, named=True)
    nothing = dict.fromkeys(("spread", "nearest_label", "nearest_distance"))
    assert last == {"label": 99, "images": 2, **nothing, "findings": 2}


def test_the_result_depends_on_neither_threads_nor_the_order_of_records(rec: Path, tmp_path: Path) -> None:
    images = list(faulty()[0].items())
    np.random.default_rng(0).shuffle(images)
    turned = write(tmp_path / "a.rec", dict(images))
    first = run(rec, tmp_path / "1", threads=1)
    for number, (path, threads) in enumerate(((rec, 2), (turned, 1)), start=2):
        found = run(path, tmp_path / str(number), threads=threads)
        assert found.suspects.equals(first.suspects)
        assert found.identities.equals(first.identities)
        assert found.thresholds == first.thresholds


def test_it_asks_for_as_many_threads_as_it_was_told(
    rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all steps; a second audit, with embeddings that are there, looks at pictures again."""
    asked = threads_asked(monkeypatch)
    run(rec, tmp_path / "out", threads=3)
    names = {"scan", "image_size", "decode_rows", "looks_of", "compare_pictures", "mine"}
    assert asked == {name: {3} for name in names}
    asked.clear()
    (tmp_path / "out/pictures.parquet").unlink()
    run(rec, tmp_path / "out", threads=3, overwrite=True)
    assert asked == {name: {3} for name in names}


def test_several_files(rec: Path, tmp_path: Path) -> None:
    """A copy of a picture in another file; keys repeat."""
    images = {key: (label + 20, content) for key, (label, content) in plain(2, 3).items()}
    other = write(
        tmp_path / "b.rec", {key: (label, jpeg(scene(500 + key))) for key, (label, _) in images.items()}
    )
    with_copy = {1: (20, jpeg(shifted(scene(30), 1, 1), 70)), 2: (20, jpeg(scene(600)))}
    third = write(tmp_path / "c.rec", with_copy)
    vectors = np.random.default_rng(0).normal(size=(76 + 6 + 2, 16)).astype(np.float32)
    np.save(tmp_path / "e.npy", vectors)
    found = run([rec, other, third], tmp_path / "out", model=f"npy:{tmp_path / 'e.npy'}", labels="shared")
    pairs = found.suspects.filter(pl.col("kind") == "duplicate").select(
        "file", "key", "evidence_files", "evidence_keys"
    )
    assert {(file, key, *files, *keys) for file, key, files, keys in pairs.rows()} & {
        (2, 1, 0, 30),
        (0, 30, 2, 1),
    }
    assert pl.read_parquet(tmp_path / "out/suspects.parquet")["file"].dtype == pl.UInt32
    assert found.files == [str(rec), str(other), str(third)]


def test_thresholds_can_be_given(rec: Path, tmp_path: Path) -> None:
    found = run(rec, tmp_path / "out", other_above=1.0, contrast_below=0.0, copies_above=0.99)
    assert of(found, "mislabelled") == []
    assert of(found, "duplicate") == []
    assert found.thresholds["other_above"] == 1.0
    assert found.thresholds["contrast_below"] == 0.0
    assert ("duplicate", "correlation of details at least 0.99") in found.decided_by


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": []}, "kinds must be a list of one or more of mislabelled"),
        ({"kinds": "outlier"}, "kinds must be a list"),
        ({"kinds": ["twins"]}, "each of kinds must be one of 'mislabelled', .*, not 'twins'"),
        ({"copies_above": 2}, "copies_above must be a number from 0 to 1"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"lead": "x"}, "lead must be a number"),
    ],
)
def test_wrong_options(rec: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(rec, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Bad input


def few(count: int, identities: int) -> tuple[dict[int, tuple[int, bytes]], People]:
    images = {key: (key * identities // count, jpeg(scene(key))) for key in range(count)}
    return images, People({key: label for key, (label, _) in images.items()})


@pytest.mark.parametrize(
    ("count", "identities", "note"),
    [
        (10, 3, "rough"),
        (12, 1, "of one identity"),
        (10, 10, "each of the 10 identities has one image"),
    ],
)
def test_small_datasets(tmp_path: Path, count: int, identities: int, note: str) -> None:
    images, model = few(count, identities)
    found = run(write(tmp_path / "a.rec", images), tmp_path / "out", model=model)
    assert note in " ".join(found.notes)
    assert found.suspects.is_empty()
    assert found.identities.height == identities


def test_one_image(tmp_path: Path) -> None:
    images, model = few(1, 1)
    found = run(write(tmp_path / "a.rec", images), tmp_path / "out", model=model)
    assert found.suspects.is_empty()
    assert "of one identity" in found.notes[0]


def test_all_embeddings_are_equal(tmp_path: Path) -> None:
    images, _ = few(20, 4)
    model = Table(np.ones((20, 8), np.float32))
    found = run(write(tmp_path / "a.rec", images), tmp_path / "out", model=model)
    assert "nearly equal" in " ".join(found.notes)
    assert found.suspects.is_empty()


@pytest.mark.parametrize("kind", KINDS)
def test_what_labels_cannot_show_is_said_where_they_are_looked_at(tmp_path: Path, kind: str) -> None:
    images, _ = few(20, 4)
    images[20] = (0, jpeg(scene(1), 70))
    model = Table(np.ones((21, 8), np.float32))  # of no use, and pixels alone need none
    found = run(write(tmp_path / "a.rec", images), tmp_path / "out", model=model, kinds=[kind])
    assert bool(found.notes) == (kind not in ("duplicate", "bad-picture"))
    assert found.suspects["kind"].to_list() == ["duplicate"] * (kind == "duplicate")


def test_identities_of_one_image(tmp_path: Path) -> None:
    """Many of them, in seconds."""
    content = jpeg(scene(1, 16))
    rec = write(tmp_path / "a.rec", {key: (key, content) for key in range(2_000)})
    model = Table(np.random.default_rng(0).normal(size=(2_000, 16)).astype(np.float32))
    found = run(
        rec, tmp_path / "out", model=model, kinds=["mislabelled", "outlier", "same-person", "two-people"]
    )
    assert "each of the 2,000 identities has one image" in found.notes[0]
    assert of(found, "mislabelled") == []


def test_no_model_and_no_dataset(rec: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.SpecError, match="unknown embedder 'nothing'"):
        run(rec, tmp_path / "out", model="nothing")
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "missing.rec", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is on the disk


def test_results_are_not_replaced_unless_asked(rec: Path, tmp_path: Path) -> None:
    run(rec, tmp_path / "out")
    for name in ("suspects.parquet", "identities.parquet"):
        before = {file: (tmp_path / "out" / file).read_bytes() for file in FILES}
        with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
            run(rec, tmp_path / "out")
        assert before == {file: (tmp_path / "out" / file).read_bytes() for file in FILES}
        (tmp_path / "out" / name).unlink()
        with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
            run(rec, tmp_path / "out")
        run(rec, tmp_path / "out", overwrite=True)


def test_the_folder_is_a_file_or_read_only(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        run(rec, tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/suspects.parquet").touch(0o444)
    with pytest.raises(PermissionError, match="read-only"):
        run(rec, tmp_path / "out", overwrite=True)


def test_what_a_killed_audit_was_writing_is_removed(rec: Path, tmp_path: Path) -> None:
    """Also where the files that it began to replace are used as they are."""
    run(rec, tmp_path / "out")
    for name in FILES:
        hidden = hidden_of(tmp_path / "out" / name)
        (hidden / "in").mkdir(parents=True)
        (hidden / "in" / name).write_bytes(b"half of it")
    run(rec, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == FILES


def test_two_audits_do_not_write_into_one_folder(rec: Path, tmp_path: Path) -> None:
    def beside(step: str, done: int, _: int) -> None:
        if step == "embedding" and done == 0:
            with pytest.raises(FileExistsError, match="another run is writing it"):
                run(rec, tmp_path / "out")

    run(rec, tmp_path / "out", progress=beside)
    assert names(tmp_path / "out") == FILES


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("fasttriplet.embedders._vectors.Writer.append", "embeddings.npy"),
        ("fasttriplet.auditing._embeddings.as_text", "embeddings.json"),
        ("polars.DataFrame.write_parquet", "pictures.parquet"),
    ],
)
def test_a_full_disk_names_the_file(
    rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    monkeypatch.setattr(call, disk_is_full)
    with pytest.raises(OSError, match="No space left on device") as error:
        run(rec, tmp_path / "out")
    assert error.value.filename == str(tmp_path / "out" / name)


STEPS = ("embedding", "dividing identities", "comparing images", "looking for copies", "comparing pictures")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", STEPS)
def test_an_interruption_leaves_nothing_half_written(
    rec: Path, found: ft.Audit, tmp_path: Path, step: str, error: BaseException | type[BaseException]
) -> None:
    def stop(now: str, done: int, _: int) -> None:
        if now == step and done:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        run(rec, tmp_path / "out", progress=stop)
    left = [] if step == "embedding" else ["embeddings.json", "embeddings.npy", "pictures.parquet"]
    assert names(tmp_path / "out") == left
    again = run(rec, tmp_path / "out")  # which needs no overwrite
    assert again.suspects.equals(found.suspects)
    assert bool(again.notes) == bool(left)


def test_defaults_are_those_of_the_docstrings() -> None:
    for call, count in ((ft.audit, 4), (ft.clean, 1), (LabelOptions, 1), (PictureOptions, 1)):
        assert defaults_differ(call) == (count, [])
