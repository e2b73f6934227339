"""Which images of a dataset are left out, by keys, frames and tables of suspects."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.dataset._exclude import included_images
from fasttriplet.dataset._options import EXCLUDED_KINDS, KINDS
from tests.small_rec import identities, write_rec


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ft.Dataset:
    """The keys 1 to 12, of one file."""
    return ft.Dataset(write_rec(tmp_path_factory.mktemp("one") / "a.rec", identities(4, 3)))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> ft.Dataset:
    """The keys 1 to 4 in each of two files."""
    folder = tmp_path_factory.mktemp("two")
    paths = [write_rec(folder / f"{number}.rec", identities(2, 2)) for number in range(2)]
    return ft.Dataset(paths, labels="shared")


def refused(dataset: ft.Dataset, exclude: Any, kinds: Any = None) -> str:
    with pytest.raises(ft.OptionError) as caught:
        included_images(dataset, exclude, kinds)
    return str(caught.value)


def test_rows_that_are_left(one: ft.Dataset, tmp_path: Path) -> None:
    included = included_images(one, None)
    assert (included.rows.tolist(), included.digest) == (list(range(12)), None)
    assert included_images(one, []).digest is None
    keys = [12, 3, 3, 1]
    frame = pl.DataFrame({"key": keys})
    frame.write_parquet(tmp_path / "a.parquet")
    expected = hashlib.blake2b(np.array([1, 3, 12]).tobytes(), digest_size=8).hexdigest()
    for exclude in (
        keys,
        np.array(keys, np.int32),
        frame,
        tmp_path / "a.parquet",
        str(tmp_path / "a.parquet"),
    ):
        included = included_images(one, exclude)
        assert included.rows.tolist() == [1, 3, 4, 5, 6, 7, 8, 9, 10]
        assert included.digest == expected
    assert included_images(one, frame.with_columns(file=0)).digest == expected
    assert included_images(one, range(2, 13)).rows.tolist() == [0]
    assert refused(one, range(1, 13)) == "exclude names all 12 images of the dataset: none is left"


def test_images_of_several_files(two: ft.Dataset) -> None:
    frame = pl.DataFrame({"key": [4, 1], "file": pl.Series([0, 1], dtype=pl.Int8)})
    included = included_images(two, frame)
    assert included.rows.tolist() == [0, 1, 2, 5, 6, 7]
    assert included.digest == hashlib.blake2b(two.ids[[3, 4]].tobytes(), digest_size=8).hexdigest()
    expected = (
        "exclude must be a frame or a Parquet file with the columns 'key' and 'file': the dataset has 2 "
        "files, and a key alone does not say in which of them an image is"
    )
    assert refused(two, [4]) == refused(two, frame.drop("file")) == expected
    assert refused(two, pl.DataFrame({"key": [3, 1, 5], "file": [0, 2, 1]})) == (
        "exclude has key 1 of file 2, which is not in the index of the dataset (2 of 3 keys are not)"
    )


def test_keys_that_are_not_there(one: ft.Dataset, tmp_path: Path) -> None:
    assert refused(one, [3, 0, 13]) == (
        "exclude has key 0, which is not in the index of the dataset (2 of 3 keys are not)"
    )
    path = tmp_path / "a.parquet"
    pl.DataFrame({"key": [99]}).write_parquet(path)
    assert refused(one, path) == (
        f"exclude has key 99 of {path}, which is not in the index of the dataset (1 of 1 key are not)"
    )


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"file": [0]}, "exclude must have a column 'key', and has file"),
        ({"key": [1, None]}, "exclude must have a number in each row of the column 'key'"),
        ({"key": [1], "file": [None]}, "exclude must have a number in each row of the column 'file'"),
        ({"key": [0.5]}, "exclude: key must be a list of integers, not float64 of shape (1,)"),
        ({"key": [1], "file": ["a"]}, "exclude: file must be a list of integers, not object of shape (1,)"),
        ({"key": [1], "file": [-1]}, "exclude must number files from 0 in the column 'file'"),
        ({"key": [1, 1], "file": [0, 2**32]}, "exclude must number files from 0 in the column 'file'"),
        (
            {"key": [1, 2], "kind": ["outlier", "noise"]},
            f"exclude must have kinds of findings in the column 'kind', {', '.join(KINDS)}, and has 'noise'",
        ),
        ({"key": [1], "kind": [3]}, "exclude must have text in the column 'kind', not Int64"),
        (
            {"key": [1], "kind": ["outlier"], "action": [3]},
            "exclude must have text in the column 'action', not Int64",
        ),
    ],
)
def test_frames_that_are_refused(
    one: ft.Dataset, frame: dict[str, Any], message: str, tmp_path: Path
) -> None:
    table = pl.DataFrame(frame)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        included_images(one, table)
    path = tmp_path / "a.parquet"
    table.write_parquet(path)
    with pytest.raises(ValueError, match=r"^exclude") as caught:
        included_images(one, path)
    if "list of integers" not in message:
        named = message.replace("'kind', m", f"'kind' of {path}, m").replace(
            "'key', and", f"'key' of {path}, and"
        )
        named = named.replace("', not", f"' of {path}, not")
        assert str(caught.value) == (named if str(path) in named else f"{named} of {path}")


def test_a_frame_that_is_lazy_is_refused(one: ft.Dataset) -> None:
    lazy: Any = pl.DataFrame({"key": [1]}).lazy()
    with pytest.raises(
        ft.OptionError, match=r"^exclude must be a DataFrame of polars, not a LazyFrame of pol"
    ):
        included_images(one, lazy)


def test_a_file_far_beyond_is_not_in_the_index(one: ft.Dataset) -> None:
    frame = pl.DataFrame({"key": [1], "file": [2**32 - 1]}, schema={"key": pl.Int64, "file": pl.Int64})
    assert refused(one, frame).startswith("exclude has key 1 of file 4294967295, which is not in the index")


def test_kinds_of_findings(one: ft.Dataset) -> None:
    """By default those about single images; what is to be included is included."""
    table = pl.DataFrame({"key": range(1, 7), "kind": KINDS})
    rest = {key for key, kind in table.iter_rows() if kind not in EXCLUDED_KINDS}
    assert rest == {3, 4}
    assert {*one.keys[included_images(one, table).rows].tolist()} == rest | {*range(7, 13)}
    for at, kind in enumerate(KINDS):
        assert set(range(12)) - set(included_images(one, table, [kind]).rows.tolist()) == {at}
        for enum in (pl.Enum(KINDS), pl.Categorical):
            other = table.with_columns(pl.col("kind").cast(enum))
            assert included_images(one, other, [kind]).digest == included_images(one, table, [kind]).digest
    acted = table.with_columns(action=pl.Series(["keep", "drop", "keep", "drop", "relabel", None]))
    assert set(range(12)) - set(included_images(one, acted, KINDS).rows.tolist()) == {1, 3, 4}
    nothing = table.clear().with_columns(kind=pl.lit(None))
    assert included_images(one, nothing.cast({"key": pl.Int64})).digest is None


def test_kinds_go_with_a_table(one: ft.Dataset, tmp_path: Path) -> None:
    assert refused(one, [1], ["outlier"]) == (
        "exclude_kinds goes with exclude=FILE, a table of suspects, not with keys"
    )
    frame = pl.DataFrame({"key": [1]})
    expected = "exclude_kinds goes with exclude=FILE, a table of suspects, and there is no column 'kind'"
    assert refused(one, frame, ["outlier"]) == expected
    frame.write_parquet(tmp_path / "a.parquet")
    assert refused(one, tmp_path / "a.parquet", ["outlier"]) == f"{expected} of {tmp_path / 'a.parquet'}"


def test_a_table_says_of_which_dataset_it_is(one: ft.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def write(about: dict[str, Any]) -> None:
        pl.DataFrame({"key": [1]}).write_parquet(path, metadata={"fasttriplet": json.dumps(about)})

    for about in ({"dataset": one.fingerprint}, {"other": 1}):
        write(about)
        assert included_images(one, path).rows.tolist() == list(range(1, 12))
    write({"dataset": "0123"})
    assert refused(one, path) == (
        f"exclude must be of this dataset, and {path} is of another one (fingerprint 0123, this one is "
        f"{one.fingerprint}): its keys, labels or sizes differ, or what labels of several files mean"
    )


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 no table PAR1", b"key\n1\n"])
def test_what_is_no_table(one: ft.Dataset, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    said = refused(one, path)
    assert said.startswith(f"exclude must be a Parquet file, and {path} cannot be read: ")
    assert "\n" not in said
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        included_images(one, tmp_path / "none.parquet")
    with pytest.raises(IsADirectoryError, match="expected a Parquet file"):
        included_images(one, tmp_path)


def test_errors_of_other_kinds_are_raised_as_they_are() -> None:
    from fasttriplet.dataset._tables import reading  # noqa: PLC0415

    for error in (ft.OptionError("a", "b"), KeyError("a"), MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading("exclude", "must be a table"):
            raise error
        assert caught.value is error
    PanicException = type("PanicException", (BaseException,), {})
    damages: list[tuple[BaseException, str]] = [
        (PanicException("index out of range\nat line 3"), "index out of range"),
        (PanicException(), "PanicException"),
        (ValueError("odd"), "odd"),
        (pl.exceptions.ComputeError("no\nfile"), "no"),
    ]
    for damage, reason in damages:
        with (
            pytest.raises(ft.OptionError, match=f"^exclude must be a table: {reason}$"),
            reading("exclude", "must be a table"),
        ):
            raise damage
