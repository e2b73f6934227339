"""The parquet file of a run is complete when it has its name."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

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
    with open_sink(path) as sink:
        for start in (0, 3):
            sink.append(pl.DataFrame({"anchor": range(start, start + 3)}))
        assert sink.join().collect()["anchor"].to_list() == list(range(6))
        assert not path.exists()
        assert sink.publish().collect()["anchor"].to_list() == list(range(6))
    assert synced == [("complete", False), (tmp_path.name, True)]
    assert list(tmp_path.iterdir()) == [path]


def test_out_is_replaced_only_at_the_end(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("an older result")

    def look(_: ft.Progress) -> None:
        assert out.read_text() == "an older result"

    ft.mine_rec(rec, out=out, progress=look)
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


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "./train.rec", "train.rec.index.parquet"])
def test_the_dataset_is_not_overwritten(rec: Path, name: str) -> None:
    before = rec.read_bytes()
    with pytest.raises(ValueError, match="is the dataset"):
        ft.mine_rec(rec, out=rec.parent / name)
    assert rec.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder", "is a folder"),
        ("no/such/t.parquet", "there is no folder .*no/such"),
        ("fifo", "is no regular file"),
        ("/proc/t.parquet", "cannot write /proc/t.parquet"),
    ],
)
def test_a_place_that_cannot_be_written_to(rec: Path, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=message):
        ft.mine_rec(rec, out=tmp_path / out)
    assert sorted(besides_datasets(tmp_path)) == ["fifo", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(rec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train-locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(PermissionError, match=r"cannot write .*t\.parquet: Permission denied"):
        ft.mine_rec(rec, out=folder / "t.parquet")


@pytest.mark.parametrize("limit", [2_000, 20_000])  # bytes: the first part does not fit; the whole does not
def test_a_full_disk_is_an_error_that_names_the_file(rec: Path, tmp_path: Path, limit: int) -> None:
    code = f"""
import resource, signal
import fasttriplet as ft
import polars
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    out = {str(tmp_path / "t.parquet")!r}
    ft.mine_rec({str(rec)!r}, out=out, bag_size=36, band="any", pick="all", epochs=3)
except OSError as error:
    print("OSError:", error)
"""
    assert run_python(code).startswith(f"OSError: cannot write {tmp_path / 't.parquet'}: ")
    assert besides_datasets(tmp_path) == []


def test_two_runs_into_one_file_leave_one_whole_result(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    meet = threading.Barrier(2)
    results: list[pl.DataFrame] = []

    def run(seed: int) -> None:
        def wait(now: ft.Progress) -> None:
            if now.bag == 1 and now.epoch == 1:
                meet.wait(20)

        ft.mine_rec(rec, out=out, seed=seed, progress=once(wait))
        results.append(ft.mine_rec(rec, seed=seed).triplets.collect())

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert any(pl.read_parquet(out).equals(result) for result in results)
    assert besides_datasets(tmp_path) == ["t.parquet"]


def once(call: Any) -> Any:
    called: list[bool] = []

    def wrapper(now: ft.Progress) -> None:
        if not called:
            called.append(True)
            call(now)

    return wrapper


def test_memory_is_that_of_a_bag(rec: Path, tmp_path: Path) -> None:
    """20 times as many triplets take no more memory: 2.4 million of them are 170 MB."""
    code = f"""
import json, resource
import fasttriplet as ft
for epochs in (5, 100):
    made = ft.mine_rec({str(rec)!r}, out={str(tmp_path / "t.parquet")!r}, bag_size=72, images_per_identity=6,
                       band="any", pick="all", pairs="ordered", epochs=epochs).summary.triplets
    print(json.dumps([epochs, made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    used = {}
    for line in run_python(code, timeout=120).splitlines():
        epochs, triplets, used[epochs] = json.loads(line)
        assert triplets == epochs * 360 * 66
    assert used[100] < used[5] + 60_000  # kB
