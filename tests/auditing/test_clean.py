"""`clean`: which images are left, under which labels and keys, and what is refused."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.auditing import _clean
from tests.auditing.findings import suspects, write_decisions, write_suspects
from tests.dataset.pictures import people, save
from tests.small_rec import identities, picture, write_rec


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """6 identities of 3 images, keys 1 to 18."""
    return write_rec(tmp_path / "a.rec", identities(6, 3))


def images_of(rec: Path) -> list[tuple[int, bytes]]:
    """The label and the bytes of each image of a file, in the order of their keys."""
    file = ft.RecordFile(rec)
    return [(label, file.read(key)[1]) for key, label in ft.index_rec(rec).select("key", "label").iter_rows()]


def of(key: int, label: int) -> bytes:
    return picture(1000 * label + key)


def left(changes: Path) -> dict[int, int]:
    """The new label of each image that is left, by its old key."""
    table = pl.read_parquet(changes).drop_nulls("new_label")
    return dict(table.select("key", "new_label").iter_rows())


def test_what_becomes_of_images_and_identities(rec: Path, tmp_path: Path) -> None:
    table = tmp_path / "suspects.parquet"
    calls: list[tuple[int, int]] = []
    write_suspects(
        table,
        rec,
        {"kind": "mislabelled", "key": 1, "action": "relabel", "suggested_label": 3},
        {"kind": "outlier", "key": 5},
        *({"finding": 2, "kind": "same-person", "key": key, "action": "relabel", "suggested_label": 0}
          for key in (7, 8, 9)),
        *({"finding": 3, "kind": "two-people", "key": key, "action": "relabel", "suggested_label": 6}
          for key in (13, 14)),
        {"finding": 4, "kind": "duplicate", "key": 18},
        {"finding": 5, "kind": "bad-picture", "key": 16},
        {"finding": 6, "kind": "bad-picture", "key": 17},
        {"finding": 7, "kind": "duplicate", "key": 2, "action": "keep"},
    )  # fmt: skip
    done = ft.clean(rec, suspects=table, out=tmp_path / "b.rec", progress=lambda *now: calls.append(now))
    assert done == ft.Cleaned(
        path=tmp_path / "b.rec",
        changes=tmp_path / "b.changes.parquet",
        images=14,
        identities=5,
        dropped=4,
        relabelled=6,
        identities_gone=2,  # 2, which is 0, and 5, of which no image is left
        identities_new=1,
        property=tmp_path / "property",
        notes=(),
        bytes=(tmp_path / "b.rec").stat().st_size,
        seconds=done.seconds,
    )
    assert calls == [(14, 14)]
    assert images_of(done.path) == [
        *((0, of(key, label)) for key, label in ((2, 0), (3, 0), (7, 2), (8, 2), (9, 2))),
        *((1, of(key, 1)) for key in (4, 6)),
        *((2, of(key, label)) for key, label in ((1, 0), (10, 3), (11, 3), (12, 3))),
        (3, of(15, 4)),
        *((4, of(key, 4)) for key in (13, 14)),
    ]
    assert ft.inspect_rec(done.path).layout == "insightface"
    assert (tmp_path / "property").read_text() == "5,24,24\n"
    changes = pl.read_parquet(done.changes)
    assert dict(changes.schema) == {
        "key": pl.Int64, "file": pl.UInt32, "label": pl.Int64, "new_label": pl.Int64, "new_key": pl.Int64,
        "action": pl.String, "kind": pl.String, "finding": pl.Int64, "reason": pl.String,
    }  # fmt: skip
    assert changes["key"].to_list() == [*range(1, 19)]
    kept = changes.filter(pl.col("action") == "keep")
    assert kept["kind"].null_count() == kept.height == 8
    assert changes.filter(pl.col("action") != "keep").drop("file", "reason").rows() == [
        (1, 0, 2, 8, "relabel", "mislabelled", 0),
        (5, 1, None, None, "drop", "outlier", 1),
        (7, 2, 0, 3, "relabel", "same-person", 2),
        (8, 2, 0, 4, "relabel", "same-person", 2),
        (9, 2, 0, 5, "relabel", "same-person", 2),
        (13, 4, 4, 13, "relabel", "two-people", 3),
        (14, 4, 4, 14, "relabel", "two-people", 3),
        (16, 5, None, None, "drop", "bad-picture", 5),
        (17, 5, None, None, "drop", "bad-picture", 6),
        (18, 5, None, None, "drop", "duplicate", 4),
    ]
    file = ft.RecordFile(done.path)
    for key, label, new_label, new_key in changes.select("key", "label", "new_label", "new_key").iter_rows():
        if new_key is not None:
            header, content = file.read(new_key)
            assert (header.label, header.id, content) == (new_label, new_key, of(key, label))
    about = ft.read_metadata(done.changes)
    assert (about["kind"], about["dataset"]) == ("changes", ft.Dataset(rec).fingerprint)
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem == "b") == ["b.idx", "b.rec"]


def test_it_tells_how_far_it_is(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clean, "_TELL_EVERY", 5)
    table = write_suspects(tmp_path / "s.parquet", rec, {"kind": "outlier", "key": 4})
    calls: list[tuple[int, int]] = []
    ft.clean(rec, suspects=table, out=tmp_path / "b.rec", progress=lambda *now: calls.append(now))
    assert calls == [(5, 17), (10, 17), (15, 17), (17, 17)]


def test_nothing_found_changes_nothing(rec: Path, tmp_path: Path) -> None:
    table = tmp_path / "suspects.parquet"
    write_suspects(table, rec, {"kind": "outlier", "key": 1}, {"kind": "duplicate", "key": 4})
    once = ft.clean(rec, suspects=table, out=tmp_path / "b.rec")
    # What is left is found to be sound, or as an audit lists it: to be kept.
    for rows in ((), ({"kind": "duplicate", "key": 7, "action": "keep"},)):
        write_suspects(table, once.path, *rows)
        again = ft.clean(once.path, suspects=table, out=tmp_path / "c.rec", overwrite=True)
        assert (again.dropped, again.relabelled) == (0, 0)
        for ending in (".rec", ".idx"):
            assert again.path.with_suffix(ending).read_bytes() == once.path.with_suffix(ending).read_bytes()
        changes = pl.read_parquet(again.changes)
        assert changes["key"].equals(changes["new_key"], check_names=False)
        assert changes["label"].equals(changes["new_label"], check_names=False)
    assert again.notes, "two files of a folder, of which property describes one"


def mislabelled(key: int, to: int) -> dict[str, Any]:
    return {"kind": "mislabelled", "key": key, "action": "relabel", "suggested_label": to}


def same(key: int, to: int) -> dict[str, Any]:
    return {"kind": "same-person", "key": key, "action": "relabel", "suggested_label": to}


def split(key: int, to: int) -> dict[str, Any]:
    return {"kind": "two-people", "key": key, "action": "relabel", "suggested_label": to}


SOUND = dict(identities(6, 3))
CONFLICTS: dict[str, tuple[list[dict[str, Any]], dict[int, int | None]]] = {
    "to drop wins": ([mislabelled(1, 3), {"kind": "outlier", "key": 1}], {1: None}),
    "to drop wins over a merge": ([same(1, 3), {"kind": "bad-picture", "key": 1}], {1: None, 2: 3, 3: 3}),
    "the first label wins": ([mislabelled(1, 3), mislabelled(1, 4)], {1: 3}),
    "a moved image follows its new identity": ([mislabelled(1, 3), same(10, 5)], {1: 5, 10: 5, 11: 5, 12: 5}),
    "a moved image leaves what is merged": ([mislabelled(1, 3), same(1, 5), same(2, 5)], {1: 3, 2: 5, 3: 5}),
    "moved and merged back": ([mislabelled(1, 3), same(10, 0)], {10: 0, 11: 0, 12: 0}),
    "a part leaves before a merge": ([same(1, 3), split(2, 6)], {1: 3, 2: 6, 3: 3}),
    "merges follow each other": ([same(1, 1), same(4, 2)], dict.fromkeys(range(1, 7), 2)),
    "merges the other way round": ([same(4, 2), same(1, 1)], dict.fromkeys(range(1, 7), 2)),
    "one with two": ([same(1, 1), same(1, 2)], dict.fromkeys(range(1, 7), 2)),
    "in a circle": ([same(1, 1), same(4, 0)], dict.fromkeys(range(1, 4), 1)),
    "to its own label": ([mislabelled(1, 0)], {}),
    "kept": ([{"kind": "duplicate", "key": 1, "action": "keep"}, mislabelled(2, 3)], {2: 3}),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_several_findings_about_one_image(rec: Path, tmp_path: Path, case: str) -> None:
    rows, changed = CONFLICTS[case]
    expected = {key: label for key, label in (SOUND | changed).items() if label is not None}
    numbers = {label: number for number, label in enumerate(sorted({*expected.values()}))}
    table = write_suspects(tmp_path / "suspects.parquet", rec, *rows)
    done = ft.clean(rec, suspects=table.sample(fraction=1, shuffle=True, seed=0), out=tmp_path / "b.rec")
    assert left(done.changes) == {key: numbers[label] for key, label in expected.items()}
    changes = pl.read_parquet(done.changes)
    assert {*changes.filter(pl.col("action") != "keep")["key"]} == {*changed}
    assert changes["finding"].null_count() == 18 - len(changed)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["mislabelled", "same-person", "two-people", "outlier"]),
            st.integers(1, 18),
            st.sampled_from(["relabel", "drop", "keep"]),
            st.integers(0, 7),
        ),
        max_size=12,
    )
)
def test_whatever_is_found_the_files_fit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rec = write_rec(folder / "a.rec", identities(6, 3))
    names = ("kind", "key", "action", "suggested_label")
    table = write_suspects(folder / "s.parquet", rec, *(dict(zip(names, row, strict=True)) for row in rows))
    gone = {key for _, key, action, _ in rows if action == "drop"}
    if len(gone) == 18:
        return
    done = ft.clean(rec, suspects=table, out=folder / "b.rec")
    changes = pl.read_parquet(done.changes)
    assert {*changes.filter(pl.col("new_key").is_null())["key"]} == gone
    rest = changes.drop_nulls("new_key").sort("new_key")
    assert rest["new_key"].to_list() == [*range(1, 19 - len(gone))]
    assert rest["new_label"].is_sorted()
    assert rest["new_label"].unique().to_list() == [*range(done.identities)]
    stored = [
        (label, of(key, old)) for key, old, label in rest.select("key", "label", "new_label").iter_rows()
    ]
    assert images_of(done.path) == stored
    # Identities that are one have one label, and so have images that nothing is said about.
    quiet = {*range(1, 19)} - {key for _, key, *_ in rows}
    new = left(done.changes)
    for one, other in itertools.combinations(quiet, 2):
        if SOUND[one] == SOUND[other]:
            assert new[one] == new[other]


def test_decisions_take_the_place_of_actions(rec: Path, tmp_path: Path) -> None:
    path, decisions = tmp_path / "suspects.parquet", tmp_path / "decisions.json"
    table = write_suspects(
        path,
        rec,
        mislabelled(1, 3),
        mislabelled(2, 4),
        {"kind": "outlier", "key": 5, "suggested_label": 2},
        *(same(key, 4) | {"finding": 3} for key in (7, 8, 9)),
        {"finding": 3, "kind": "same-person", "key": 13, "action": "keep"},  # the identity that is left
        {"finding": 4, "kind": "duplicate", "key": 18, "action": "keep"},
    )
    write_decisions(decisions, rec, table, {0: "keep", 1: "drop", 2: "relabel", 3: "drop", 4: "drop"})
    done = ft.clean(rec, suspects=path, out=tmp_path / "b.rec", decisions=decisions)
    changes = pl.read_parquet(done.changes).filter(pl.col("action") != "keep")
    assert changes.select("key", "action").rows() == [
        (2, "drop"), (5, "relabel"), (7, "drop"), (8, "drop"), (9, "drop"), (18, "drop"),
    ]  # fmt: skip
    # Findings that nobody decided about keep their actions.
    for chosen, counts in (({0: "keep"}, (1, 4)), ({2: "keep"}, (0, 5)), ({}, (1, 5))):
        write_decisions(decisions, rec, table, chosen)
        done = ft.clean(rec, suspects=path, out=tmp_path / "b.rec", decisions=decisions, overwrite=True)
        assert (done.dropped, done.relabelled) == counts
    done = ft.clean(rec, suspects=path, out=tmp_path / "c.rec", kinds=["outlier", "mislabelled"])
    assert (done.dropped, done.relabelled) == (1, 2)


@pytest.mark.parametrize(
    ("chosen", "other", "message"),
    [
        ({9: "keep"}, {}, "must be about findings of the suspects, and 9 is not one"),
        ({0: "burn"}, {}, "decisions: the action of finding 0 must be one of 'relabel', 'drop', 'keep', not"),
        ({1: "relabel"}, {}, "suspects must have a suggested label .* and finding 1 has none for key 5"),
        ({}, {"version": 2}, r"decisions must be of version 1, and .*d\.json is of version 2"),
        (
            {},
            {"dataset": "0" * 16},
            "decisions must be about these suspects, and .* is about another dataset",
        ),
        ({}, {"suspects": "0" * 64}, "is about other suspects: of another audit, or of a table that was"),
        ({}, {"decisions": {}}, "must have a list under 'decisions', and .* has {}"),
        ({}, {"decisions": [1]}, "must each have a finding and an action, and .* has 1"),
        ({}, {"decisions": [{"finding": 0, "action": "keep"}] * 2}, "must name a finding once"),
        ({}, {"fasttriplet": "suspects"}, "must be a file of decisions that the page of an audit saved"),
    ],
)
def test_decisions_that_do_not_fit(
    rec: Path, tmp_path: Path, chosen: dict[int, str], other: dict[str, Any], message: str
) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, mislabelled(1, 3), {"kind": "outlier", "key": 5})
    decisions = write_decisions(tmp_path / "d.json", rec, table, chosen, **other)
    with pytest.raises(ft.OptionError, match=message):
        ft.clean(rec, suspects=tmp_path / "s.parquet", out=tmp_path / "b.rec", decisions=decisions)
    assert not [*tmp_path.glob("b.*")]


def test_suspects_that_do_not_fit(rec: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    table = write_suspects(path, rec, mislabelled(1, 3), {"kind": "outlier", "key": 5})

    def refuse(message: str, suspects: Any = path, **options: Any) -> None:
        with pytest.raises(ft.OptionError, match=message):
            ft.clean(rec, **{"suspects": suspects, "out": tmp_path / "b.rec"} | options)
        assert not [*tmp_path.glob("b.*")]
        assert not [*tmp_path.glob(".*")]

    refuse("suspects must be a DataFrame of polars, not a LazyFrame of polars", table.lazy())
    refuse("each of kinds must be one of 'mislabelled', .* not 'blurred'", kinds=["blurred"])
    refuse("out must end in .rec", out=tmp_path / "b.bin")
    refuse("suspects: each kind must be one of", table.with_columns(kind=pl.lit("noise")))
    refuse("suspects: each action must be one of", table.with_columns(action=pl.lit("burn")))
    refuse(
        "must have the columns of an audit's table, and lacks score, reason", table.drop("score", "reason")
    )
    refuse("must have the types of an audit's table", table.with_columns(finding=pl.lit("x")))
    refuse("must have a value in each row of the column 'kind'", table.with_columns(kind=pl.lit(None)))
    refuse("key 99 of file 0 with label 0, which is not in the dataset", table.with_columns(key=99))
    refuse("key 1 of file 0 with label 7, which has another label", table.with_columns(label=7))
    everything = suspects(*({"kind": "outlier", "key": key, "label": SOUND[key]} for key in SOUND))
    refuse("suspects must leave an image, and the findings drop all 18 images", everything)
    other = write_rec(tmp_path / "other.rec", identities(6, 4))
    write_suspects(path, other, mislabelled(1, 3))
    refuse(r"suspects must be of this dataset, and .*s\.parquet is of another one \(fingerprint \w{16}, this")
    path.write_text("key\n1\n")
    refuse(r"suspects must be a Parquet file, and .*s\.parquet cannot be read")
    with pytest.raises(ft.OptionError, match=r"^rec must be the path of a \.rec file or several, not None$"):
        ft.clean(None, suspects=path, out=tmp_path / "b.rec")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        ft.clean(rec, suspects=tmp_path / "none.parquet", out=tmp_path / "b.rec")


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("a.rec", "the dataset"),
        ("link.rec", "the dataset"),
        ("x.rec", "the suspects"),
        ("named.rec", "a table of the dataset"),
    ],
)
def test_it_does_not_write_over_what_it_reads(rec: Path, tmp_path: Path, out: str, what: str) -> None:
    (tmp_path / "link.rec").symlink_to(rec)
    (tmp_path / "named.identities.csv").symlink_to(tmp_path / "a.identities.csv")
    (tmp_path / "a.identities.csv").write_text("label,folder,images\n")
    table = tmp_path / "x.changes.parquet"
    write_suspects(table, rec, mislabelled(1, 3))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ft.OptionError, match=f"out must be another file than {what}, not"):
        ft.clean(rec, suspects=table, out=tmp_path / out, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_it_does_not_write_over_the_decisions(rec: Path, tmp_path: Path) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, mislabelled(1, 3))
    decisions = write_decisions(tmp_path / "d.problems.csv", rec, table, {0: "keep"})
    before = decisions.read_bytes()
    with pytest.raises(ft.OptionError, match="out must be another file than the decisions, not"):
        ft.clean(rec, suspects=table, out=tmp_path / "d.rec", decisions=decisions, overwrite=True)
    assert decisions.read_bytes() == before


def test_a_full_disk_names_the_files(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, mislabelled(1, 3))
    monkeypatch.setattr(vars(_clean)["Layout"], "add", lambda *_: fail(0, 0))
    with pytest.raises(OSError, match="No space left on device") as error:
        ft.clean(rec, suspects=table, out=tmp_path / "b.rec")
    assert str(error.value.filename).split(", ")[0] == str(tmp_path / "b.rec")
    assert not [*tmp_path.glob("b.*")]


def test_several_files_become_one(rec: Path, tmp_path: Path) -> None:
    other = write_rec(tmp_path / "b.rec", identities(3, 2))
    table = tmp_path / "s.parquet"
    rows = [{"kind": "outlier", "key": 1, "file": 1}, same(3, 0) | {"file": 1}, mislabelled(18, 6)]
    write_suspects(table, [rec, other], *rows, labels="separate")
    done = ft.clean([rec, other], suspects=table, out=tmp_path / "c.rec", labels="separate")
    # The identities of the second file are 6, 7 and 8; 7 is 0, and one image of 6 is gone.
    assert [label for label, _ in images_of(done.path)] == [0] * 5 + [
        *(label for label in range(1, 5) for _ in range(3)), 5, 5, 6, 6, 7, 7,
    ]  # fmt: skip
    assert images_of(done.path)[3:5] == [(0, of(3, 1)), (0, of(4, 1))]
    assert images_of(done.path)[19:21] == [(6, of(18, 5)), (6, of(2, 0))]
    changes = pl.read_parquet(done.changes)
    assert changes["file"].to_list() == [0] * 18 + [1] * 6
    with pytest.raises(ft.OptionError, match="suspects must be of this dataset"):
        ft.clean([rec, other], suspects=table, out=tmp_path / "d.rec", labels="shared")


def test_names_and_sources_go_along(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")  # p1, p2 and p10, with 2, 1 and 3 pictures
    ft.pack(folder, tmp_path / "a.rec")
    table = write_suspects(tmp_path / "s.parquet", tmp_path / "a.rec", same(3, 0), split(6, 3), split(5, 3))
    done = ft.clean(tmp_path / "a.rec", suspects=table, out=tmp_path / "new" / "b.rec")
    names = done.path.with_suffix(".identities.csv").read_text()
    assert names == "label,folder,images\n0,p1,3\n1,p10,1\n2,3,2\n"
    sources = pl.read_parquet(done.path.with_suffix(".sources.parquet"))
    assert sources["path"].to_list() == [
        "p1/x.jpg", "p1/y.jpeg", "p2/a.jpg", "p10/1.jpg", "p10/2.jpg", "p10/10.jpg",
    ]  # fmt: skip
    assert sources["label"].to_list() == [0, 0, 0, 1, 2, 2]
    for key, path in sources.select("key", "path").iter_rows():
        assert ft.RecordFile(done.path).read(key)[1] == (folder / path).read_bytes()
    # Tables that are not known any more are not left beside the new file.
    write_rec(tmp_path / "plain.rec", identities(2, 2))
    empty = write_suspects(tmp_path / "t.parquet", tmp_path / "plain.rec")
    ft.clean(tmp_path / "plain.rec", suspects=empty, out=done.path, overwrite=True)
    assert {path.name for path in done.path.parent.iterdir()} == {
        "b.rec", "b.idx", "b.changes.parquet", "property",
    }  # fmt: skip


def test_tables_of_a_file_that_is_replaced_do_not_stay(tmp_path: Path) -> None:
    folder, out = people(tmp_path / "people"), tmp_path / "new" / "b.rec"
    (folder / "p1" / "bad.jpg").write_bytes(b"bad")
    reports = [out.with_suffix(".problems.csv"), out.with_suffix(".changes.parquet")]
    ft.pack(folder, out, on_error="skip")
    assert [path.exists() for path in reports] == [True, False]
    rec = write_rec(tmp_path / "a.rec", identities(2, 2))
    ft.clean(rec, suspects=write_suspects(tmp_path / "s.parquet", rec), out=out, overwrite=True)
    assert [path.exists() for path in reports] == [False, True]
    (folder / "p1" / "bad.jpg").unlink()
    for name in ("b.rec", "b.idx", "property"):
        (out.parent / name).unlink()
    with pytest.raises(FileExistsError, match=r"b\.changes\.parquet"):
        ft.pack(folder, out)
    ft.pack(folder, out, overwrite=True)
    assert [path.exists() for path in reports] == [False, False]


def test_a_name_is_that_of_one_identity(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "ann" / "1.jpg")
        save(tmp_path / name / "2" / "1.jpg")
        ft.pack(tmp_path / name, tmp_path / f"{name}.rec")
    files = [tmp_path / "a.rec", tmp_path / "b.rec"]
    write_suspects(tmp_path / "s.parquet", files, labels="separate")
    done = ft.clean(files, suspects=tmp_path / "s.parquet", out=tmp_path / "c.rec", labels="separate")
    assert done.identities == 4
    table = pl.read_csv(done.path.with_suffix(".identities.csv"))
    assert table["folder"].to_list() == ["2", "ann", "2-2", "ann-2"]


def stop(_: int, __: int) -> None:
    raise KeyboardInterrupt


def fail(_: int, __: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("progress", "error"), [(stop, KeyboardInterrupt), (fail, OSError)])
def test_nothing_is_left_of_a_run_that_ends(
    rec: Path, tmp_path: Path, progress: Callable[[int, int], None], error: type[BaseException]
) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, mislabelled(1, 3))
    before = sorted(os.listdir(tmp_path))  # noqa: PTH208
    with pytest.raises(error):
        ft.clean(rec, suspects=table, out=tmp_path / "new" / "b.rec", progress=progress)
    assert sorted(os.listdir(tmp_path)) == before  # noqa: PTH208
    done = ft.clean(rec, suspects=table, out=tmp_path / "b.rec")
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # Before the dataset is read, which may take minutes.
    for source in (rec, tmp_path / "missing.rec"):
        with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
            ft.clean(source, suspects=table, out=done.path)
    with pytest.raises(error):
        ft.clean(rec, suspects=table, out=done.path, progress=progress, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_a_record_that_is_kept_must_be_readable(rec: Path, tmp_path: Path) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, {"kind": "bad-picture", "key": 4}, mislabelled(1, 3))
    dataset = ft.Dataset(rec)
    for key in (4, 7):
        with rec.open("r+b") as file:  # the magic of the record
            file.seek(int(dataset.offsets[dataset.keys == key][0]))
            file.write(b"\0\0\0\0")
        if key == 4:
            assert ft.clean(dataset, suspects=table, out=tmp_path / "b.rec").dropped == 1
    with pytest.raises(ft.RecordError, match="key 7, offset"):
        ft.clean(dataset, suspects=table, out=tmp_path / "c.rec")
    assert not [*tmp_path.glob("c.*")]


def test_images_that_cannot_be_decoded_may_be_kept(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(2, 2), frozenset({1, 2, 3, 4}))
    table = write_suspects(tmp_path / "s.parquet", rec)
    done = ft.clean(rec, suspects=table, out=tmp_path / "b.rec")
    assert [content for _, content in images_of(done.path)] == [b"no image at all"] * 4
    assert done.property is None
    assert done.notes == ("`property` was not written, since the first images cannot be decoded",)


def test_the_same_bytes_each_time(rec: Path, tmp_path: Path) -> None:
    table = write_suspects(tmp_path / "s.parquet", rec, mislabelled(1, 3), {"kind": "outlier", "key": 5})
    decisions = write_decisions(tmp_path / "d.json", rec, table, {1: "keep"})
    one, other = (
        ft.clean(rec, suspects=table, decisions=decisions, out=tmp_path / name / "b.rec") for name in "xy"
    )
    for ending in (".rec", ".idx", ".changes.parquet"):
        assert one.path.with_suffix(ending).read_bytes() == other.path.with_suffix(ending).read_bytes()
