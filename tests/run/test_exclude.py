"""Images that are excluded are not there: not for bags, labels, triplets and batches."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.auditing.findings import suspects
from tests.cli.command import Capture
from tests.run.plain_feed import Rows
from tests.run.test_feed_state import same
from tests.small_rec import identities, random_table, write_rec

GONE = [1, 8, 9, 31, 32, 33, 34, 35, 36, 72]  # of the 12 identities of 6 images, one as a whole
OPTIONS: dict[str, Any] = {"bag_size": 24, "images_per_identity": 4, "epochs": 2, "band": "violating"}


def without(path: Path, labels: dict[int, int], gone: list[int]) -> Path:
    return write_rec(path, {key: label for key, label in labels.items() if key not in gone})


def test_triplets_are_those_of_a_dataset_without_the_images(rec: Path, tmp_path: Path) -> None:
    removed, model = without(tmp_path / "removed.rec", identities(12, 6), GONE), random_table()
    expected = ft.mine_rec(removed, model=model, **OPTIONS)
    path = tmp_path / "gone.parquet"
    pl.DataFrame({"key": GONE}).write_parquet(path)
    for exclude in (GONE, pl.DataFrame({"key": GONE}), path, str(path)):
        found = ft.mine_rec(rec, model=model, exclude=exclude, **OPTIONS)
        assert found.triplets.collect().equals(expected.triplets.collect())
        assert (found.summary.images_indexed, found.summary.identities) == (62, 11)
        assert found.summary.images_excluded == 10
        assert found.summary.bags == expected.summary.bags
    assert expected.triplets.collect().height
    # An embedder that looks embeddings up knows all images, and a network sees only those of bags.
    assert model.prepared.height == 72


def test_batches_are_those_of_a_dataset_without_the_images(rec: Path, tmp_path: Path) -> None:
    removed = without(tmp_path / "removed.rec", identities(12, 6), GONE)
    options: dict[str, Any] = {"model": random_table(), "batch_size": 12, "augment": ft.Augment(mirror=True)}
    with (
        ft.Feed(removed, **options, **OPTIONS) as expected,
        ft.Feed(rec, exclude=GONE, **options, **OPTIONS) as found,
    ):
        pairs = list(zip(expected, found, strict=True))
    assert pairs
    assert all(same(one, other) for one, other in pairs)
    assert not {*GONE} & {key for _, batch in pairs for key in batch.ids.tolist()}


def test_images_of_several_files_are_excluded(rec: Path, tmp_path: Path) -> None:
    labels = {key: label + 20 for key, label in identities(6, 4).items()}
    shards = [rec, write_rec(tmp_path / "b.rec", labels)]
    removed = [rec, without(tmp_path / "c.rec", labels, [2, 5])]
    model = Rows(2, 100, 8, 0)
    table = pl.DataFrame({"key": [2, 5], "file": [1, 1]})
    found = ft.mine_rec(shards, model=model, exclude=table, **OPTIONS).triplets.collect()
    assert found.equals(ft.mine_rec(removed, model=model, **OPTIONS).triplets.collect())
    with pytest.raises(ft.OptionError, match="a key alone does not say in which of them"):
        ft.mine_rec(shards, model=model, exclude=[2])


@pytest.mark.parametrize(
    ("kinds", "left_out"),
    [
        (None, [1, 2, 5, 6]),
        (["same-person", "two-people"], [3, 4]),
        (["duplicate"], [5]),
    ],
)
def test_of_suspects_the_kinds_are_excluded_that_are_about_images(
    rec: Path, kinds: Any, left_out: list[int]
) -> None:
    table = suspects(
        {"key": 1, "kind": "mislabelled", "action": "relabel", "suggested_label": 4},
        {"key": 2, "kind": "outlier"},
        {"key": 3, "kind": "same-person", "action": "relabel", "suggested_label": 4},
        {"key": 4, "kind": "two-people", "action": "relabel", "suggested_label": 99},
        {"key": 5, "kind": "duplicate"},
        {"key": 7, "kind": "duplicate", "action": "keep"},
        {"key": 6, "kind": "bad-picture"},
        {"key": 8, "kind": "outlier", "action": "keep"},
    )
    options: dict[str, Any] = OPTIONS | {"model": random_table()}
    found = ft.mine_rec(rec, exclude=table, exclude_kinds=kinds, **options).triplets.collect()
    assert found.equals(ft.mine_rec(rec, exclude=left_out, **options).triplets.collect())


def test_what_cannot_be_excluded(rec: Path, tmp_path: Path) -> None:
    def refuse(message: str, exclude: Any, **options: Any) -> None:
        with pytest.raises(ft.OptionError, match=message):
            ft.mine_rec(rec, model=random_table(), exclude=exclude, **options)

    refuse(
        "exclude_kinds goes with exclude=FILE, a table of suspects, not with keys",
        [1],
        exclude_kinds=["outlier"],
    )
    refuse("exclude_kinds goes with exclude=FILE", None, exclude_kinds=["outlier"])
    refuse(
        "each of exclude_kinds must be one of 'mislabelled', .*, not 'blurred'",
        [1],
        exclude_kinds=["blurred"],
    )
    refuse("exclude_kinds must be a list of one or more of", [1], exclude_kinds="outlier")
    refuse("there is no column 'kind'", pl.DataFrame({"key": [1]}), exclude_kinds=["outlier"])
    refuse("must have kinds of findings in the column 'kind'.*, and has 'noise'",
           pl.DataFrame({"key": [1], "kind": ["noise"]}))  # fmt: skip
    for column in ({"kind": [["outlier"]]}, {"kind": ["outlier"], "action": [3]}):
        refuse("must have text in the column '(kind|action)', not ", pl.DataFrame({"key": [1], **column}))
    refuse("must have a number in each row of the column 'key'", pl.DataFrame({"key": [1, None]}))
    refuse("exclude names all 72 images of the dataset", range(1, 73))
    other = tmp_path / "suspects.parquet"
    suspects({"key": 1, "kind": "outlier"}).write_parquet(
        other, metadata={"fasttriplet": '{"dataset": "0123456789abcdef"}'}
    )
    refuse(rf"must be of this dataset, and {other} is of another one \(fingerprint 0123456789abcdef", other)
    other.write_bytes(b"PAR1 no table PAR1")
    refuse("must be a Parquet file, and .* cannot be read", other)
    with pytest.raises(ft.NoTripletsError, match="6 images of one identity"):
        ft.mine_rec(rec, model=random_table(), exclude=range(1, 67))


def test_a_damaged_table_is_an_error_or_a_table(rec: Path, tmp_path: Path) -> None:
    path = tmp_path / "suspects.parquet"
    suspects(*({"key": key, "kind": "outlier"} for key in GONE)).write_parquet(path)
    whole, model = path.read_bytes(), random_table()
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 20)]
    damaged += [whole[:at] + b"\xff" * 4 + whole[at + 4 :] for at in range(0, len(whole), len(whole) // 60)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            ft.mine_rec(rec, model=model, exclude=path, bag_size=24)
        except ft.OptionError as error:
            refused += 1
            assert str(error).startswith("exclude ")
    assert refused > 20


def test_a_feed_resumes_only_without_the_same_images(rec: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": random_table(), "batch_size": 12, **OPTIONS}
    with ft.Feed(rec, exclude=GONE, **options) as feed:
        expected = list(feed)
    with ft.Feed(rec, exclude=GONE, **options) as feed:
        found = list(islice(feed, 3))
        state = feed.state_dict()
    path = tmp_path / "moved" / "gone.parquet"
    path.parent.mkdir()
    pl.DataFrame({"key": GONE[::-1]}).write_parquet(path)
    with ft.Feed(rec, exclude=path, state=state, **options) as feed:  # where it is and its order do not count
        found += list(feed)
    assert all(map(same, found, expected))
    assert len(found) == len(expected)
    for exclude in (GONE[1:], None, []):
        with pytest.raises(
            ft.OptionError, match="exclude must name the same images as before: the run that wrote"
        ):
            ft.Feed(rec, exclude=exclude, state=state, **options)
    with ft.Feed(rec, exclude=[], **options) as feed:
        everything = feed.state_dict()
    ft.Feed(rec, state=everything, **options).close()
    del everything["arguments"]["exclude"]  # a state of an earlier version
    ft.Feed(rec, state=everything, **options).close()
    with pytest.raises(
        ft.OptionError, match="exclude must not be given: the run that wrote the state excluded no image"
    ):
        ft.Feed(rec, exclude=[1], state=everything, **options)


def test_mine_leaves_out_what_the_flags_say(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "suspects.parquet"
    suspects(
        *({"key": key, "kind": "outlier"} for key in GONE), {"key": 2, "kind": "same-person"}
    ).write_parquet(path)
    words = ["mine", "--rec", str(rec), "--exclude", str(path), "--bag-size", "24"]
    assert main([*words, "--out", str(tmp_path / "a.parquet")]) == 0
    assert "62 images of 11 identities, 10 excluded" in capsys.readouterr().out
    expected = ft.mine_rec(rec, exclude=GONE, bag_size=24).triplets.collect()
    assert pl.read_parquet(tmp_path / "a.parquet").equals(expected)
    words += ["--exclude-kinds", "same-person, outlier", "--out", str(tmp_path / "b.parquet")]
    assert main(words) == 0
    expected = ft.mine_rec(rec, exclude=[2, *GONE], bag_size=24).triplets.collect()
    assert pl.read_parquet(tmp_path / "b.parquet").equals(expected)
    capsys.readouterr()
    assert main(["mine", "--rec", str(rec), "--exclude-kinds", "outlier"]) == 2
    assert "--exclude-kinds goes with --exclude FILE" in capsys.readouterr().err
    assert main(["mine", "--rec", str(rec), "--exclude", "x", "--exclude-kinds", "noise"]) == 2
    assert "'noise' is not one of mislabelled, outlier," in capsys.readouterr().err
