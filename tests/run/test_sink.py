"""The file of a run is complete when it has its name, whatever its format."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.run._sink import open_sink
from tests.processes import run_python
from tests.run.leftovers import besides_datasets, nothing_left
from tests.run.plain_feed import Rows, Watched, bags_of, stop
from tests.small_rec import identities, random_table, write_rec


def test_a_parquet_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "t.parquet", []

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with open_sink(path, overwrite=False) as sink:
        for start in (0, 3):
            sink.append(pl.DataFrame({"anchor": range(start, start + 3)}))
        with sink.join({}) as joined:
            assert joined.collect()["anchor"].to_list() == list(range(6))
        assert not path.exists()
        assert sink.publish().collect()["anchor"].to_list() == list(range(6))
    assert synced == [("t.parquet", False), (tmp_path.name, True)]
    assert list(tmp_path.iterdir()) == [path]


def test_triplets_say_where_they_are_from(rec: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "t.parquet", random_table()
    options: dict[str, Any] = {"seed": 5, "margin": 0.5, "band": "violating", "bag_size": 24}
    options |= {"exclude": [1, 2], "on_error": "skip", "epochs": 2}
    found = ft.mine_rec(rec, model=model, out=out, threads=1, **options)
    about = ft.read_metadata(out)
    assert about["kind"] == "triplets"
    assert about["version"] == ft.__version__
    assert about["dataset"] == ft.Dataset(rec).fingerprint
    assert about["files"] == ["train.rec"]
    assert about["model"] == "a table"
    assert (about["seed"], about["epochs"], about["max_triplets"]) == (5, 2, None)
    assert about["options"] == {
        "labels": None, "max_pixels": 89_478_485, "margin": 0.5, "band": "violating", "ranks": None,
        "pick": "random", "negatives_per_pair": 1, "fallback": None, "pairs": "unordered",
        "positives_per_anchor": None, "triplets_per_anchor": None, "max_ap": None, "metric": "sqeuclidean",
        "normalize": True, "images_per_identity": 5, "bag_size": 24, "boundary": "keep", "tail": "keep",
        "random_share": 0.0, "on_error": "skip",
    }  # fmt: skip
    assert len(about["exclude"]) == 16
    assert about["neighbors"] is None
    expected = ft.mine_rec(rec, model=model, **options).triplets.collect()
    assert found.triplets.collect().equals(expected), "the table is as it was"
    assert pl.read_parquet(out).equals(expected)
    assert "fasttriplet" in pl.read_parquet_metadata(out)
    again = tmp_path / "elsewhere" / "t.parquet"
    ft.mine_rec(rec, model=model, out=again, threads=2, prefetch=0, **options)
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.parquet"
    ft.mine_rec(rec, model=model, out=other, **options | {"exclude": [1]})
    assert ft.read_metadata(other)["exclude"] != about["exclude"]
    found = ft.mine_rec(rec, model=model, out=other, overwrite=True, bag_size=None, seed=5, margin=0.5)
    about = ft.read_metadata(other)
    assert about["options"].keys() == {
        "labels", "max_pixels", "margin", "band", "ranks", "pick", "negatives_per_pair", "fallback", "pairs",
        "positives_per_anchor", "triplets_per_anchor", "max_ap", "metric", "normalize", "bag_size",
        "on_error",
    }, "without bags nothing says how to make them"  # fmt: skip
    assert (about["options"]["bag_size"], about["seed"], about["exclude"]) == (None, 5, None)


def test_out_is_replaced_only_at_the_end(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("an older result")

    def look(_: ft.Progress) -> None:
        assert out.read_text() == "an older result"

    with pytest.raises(FileExistsError, match=r"exists already; overwrite=True replaces it: '.*t\.parquet'"):
        ft.mine_rec(rec, out=out, progress=look)
    assert out.read_text() == "an older result"
    ft.mine_rec(rec, out=out, overwrite=True, progress=look)
    assert pl.read_parquet(out).height
    assert besides_datasets(tmp_path) == ["t.parquet"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_of_a_run_that_ends_in_the_middle(
    rec: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def stop(now: ft.Progress) -> None:
        if now.bag == 2:
            raise error

    with pytest.raises(error):
        ft.mine_rec(rec, out=tmp_path / "t.parquet", bag_size=12, progress=stop)
    assert besides_datasets(tmp_path) == []


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_damaged_record_of_a_later_bag_ends_mine_rec(rec: Path, tmp_path: Path, prefetch: int) -> None:
    key = bags_of(rec)[3][7]
    bad = write_rec(tmp_path / "train-bad.rec", identities(12, 6), frozenset({key}))
    model = Rows(1, 100, 8, 0, needs_images=True)
    with nothing_left(), pytest.raises(ft.RecordError, match=rf"{bad}, key {key}, offset \d+"):
        ft.mine_rec(bad, model=model, seed=5, bag_size=15, prefetch=prefetch, out=tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_exception_of_the_embedder_ends_mine_rec(
    rec: Path, tmp_path: Path, error: BaseException, at: int
) -> None:
    model = Watched(random_table().rows, stop(error, at))
    (tmp_path / "out").mkdir()
    with nothing_left(), pytest.raises(type(error)) as caught:
        ft.mine_rec(rec, model=model, bag_size=15, out=tmp_path / "out" / "t.parquet")
    assert caught.value is error
    assert model.threads == {threading.get_ident()}
    assert list((tmp_path / "out").iterdir()) == []


def test_names_with_brackets_and_stars(rec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train[1]*"
    folder.mkdir()
    result = ft.mine_rec(rec, out=folder / "t[0-9]?.parquet", bag_size=12)
    assert result.triplets.collect().height == result.summary.triplets > 0
    assert [p.name for p in folder.iterdir()] == ["t[0-9]?.parquet"]


@pytest.mark.parametrize("name", ["link.arrow", "link.parquet", "link.csv"])
def test_the_dataset_is_not_overwritten(tmp_path: Path, name: str) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 3))
    for link, target in {".parquet": "train.rec", ".csv": "train.idx", ".arrow": "train.rec.index"}.items():
        (tmp_path / f"link{link}").symlink_to(target)
    before = rec.read_bytes()
    with pytest.raises(ft.OptionError, match="out must be another file than the dataset"):
        ft.mine_rec(rec, out=tmp_path / name, overwrite=True)
    assert rec.read_bytes() == before


def test_a_table_that_is_read_is_not_overwritten(rec: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    pl.DataFrame({"key": [1]}).write_parquet(table)
    before = table.read_bytes()
    with pytest.raises(ft.OptionError, match="out must be another file than the table of excluded images"):
        ft.mine_rec(rec, out=table, exclude=table, overwrite=True)
    (tmp_path / "link.parquet").symlink_to(table)
    with pytest.raises(ft.OptionError, match="out must be another file than the identity graph"):
        ft.mine_rec(rec, out=tmp_path / "link.parquet", neighbors=str(table), overwrite=True)
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder.csv", "is a folder"),
        ("fifo.parquet/t.parquet", "fifo.parquet is not a folder"),
        ("fifo.parquet", "is not a regular file"),
        ("/proc/t.parquet", ": '/proc/t.parquet'$"),
    ],
)
def test_a_place_that_cannot_be_written_to(rec: Path, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.parquet")
    with pytest.raises(OSError, match=message):
        ft.mine_rec(rec, out=tmp_path / out)
    assert sorted(besides_datasets(tmp_path)) == ["fifo.parquet", "folder.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(rec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train-locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(PermissionError, match=r"no permission to write in .*t\.parquet'$"):
        ft.mine_rec(rec, out=folder / "t.parquet")


FORMATS = ["parquet", "csv", "ndjson", "jsonl", "arrow", "feather"]


@pytest.mark.parametrize("limit", [2_000, 20_000])  # bytes: the first part does not fit; the whole does not
@pytest.mark.parametrize("ending", ["parquet", "csv", "ndjson", "arrow"])
def test_a_full_disk_is_an_error_that_names_the_file(
    rec: Path, tmp_path: Path, ending: str, limit: int
) -> None:
    code = f"""
import resource, signal
import fasttriplet as ft
import polars
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    out = {str(tmp_path / f"new/t.{ending}")!r}
    ft.mine_rec({str(rec)!r}, out=out, bag_size=36, band="any", pick="all", epochs=3)
except OSError as error:
    print("OSError:", error)
"""
    said = run_python(code)
    assert said.startswith("OSError: [Errno 27] File too large after ")
    assert said.endswith(f" allows no larger files: '{tmp_path / f'new/t.{ending}'}'\n")
    assert besides_datasets(tmp_path) == []


def test_a_run_into_a_file_that_another_writes_is_refused_at_once(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    embedder = random_table()

    def second(now: ft.Progress) -> None:
        if now.bag == 1:
            with pytest.raises(FileExistsError, match="another run is writing it at this moment"):
                ft.mine_rec("none.rec", model=embedder, out=out, overwrite=True)

    first = ft.mine_rec(rec, out=out, bag_size=36, progress=second)
    assert pl.read_parquet(out).equals(ft.mine_rec(rec, bag_size=36).triplets.collect())
    assert first.summary.triplets
    assert besides_datasets(tmp_path) == ["t.parquet"]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_keeps_all_numbers_to_the_last_bit(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    distances = bits[np.isfinite(bits)][:1000]
    keys = rng.integers(-(2**63), 2**63 - 1, 2000)
    frame = pl.DataFrame(
        {
            "epoch": pl.Series(range(1000), dtype=pl.Int32),
            "anchor_key": keys[:1000],
            "positive_key": keys[1000:],
            "d_ap": distances,
            "d_an": rng.standard_normal(1000).astype(np.float32).astype(np.float64),
        }
    )
    path = tmp_path / f"[a]*?.{ending}"
    with open_sink(path, overwrite=False) as sink:
        sink.append(frame[:400])
        sink.append(frame[400:])
        with sink.join({}) as frames:
            joined = frames.collect()
        published = sink.publish()
    for read in (joined, published.collect()):
        assert read.schema == frame.schema
        assert read.equals(frame)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", FORMATS)
def test_the_ending_is_the_format(rec: Path, tmp_path: Path, ending: str) -> None:
    readers: dict[str, Any] = {
        "parquet": pl.read_parquet, "csv": pl.read_csv, "ndjson": pl.read_ndjson, "jsonl": pl.read_ndjson,
        "arrow": pl.read_ipc, "feather": pl.read_ipc,
    }  # fmt: skip
    wanted = ft.mine_rec(rec, bag_size=36, epochs=2).triplets.collect()
    for name in (f"t.{ending}", f"T.{ending.upper()}"):
        made = ft.mine_rec(rec, out=tmp_path / name, bag_size=36, epochs=2)
        assert made.triplets.collect().equals(wanted)
        assert made.triplets.collect_schema() == wanted.schema
        assert readers[ending](tmp_path / name).cast(dict(wanted.schema)).equals(wanted)
    starts = {"parquet": b"PAR1", "csv": b"epoch,", "arrow": b"ARROW1", "feather": b"ARROW1"}
    assert (tmp_path / f"t.{ending}").read_bytes().startswith(starts.get(ending, b'{"epoch"'))


@pytest.mark.parametrize("name", ["t", "t.txt", "t.csv.gz", "t.tsv", "parquet", ".csv", "train.rec"])
def test_other_endings_are_refused(rec: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ft.OptionError, match=r"^out must end in \.parquet, \.csv, .*, not .*" + name):
        ft.mine_rec(rec, out=tmp_path / name)
    assert besides_datasets(tmp_path) == []


def test_a_missing_folder_is_made_if_the_run_succeeds(rec: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.NoTripletsError):
        ft.mine_rec(rec, out=tmp_path / "a" / "b" / "t.csv", max_ap=0)
    with pytest.raises(OSError, match=r"none\.rec"):
        ft.mine_rec(tmp_path / "none.rec", out=tmp_path / "a" / "b" / "t.csv")
    assert besides_datasets(tmp_path) == []
    ft.mine_rec(rec, out=tmp_path / "a" / "b" / "t.csv")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["t.csv"]


@pytest.mark.heavy
def test_memory_is_that_of_a_bag(rec: Path, tmp_path: Path) -> None:
    """20 times as many triplets take no more memory: 2.4 million of them are 170 MB."""
    code = f"""
import json, resource
import fasttriplet as ft
for epochs in (5, 100):
    made = ft.mine_rec({str(rec)!r}, out={str(tmp_path / "t.parquet")!r}, overwrite=True, bag_size=72,
                       images_per_identity=6, band="any", pick="all", pairs="ordered",
                       epochs=epochs).summary.triplets
    print(json.dumps([epochs, made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    used = {}
    for line in run_python(code, timeout=120).splitlines():
        epochs, triplets, used[epochs] = json.loads(line)
        assert triplets == epochs * 360 * 66
    assert used[100] < used[5] + 60_000  # kB
