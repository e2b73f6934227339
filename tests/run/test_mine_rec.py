"""A run over all bags: every triplet against its definition, damaged records, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.dataset._order import epoch_seed
from tests import reference
from tests.run.leftovers import besides_datasets, nothing_left
from tests.run.plain_feed import IMAGE, Rows
from tests.small_rec import identities, picture, random_table, write_rec

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
    model = random_table(100)
    frame = ft.mine_rec(rec, model=model, bag_size=20, images_per_identity=4, epochs=2, **options)
    seed = options.get("seed", 0)
    expected, stats = [], []
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
            stats.append(ft.mine(model.rows[keys], bag.rows["label"], ids=keys, **options).stats)
    for name in ("pairs", "pairs_over_max_ap", "pairs_without_negative"):
        assert getattr(frame.summary, name) == sum(getattr(one, name) for one in stats)
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


@pytest.mark.parametrize("needs_images", [True, False])
def test_mine_rec_is_the_same_whatever_is_ahead(rec: Path, tmp_path: Path, needs_images: bool) -> None:
    model = Rows(1, 100, 8, 0, needs_images=needs_images)
    options: dict[str, Any] = {"bag_size": 15, "epochs": 3, "model": model, "band": "violating"}
    with nothing_left():
        expected = ft.mine_rec(rec, **options).triplets.collect()
    assert expected.height
    for number, (prefetch, memory, threads_) in enumerate(
        [(p, m, t) for p in (0, 1, 3) for m, t in ((1, 1), (2, 2), (15, 1), (None, 2))]
    ):
        with nothing_left():
            result = ft.mine_rec(
                rec,
                out=tmp_path / f"{number}.parquet" if number % 2 else None,
                prefetch=prefetch,
                memory=None if memory is None else memory * IMAGE,
                threads=threads_,
                **options,
            )
            assert result.triplets.collect().equals(expected)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_of_mine_rec_must_hold_an_image(rec: Path, prefetch: int) -> None:
    model = Rows(1, 100, 8, 0, needs_images=True)
    with nothing_left(), pytest.raises(ft.OptionError, match="memory must be at least"):
        ft.mine_rec(rec, model=model, memory=IMAGE - 1, prefetch=prefetch)


def test_shards_are_one_dataset(tmp_path: Path) -> None:
    """Both files have the same keys, and share identities."""
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


def test_stopping_in_the_only_bag_is_said(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(12, 6))
    summary = ft.mine_rec(rec, band="any", max_triplets=5).summary
    assert (summary.bags, summary.triplets) == (1, 5)
    assert summary.stopped_at_max_triplets


def test_progress_counts_up(rec: Path) -> None:
    told: list[ft.Progress] = []
    result = ft.mine_rec(rec, bag_size=24, epochs=2, progress=told.append)
    ends = [(now.epoch, now.bag) for now in told]
    assert ends == sorted(ends)
    assert ends[-1] == (2, 3)
    assert (ends[0], told[0].images) == ((1, 1), 0)  # else a slow first bag would look like slow indexing
    last = told[-1]
    assert (last.epochs, last.bags) == (2, 3)
    assert (last.images, last.triplets) == (result.summary.images, result.summary.triplets)
    for name in ("images", "triplets"):
        counts = [getattr(now, name) for now in told]
        assert counts == sorted(counts)


def test_a_damaged_record_ends_the_run_or_is_left_out_and_listed(tmp_path: Path) -> None:
    damaged = frozenset({3, 11})
    rec = write_rec(tmp_path / "train.rec", identities(6, 5), damaged)
    with pytest.raises(ft.RecordError, match=rf"{rec}, key (3|11)"):
        ft.mine_rec(rec, out=tmp_path / "t.parquet")
    assert besides_datasets(tmp_path) == []
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
    """A bag may have more odd images than others, once the first bag has said which size is odd."""
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
    with pytest.raises(
        ft.NoTripletsError, match=r"none of 6 images can be decoded; the first: .*train.rec, key \d, offset "
    ):
        ft.mine_rec(rec, on_error="skip", out=tmp_path / "t.parquet")
    assert besides_datasets(tmp_path) == []


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
        ({"bag_size": 3}, "a bag of 3 images .* raise bag_size to 10 or more, .*boundary='split'"),
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
        ({"resume": "no"}, "resume must be True or False, not 'no'"),
        ({"overwrite": 1}, "overwrite must be True or False, not 1"),
        ({"model": "resnet"}, "unknown embedder 'resnet'"),
    ],
)
def test_wrong_options_are_named(rec: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine_rec(rec, out=tmp_path / "t.parquet", **options)
    assert besides_datasets(tmp_path) == []


@pytest.mark.parametrize("call", [ft.mine_rec, ft.embed_rec])
def test_what_is_no_dataset_is_named(tmp_path: Path, call: Any) -> None:
    for rec in (None, 5, [5]):
        with pytest.raises(ft.OptionError, match=r"^rec must be the path of a \.rec file or several, not "):
            call(rec, model="pixels", out=tmp_path / "a.npy")


@pytest.mark.parametrize("options", [{"band": "soft"}, {"bag_size": 0}, {"on_error": "no"}, {"threads": 1.5}])
def test_wrong_options_are_told_before_anything_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(*options)):
        ft.mine_rec(tmp_path / "no.rec", model="npy:no.npy", **options)
