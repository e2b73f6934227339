"""The whole line: every triplet against its definition, the file's contract, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.dataset._order import epoch_seed
from tests import reference
from tests.small_rec import Table, identities, picture, write_rec

COLUMNS = {
    "epoch": pl.Int32,
    "bag": pl.Int32,
    "anchor_key": pl.Int64,
    "positive_key": pl.Int64,
    "negative_key": pl.Int64,
    "anchor_label": pl.Int64,
    "negative_label": pl.Int64,
    "d_ap": pl.Float64,
    "d_an": pl.Float64,
}
FILES = dict.fromkeys(("anchor_file", "positive_file", "negative_file"), pl.UInt32)


def table(keys: int, size: int = 16, seed: int = 0) -> Table:
    return Table(np.random.default_rng(seed).standard_normal((keys, size)).astype(np.float32))


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """12 identities of 6 images, keys 1 to 72."""
    return write_rec(tmp_path / "train.rec", identities(12, 6))


def leftovers(folder: Path) -> list[str]:
    """What is in a folder besides datasets and their caches."""
    return [p.name for p in folder.iterdir() if not p.name.startswith("train")]


# What is mined


@pytest.mark.parametrize("band", ["semihard", "violating", "hard"])
def test_every_triplet_of_real_faces_is_what_its_definition_says(
    real_data: Path, tmp_path: Path, band: Any
) -> None:
    faces = real_data / "lfw112-a"
    result = ft.mine_rec(
        faces / "train.rec",
        model=f"npy:{faces / 'emb_a.npy'}",
        out=tmp_path / "t.parquet",
        bag_size=150,
        epochs=3,
        band=band,
        margin=0.2,
        threads=2,
    )
    frame = pl.read_parquet(tmp_path / "t.parquet")
    assert dict(frame.schema) == COLUMNS
    assert frame.equals(result.triplets.collect())

    index = ft.index_rec(faces / "train.rec")
    rows = np.load(faces / "emb_a.npy").astype(np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    a, p, n = (
        np.searchsorted(index["key"].to_numpy(), frame[f"{role}_key"].to_numpy())
        for role in ("anchor", "positive", "negative")
    )
    label = np.load(faces / "lab_a.npy")
    assert (a != p).all()
    assert (label[a] == label[p]).all()
    assert (label[a] != label[n]).all()
    assert (frame["anchor_label"].to_numpy() == label[a]).all()
    assert (frame["negative_label"].to_numpy() == label[n]).all()

    d_ap, d_an = (((rows[a] - rows[other]) ** 2).sum(1) for other in (p, n))
    found_ap, found_an = frame["d_ap"].to_numpy(), frame["d_an"].to_numpy()
    np.testing.assert_allclose(found_ap, d_ap, rtol=1e-6)  # rtol: the last bit of a normalised float32
    np.testing.assert_allclose(found_an, d_an, rtol=1e-6)
    holds = {
        "semihard": (found_ap < found_an) & (found_an < found_ap + 0.2),
        "violating": found_an < found_ap + 0.2,
        "hard": found_an <= found_ap,
    }
    assert holds[band].all()

    for epoch in range(3):
        for bag in ft.bags(ft.triplet_seq(index, 5, 0, epoch), 150):
            keys = set(bag.rows["key"])
            mined = frame.filter(pl.col("epoch") == epoch, pl.col("bag") == bag.number)
            assert all(keys.issuperset(mined[f"{role}_key"]) for role in ("anchor", "positive", "negative"))

    summary = result.summary
    assert summary.triplets == frame.height == summary.pairs - summary.pairs_without_negative > 0
    assert (summary.images_indexed, summary.identities, summary.epochs) == (2375, 109, 3)
    assert summary.images == 3 * 109 * 5
    assert summary.bags == 12
    with_triplets = frame.select("epoch", "bag").unique().height
    assert summary.bags_without_triplets == summary.bags - with_triplets
    for name in ("d_ap", "d_an"):
        for q, value in summary.quantiles[name].items():
            assert value == pytest.approx(np.quantile(frame[name].to_numpy(), float(q)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"band": "violating", "pick": "hardest", "pairs": "ordered", "margin": 0.5},
        {"band": "any", "pick": "all", "max_ap": 1.9},
        {"negatives_per_pair": 3, "normalize": False, "margin": 5.0},
        {"seed": 7},
    ],
)
def test_bags_are_mined_as_by_the_reference(rec: Path, options: dict[str, Any]) -> None:
    model = table(100)
    frame = ft.mine_rec(rec, model=model, bag_size=20, images_per_identity=4, epochs=2, **options)
    seed = options.get("seed", 0)
    expected = []
    for epoch in range(2):
        for bag in ft.bags(ft.triplet_seq(ft.index_rec(rec), 4, seed, epoch), 20):
            keys = bag.rows["key"].to_numpy()
            mined = reference.mine(
                model.rows[keys],
                bag.rows["label"],
                ids=keys,
                **options | {"seed": epoch_seed(seed, epoch)},
            )
            expected += [(epoch, bag.number, *triplet) for triplet in mined]
    found = frame.triplets.collect()
    assert found.drop("anchor_label", "negative_label").rows() == expected
    label = identities(12, 6)
    assert found["anchor_label"].to_list() == [label[key] for key in found["anchor_key"]]
    assert found["negative_label"].to_list() == [label[key] for key in found["negative_key"]]


def test_the_same_from_any_number_of_threads_and_other_in_each_epoch(rec: Path, tmp_path: Path) -> None:
    frames = []
    for threads in (1, 3):
        out = tmp_path / f"{threads}.parquet"
        ft.mine_rec(rec, out=out, epochs=2, bag_size=24, threads=threads)
        frames.append(pl.read_parquet(out))
    assert frames[0].equals(frames[1])
    first, second = (frames[0].filter(pl.col("epoch") == e).drop("epoch", "bag") for e in range(2))
    assert not first.equals(second)
    assert ft.mine_rec(rec, seed=1).triplets.collect().height
    assert not ft.mine_rec(rec, seed=1).triplets.collect().equals(ft.mine_rec(rec).triplets.collect())


def test_shards_are_one_dataset(tmp_path: Path) -> None:
    """The same keys in both files, and identities that lie in both."""
    shards = [
        write_rec(tmp_path / "train-0.rec", {1: 5, 2: 5, 3: 6, 4: 7}),
        write_rec(tmp_path / "train-1.rec", {1: 5, 2: 6, 3: 6, 4: 7}),
    ]
    options: dict[str, Any] = {"band": "any", "pick": "all"}
    frame = ft.mine_rec(shards, out=tmp_path / "t.parquet", **options).triplets.collect()
    assert dict(frame.schema) == COLUMNS | FILES
    label = {(f, k): lab for f, ls in enumerate([[5, 5, 6, 7], [5, 6, 6, 7]]) for k, lab in enumerate(ls, 1)}
    seen = set()
    for row in frame.iter_rows(named=True):
        a, p, n = ((row[f"{role}_file"], row[f"{role}_key"]) for role in ("anchor", "positive", "negative"))
        assert label[a] == label[p] == row["anchor_label"]
        assert label[n] == row["negative_label"] != row["anchor_label"]
        seen.add((frozenset([a, p]), n))
    # 3 + 3 + 1 pairs, each with every image of the other identities
    assert len(seen) == frame.height == 3 * 5 + 3 * 5 + 1 * 6


def test_keys_of_several_files_must_fit_an_id(tmp_path: Path) -> None:
    shards = [
        write_rec(tmp_path / "train-0.rec", {1: 5, 2: 5}),
        write_rec(tmp_path / "train-1.rec", {1 << 48: 6, 2: 6}),
    ]
    with pytest.raises(ValueError, match=r"of several files, keys must be .* 2\*\*48"):
        ft.mine_rec(shards)


def test_max_triplets_stops_early_with_the_first_of_them(rec: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"bag_size": 12, "band": "any"}
    everything = ft.mine_rec(rec, **options)
    some = ft.mine_rec(rec, out=tmp_path / "t.parquet", max_triplets=50, **options)
    assert some.summary.stopped_at_max_triplets
    assert not everything.summary.stopped_at_max_triplets
    assert some.summary.bags < everything.summary.bags
    assert some.triplets.collect().equals(everything.triplets.head(50).collect())


def test_progress_counts_up(rec: Path) -> None:
    told: list[ft.Progress] = []
    result = ft.mine_rec(rec, bag_size=24, epochs=2, progress=told.append)
    ends = [(now.epoch, now.bag) for now in told]
    assert ends == sorted(ends)
    assert ends[-1] == (2, 3)
    last = told[-1]
    assert (last.epochs, last.bags) == (2, 3)
    assert (last.images, last.triplets) == (result.summary.images, result.summary.triplets)
    for name in ("images", "triplets"):
        counts = [getattr(now, name) for now in told]
        assert counts == sorted(counts)


# Damaged records


def test_a_damaged_record_ends_the_run_or_is_left_out_and_listed(tmp_path: Path) -> None:
    damaged = frozenset({3, 11})
    rec = write_rec(tmp_path / "train.rec", identities(6, 5), damaged)
    with pytest.raises(ft.RecordError, match=rf"{rec}, key (3|11)"):
        ft.mine_rec(rec, out=tmp_path / "t.parquet")
    assert leftovers(tmp_path) == []
    result = ft.mine_rec(rec, on_error="skip", band="any", pick="all", pairs="ordered")
    assert result.summary.images == 28
    assert sorted(key for key in (3, 11) for line in result.summary.skipped if f"key {key}" in line) == [
        3,
        11,
    ]
    frame = result.triplets.collect()
    used = {key for role in ("anchor", "positive", "negative") for key in frame[f"{role}_key"]}
    assert used == set(range(1, 31)) - damaged
    without = write_rec(
        tmp_path / "train-good.rec", {k: v for k, v in identities(6, 5).items() if k not in damaged}
    )
    same = ft.mine_rec(without, band="any", pick="all", pairs="ordered").triplets.collect()
    assert frame.equals(same)


def test_a_record_is_listed_once_however_many_epochs(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(6, 5), frozenset({3, 11}))
    summary = ft.mine_rec(rec, on_error="skip", band="any", epochs=3).summary
    assert summary.images == 3 * 28
    assert len(summary.skipped) == 2


def test_images_of_another_size_are_left_out_in_every_bag(tmp_path: Path) -> None:
    """A bag with more odd images than others, after a first bag that says what is odd."""
    labels = identities(6, 5)
    order = ft.triplet_seq(pl.DataFrame({"key": list(labels), "label": list(labels.values())}))
    keys = order["key"].to_list()
    odd = {keys[0], *keys[10:14], *keys[16:20]}  # of bags of ten: the first image, and eight
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key, label in labels.items():
            content = picture(key, side=32 if key in odd else 24)
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    options: dict[str, Any] = {"bag_size": 10, "band": "any"}
    summary = ft.mine_rec(tmp_path / "train.rec", on_error="skip", **options).summary
    assert summary.images == 30 - len(odd)
    assert {int(line.split("key ")[1].split(",")[0]) for line in summary.skipped} == odd
    assert all("the image is 32 x 32 pixels (height x width), not 24 x 24" in s for s in summary.skipped)
    with pytest.raises(ft.RecordError, match=r"key .* the image is .* pixels .*, not "):
        ft.mine_rec(tmp_path / "train.rec", **options)


def test_nothing_but_damaged_records(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(3, 2), frozenset(range(1, 7)))
    with pytest.raises(ft.NoTripletsError, match="none of its images could be"):
        ft.mine_rec(rec, on_error="skip", out=tmp_path / "t.parquet")
    assert leftovers(tmp_path) == []


# No triplets


def one_hot(keys: int) -> NDArray[np.float32]:
    return np.eye(keys, dtype=np.float32)


@pytest.mark.parametrize(
    ("labels", "rows", "options", "why"),
    [
        (identities(1, 5), one_hot(9), {}, "all 5 images are of one identity"),
        (identities(5, 1), one_hot(9), {}, "each of the 5 identities has one image"),
        (identities(3, 2), np.ones((9, 4), np.float32), {}, "all but equal .* collapsed"),
        (identities(3, 2), one_hot(9), {"max_ap": 1.5}, r"all 3 pairs are over max_ap=1.5 .* d_ap=2\b"),
        (identities(3, 2), one_hot(9), {}, "no negative .* strictly between"),
        (identities(3, 2), one_hot(9)[:, :1] + [[1, 0]] * 9, {"band": "hard"}, ""),
        (identities(3, 2), one_hot(9), {"bag_size": 7, "tail": "drop"}, "no bag has 7 images"),
        (identities(3, 2), one_hot(9), {"bag_size": 2}, "3 bags of 6 images; .* one identity"),
    ],
)
def test_a_run_without_triplets_says_why_and_writes_nothing(
    tmp_path: Path, labels: dict[int, int], rows: NDArray[np.float32], options: dict[str, Any], why: str
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels)
    out = tmp_path / "t.parquet"
    out.write_text("an older result")
    if not why:
        # identities far apart, images of one together: nothing is hard
        rows = (
            np.repeat(one_hot(4), 2, axis=0)[[0, 0, 1, 2, 3, 4, 5, 6, 7]]
            + np.float32(0.001) * one_hot(9)[:, :4]
        )
        why = "no negative is nearer than d_ap"
    with pytest.raises(ft.NoTripletsError, match=why):
        ft.mine_rec(rec, model=Table(rows.astype(np.float32)), out=out, **options)
    assert leftovers(tmp_path) == ["t.parquet"]
    assert out.read_text() == "an older result"


def test_collapsed_is_relative_to_the_norm_of_rows_that_are_not_normalized(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(3, 2))
    small = np.float32(1e-4) * one_hot(9)  # squared distances of 2e-8, all of them: far apart for their norm
    for rows, why in ((small, "strictly between"), (small[:1] + 1e-4 * small, "collapsed")):
        with pytest.raises(ft.NoTripletsError, match=why):
            ft.mine_rec(rec, model=Table(rows), normalize=False)


def test_bags_without_triplets_are_counted_and_the_first_explained(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", {1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 6: 1, 7: 2, 8: 2})
    summary = ft.mine_rec(rec, model=table(9), bag_size=4, band="any", seed=1).summary
    assert (summary.bags, summary.bags_without_triplets) == (2, 1)
    assert "of one identity" in (summary.why_no_triplets or "")


# The file


def test_out_is_replaced_only_at_the_end(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("an older result")

    def look(_: ft.Progress) -> None:
        assert out.read_text() == "an older result"

    ft.mine_rec(rec, out=out, progress=look)
    assert pl.read_parquet(out).height
    assert leftovers(tmp_path) == ["t.parquet"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_of_a_run_that_ends_in_the_middle(
    rec: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def stop(now: ft.Progress) -> None:
        if now.bag == 2:
            raise error

    with pytest.raises(error):
        ft.mine_rec(rec, out=tmp_path / "t.parquet", bag_size=12, progress=stop)
    assert leftovers(tmp_path) == []


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
    assert sorted(leftovers(tmp_path)) == ["fifo", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(rec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train-locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(PermissionError, match=r"cannot write .*t\.parquet: Permission denied"):
        ft.mine_rec(rec, out=folder / "t.parquet")


@pytest.mark.parametrize("limit", [2_000, 20_000])  # bytes: the first part does not fit; the whole does not
def test_a_full_disk_is_an_error_that_names_the_file(rec: Path, tmp_path: Path, limit: int) -> None:
    ft.index_rec(rec)
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith(f"OSError: cannot write {tmp_path / 't.parquet'}: "), done.stderr
    assert leftovers(tmp_path) == []


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
    assert leftovers(tmp_path) == ["t.parquet"]


def once(call: Any) -> Any:
    called: list[bool] = []

    def wrapper(now: ft.Progress) -> None:
        if not called:
            called.append(True)
            call(now)

    return wrapper


def test_memory_is_that_of_a_bag(rec: Path, tmp_path: Path) -> None:
    """20 times as many triplets take no more memory: 7 million of them are 500 MB."""
    code = f"""
import json, resource, sys
import fasttriplet as ft
epochs = int(sys.argv[1])
made = ft.mine_rec({str(rec)!r}, out={str(tmp_path / "t.parquet")!r}, bag_size=72, images_per_identity=6,
                   band="any", pick="all", pairs="ordered", epochs=epochs).summary.triplets
print(json.dumps([made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    used = {}
    for epochs in (5, 100):
        run = subprocess.run(
            [sys.executable, "-c", code, str(epochs)], capture_output=True, text=True, timeout=120, check=True
        )
        triplets, used[epochs] = json.loads(run.stdout)
        assert triplets == epochs * 360 * 66
    assert used[100] < used[5] + 60_000  # kB


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, not 0"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 1, not 1.5"),
        ({"epochs": True}, "epochs must be a whole number >= 1, not True"),
        ({"max_triplets": 0}, "max_triplets must be a whole number >= 1, not 0"),
        ({"max_triplets": 2.0}, "max_triplets must be a whole number >= 1, not 2.0"),
        ({"images_per_identity": 0}, "images_per_identity must be a whole number >= 1"),
        ({"bag_size": True}, "bag_size must be a whole number >= 1, not True"),
        ({"bag_size": 3}, "identity .* more images .* bag_size of 3"),
        ({"boundary": "cut"}, "boundary must be one of 'keep', 'split', not 'cut'"),
        ({"tail": "cut"}, "tail must be one of 'keep', 'drop', not 'cut'"),
        ({"negatives_per_pair": 0}, "negatives_per_pair must be"),
        ({"pairs": "all"}, "pairs"),
        ({"max_ap": "far"}, "max_ap must be a number"),
        ({"margin": -1}, "margin must be a number >= 0"),
        ({"band": "soft"}, "band"),
        ({"pick": "best"}, "pick"),
        ({"threads": 0}, "threads must be a whole number >= 1, not 0"),
        ({"seed": -1}, "seed must be"),
        ({"on_error": "ignore"}, "on_error"),
        ({"model": "resnet"}, "unknown embedder 'resnet'"),
    ],
)
def test_wrong_options_are_named(rec: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine_rec(rec, out=tmp_path / "t.parquet", **options)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("options", [{"band": "soft"}, {"bag_size": 0}, {"on_error": "no"}, {"threads": 1.5}])
def test_wrong_options_are_told_before_anything_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(*options)):
        ft.mine_rec(tmp_path / "no.rec", model="npy:no.npy", **options)
