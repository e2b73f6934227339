"""A run without bags gives what one call of `mine` gives for all embeddings, from wherever it was stopped."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.dataset._order import epoch_seed
from fasttriplet.mining._blocks import most_rows
from fasttriplet.mining._steps import cut
from fasttriplet.run import _whole
from tests.run.leftovers import besides_datasets
from tests.small_rec import Table, identities, write_rec

pytestmark = pytest.mark.heavy

SMALL = 40_000  # bytes: blocks of about 50 rows of 16 numbers
OPTIONS: list[dict[str, Any]] = [
    {},
    {"pick": "hardest", "negatives_per_pair": 3, "pairs": "ordered"},
    {"pick": "all", "margin": 0.05},
    {"pick": "distance", "band": "any", "pairs": "easiest"},
    {"band": "any", "ranks": (5, None), "negatives_per_pair": 2},
    {"fallback": "farthest", "margin": 1e-6, "triplets_per_anchor": 2},
    {"max_ap": 1.5, "metric": "cosine", "positives_per_anchor": 2, "band": "violating"},
]


def dataset(folder: Path, labels: dict[int, int], *, sorted_by_label: bool = True) -> tuple[Path, Path]:
    """A `.rec` and its embeddings: 16 numbers, near the centre of the identity."""
    keys = list(labels)
    if not sorted_by_label:
        mixed = random.Random(1).sample(list(labels.values()), len(labels))
        labels = dict(zip(keys, mixed, strict=True))
    rec = write_rec(folder / "train.rec", labels, side=8)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(labels.values()) + 1, 16))
    rows = centres[list(labels.values())] + 0.8 * rng.normal(size=(len(labels), 16))
    np.save(folder / "e.npy", rows.astype(np.float32))
    return rec, folder / "e.npy"


def by_one_call(rec: Path, embeddings: NDArray[Any], seed: int = 0, **options: Any) -> pl.DataFrame:
    index = ft.index_rec(rec, cache=False)
    keys, labels = index["key"].to_numpy(), index["label"].to_numpy()
    found = ft.mine(embeddings, labels, ids=keys, seed=epoch_seed(seed, 0), **options)
    return found.to_frame()


def columns(triplets: pl.DataFrame) -> pl.DataFrame:
    return triplets.select(
        anchor="anchor_key", positive="positive_key", negative="negative_key", d_ap="d_ap", d_an="d_an"
    )


@pytest.mark.parametrize("sorted_by_label", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_triplets_are_those_of_one_call(
    tmp_path: Path, options: dict[str, Any], sorted_by_label: bool
) -> None:
    rec, file = dataset(tmp_path, identities(80, 4), sorted_by_label=sorted_by_label)
    expected = by_one_call(rec, np.load(file), seed=3, **options)
    assert len(expected)
    written = set()
    for memory in (None, SMALL, 3 * SMALL):
        result = ft.mine_rec(
            rec,
            model=f"npy:{file}",
            out=tmp_path / "t.parquet",
            overwrite=True,
            bag_size=None,
            memory=memory,
            seed=3,
            **options,
        )
        found = result.triplets.collect()
        assert columns(found).equals(expected)
        assert {*found["epoch"], *found["bag"]} == {0}
        assert result.summary.triplets == len(expected)
        assert result.summary.images == 320
        written.add((tmp_path / "t.parquet").read_bytes())
    assert len(written) == 1
    assert sorted(besides_datasets(tmp_path)) == ["e.npy", "t.parquet"]


def test_in_memory_excluded_and_of_several_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (dataset(tmp_path / name, identities(30, 4)) for name in ("a", "b"))
    rows = np.concatenate([np.load(first[1]), np.load(second[1]) + 0.1]).astype(np.float32)
    np.save(tmp_path / "both.npy", rows)
    both = ft.Dataset([first[0], second[0]], labels="shared")
    exclude = pl.DataFrame({"key": [5, 6], "file": [0, 1]})
    result = ft.mine_rec(
        both, model=f"npy:{tmp_path / 'both.npy'}", bag_size=None, memory=SMALL, exclude=exclude
    )
    keep = ~np.isin(np.arange(240), [4, 125])
    found = ft.mine(rows[keep], both.labels[keep], ids=both.ids[keep], seed=epoch_seed(0, 0))
    triplets = result.triplets.collect()
    assert (triplets["anchor_key"] + triplets["anchor_file"].cast(pl.Int64) * 2**48).to_list() == list(
        found.anchor
    )
    assert (triplets["negative_key"] + triplets["negative_file"].cast(pl.Int64) * 2**48).to_list() == list(
        found.negative
    )
    assert result.summary.images_excluded == 2


@pytest.mark.parametrize("most", [1, 2, 5, 7, 100])
def test_blocks_hold_whole_identities(most: int) -> None:
    rng = np.random.default_rng(most)
    for _ in range(50):
        labels = np.sort(rng.integers(0, rng.integers(1, 12), rng.integers(1, 60)))
        blocks = cut(labels, most)
        assert [first for first, _ in blocks] == [0, *(end for _, end in blocks[:-1])]
        assert blocks[-1][1] == len(labels)
        for first, end in blocks:
            assert first == 0 or labels[first - 1] != labels[first]
            assert end - first <= most or len(set(labels[first:end])) == 1


# Bad input


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(40, 4))
    rows = np.load(file)
    rows[[7, 90]] = np.nan
    np.save(file, rows)
    with pytest.raises(ValueError, match="the embedding of the image with key 8 holds NaN or infinity"):
        ft.mine_rec(rec, model=f"npy:{file}", bag_size=None)
    result = ft.mine_rec(rec, model=f"npy:{file}", bag_size=None, on_error="skip", memory=SMALL)
    keep = np.isfinite(rows[:, 0])
    index = ft.index_rec(rec, cache=False)
    expected = ft.mine(
        rows[keep],
        index["label"].to_numpy()[keep],
        ids=index["key"].to_numpy()[keep],
        seed=epoch_seed(0, 0),
    )
    assert columns(result.triplets.collect()).equals(expected.to_frame())
    assert [one.split(":")[0] for one in result.summary.skipped] == [
        "the image with key 8",
        "the image with key 91",
    ]


@pytest.mark.parametrize(
    ("rows", "at_once", "most"),
    [
        (3_000_000, 1, most_rows((3_000_000, 512), 2**30)),  # what fits the memory of a machine
        (3_000_000, 200, 75_000),  # 40 blocks, and so 800 pairs of them: four for each of the 200
        (20_000, 200, 8192),  # no fewer
    ],
)
def test_machines_have_several_steps_each(rows: int, at_once: int, most: int) -> None:
    machines = SimpleNamespace(is_here=False, memory=2**30, at_once=lambda: at_once)
    table, options = SimpleNamespace(shape=(rows, 512)), SimpleNamespace(memory=None)
    whole: Any = SimpleNamespace(_table=table, _machines=machines, _options=options)
    assert _whole.Whole._most(whole) == most


def test_too_few_embeddings_are_left(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(10, 4))
    for left in (0, 1, 4):
        rows = np.load(file)
        rows[left:] = np.inf
        np.save(tmp_path / "few.npy", rows)
        with pytest.raises(ft.NoTripletsError, match="of the images with an embedding: "):
            ft.mine_rec(rec, model=f"npy:{tmp_path / 'few.npy'}", bag_size=None, on_error="skip")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bag_size": None, "epochs": 2}, "epochs has no meaning with bag_size=None"),
        ({"bag_size": None, "max_triplets": 2}, "max_triplets has no meaning"),
        ({"bag_size": None, "images_per_identity": 3}, "images_per_identity has no meaning"),
        ({"bag_size": None, "boundary": "split"}, "boundary has no meaning"),
        ({"bag_size": None, "tail": "drop"}, "tail has no meaning"),
        ({"bag_size": None, "neighbors": "g.parquet"}, "neighbors has no meaning"),
        ({"bag_size": None, "resume": True}, "resume needs out"),
        ({"bag_size": None, "resume": True, "overwrite": True}, "resume does not go with overwrite=True"),
        ({"resume": True}, "resume is for bag_size=None"),
        ({"resume": True, "ray": "local"}, "resume needs out"),
        ({"bag_size": None, "ray": "10.0.0.1:6379"}, "out must be given with bag_size=None and ray"),
        ({"ray": ""}, "ray must be an address, 'auto' or 'local', not ''"),
        ({"ray": 6379}, "ray must be an address, 'auto' or 'local', not 6379"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ft.OptionError, match=words):
        ft.mine_rec(tmp_path / "none.rec", **options)


def test_no_triplets_and_collapsed(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(40, 4))
    with pytest.raises(ft.NoTripletsError, match="no triplet in 160 images; no negative lies strictly"):
        ft.mine_rec(rec, model=f"npy:{file}", out=tmp_path / "t.parquet", bag_size=None, margin=1e-9)
    np.save(file, np.ones((160, 16), np.float32))
    with pytest.raises(ft.CollapsedError):
        ft.mine_rec(rec, model=f"npy:{file}", out=tmp_path / "t.parquet", bag_size=None)
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize("first", [300, 1], ids=["of one identity", "of identities without pairs"])
def test_why_there_are_no_triplets_where_the_first_block_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int
) -> None:
    """Nor a sample of the first identities. And without advice about bags, as there are none."""
    monkeypatch.setattr(_whole, "_SAMPLE", 30)
    labels = {key: key // first for key in range(300)}
    rec, file = dataset(tmp_path, labels | {300 + key: 300 + key // 4 for key in range(20)})
    with pytest.raises(ft.NoTripletsError) as raised:
        ft.mine_rec(rec, model=f"npy:{file}", bag_size=None, band="hard", ranks=(999, None), memory=SMALL)
    assert str(raised.value) == (
        "no triplet in 320 images; no pair has more than 999 negatives that qualify, and ranks leave these "
        "out: lower the first of the ranks"
    )
    with pytest.raises(ft.NoTripletsError, match=r"; no negative is .* identities; raise the margin$"):
        ft.mine_rec(rec, model=f"npy:{file}", bag_size=None, band="d_an < d_ap - 50", memory=SMALL)


# Stopped, and resumed

RUN = """
import sys, time
import fasttriplet as ft
from fasttriplet.mining._steps import Steps
rec, file, out, pause, memory = sys.argv[1:]
do = Steps.do
def slow(self, job, *, threads):
    do(self, job, threads=threads)
    time.sleep(float(pause))
Steps.do = slow
def progress(now):
    print(now.steps, flush=True)
how = dict(bag_size=None, memory=int(memory), resume=True, progress=progress)
ft.mine_rec(rec, model=f"npy:{file}", out=out, **how)
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    whole, out = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    ft.mine_rec(rec, model=f"npy:{file}", out=whole, bag_size=None, memory=SMALL)
    moments = random.Random(0)
    for _ in range(5):
        arguments = [sys.executable, "-c", RUN, str(rec), str(file), str(out), "0.05", str(SMALL)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(moments.uniform(0, 0.25))
            run.kill()
        assert not out.exists()
    subprocess.run([*arguments[:-2], "0", str(SMALL)], check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "t.parquet.unfinished").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


def interrupted(rec: Path, file: Path, out: Path, after: int = 3, **options: Any) -> BaseException:
    def stop(now: Any) -> None:
        if now.steps == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        ft.mine_rec(rec, model=f"npy:{file}", out=out, bag_size=None, memory=SMALL, progress=stop, **options)
    return stopped.value


def test_what_is_kept_is_said_and_must_fit(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    out, kept = tmp_path / "t.parquet", tmp_path / "t.parquet.unfinished"
    error = interrupted(rec, file, out)
    total = json.loads((kept / "about.json").read_text())["of"]["blocks"]
    steps = len(total) * (len(total) + 1) // 2
    assert error.__notes__ == [f"kept in {kept}: 3 of {steps} pairs of blocks; resume=True continues"]
    call: dict[str, Any] = {"model": f"npy:{file}", "out": out, "bag_size": None, "memory": SMALL}
    with pytest.raises(FileExistsError, match="resume=True continues it, overwrite=True starts again"):
        ft.mine_rec(rec, **call)
    with pytest.raises(ValueError, match=r"it was begun with margin 0\.3, not 0\.2"):
        ft.mine_rec(rec, **call, resume=True, margin=0.2)
    with pytest.raises(ValueError, match="it is of the seed 0, not 1"):
        ft.mine_rec(rec, **call, resume=True, seed=1)
    with pytest.raises(ValueError, match="its blocks have other sizes"):
        ft.mine_rec(rec, **call | {"memory": 2 * SMALL}, resume=True)
    rows = np.load(file)
    np.save(file, rows + 1)
    with pytest.raises(ValueError, match="the embeddings are others"):
        ft.mine_rec(rec, **call, resume=True)
    np.save(file, rows)
    result = ft.mine_rec(rec, **call, resume=True)
    assert columns(result.triplets.collect()).equals(by_one_call(rec, rows))
    assert not kept.exists()


def test_a_folder_of_work_that_is_damaged(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    out, kept = tmp_path / "t.parquet", tmp_path / "t.parquet.unfinished"
    interrupted(rec, file, out)
    call: dict[str, Any] = {"model": f"npy:{file}", "out": out, "bag_size": None, "memory": SMALL}
    about, refusal = kept / "about.json", f"{kept} is not the work of a run of this version; overwrite=True"
    whole = json.loads(about.read_text())
    changes: list[dict[str, Any]] = [
        {"fasttriplet": "unfinished embeddings"}, {"version": 1}, {"token": 5},
        {"token": whole["token"] + "0"}, {"token": "../../../mine/it"}, {"of": []},
    ]  # fmt: skip
    for content in ("", "[", "[" * 100_000, "[]", "5", *(json.dumps(whole | change) for change in changes)):
        about.write_text(content)
        with pytest.raises(ValueError) as refused:
            ft.mine_rec(rec, **call, resume=True)
        assert str(refused.value) == f"{refusal} starts again"
    # What lacks is made again, and what was half written when the run was killed is removed.
    shutil.rmtree(kept / whole["token"])
    about.write_text(json.dumps(whole))
    interrupted(rec, file, out, after=2, resume=True)
    (kept / whole["token"] / ".half").write_text("a step")
    result = ft.mine_rec(rec, **call, resume=True)
    assert columns(result.triplets.collect()).equals(by_one_call(rec, np.load(file)))
    assert sorted(besides_datasets(tmp_path)) == ["e.npy", "t.parquet"]


def test_a_run_that_may_not_replace_its_output_is_resumed_as_one(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    out, kept = tmp_path / "t.parquet", tmp_path / "t.parquet.unfinished"
    for overwrite, known in ((True, True), (True, "yes"), (False, False)):
        out.unlink(missing_ok=True)
        interrupted(rec, file, out, overwrite=overwrite)
        about = json.loads((kept / "about.json").read_text())
        assert about["overwrite"] is overwrite
        (kept / "about.json").write_text(json.dumps(about | {"overwrite": known}))
        out.write_text("mine")
        call: dict[str, Any] = {"model": f"npy:{file}", "out": out, "bag_size": None, "memory": SMALL}
        if known is True:
            ft.mine_rec(rec, **call, resume=True)
            assert out.read_bytes().startswith(b"PAR1")
        else:
            with pytest.raises(FileExistsError, match=r"t\.parquet"):
                ft.mine_rec(rec, **call, resume=True)
            assert out.read_text() == "mine"
            shutil.rmtree(kept)


def test_nothing_is_kept_where_nothing_is_done(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    error = interrupted(rec, file, tmp_path / "t.parquet", after=0)
    assert not hasattr(error, "__notes__")
    assert besides_datasets(tmp_path) == ["e.npy"]


def test_work_is_removed_where_it_is_not_wanted(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    out, kept = tmp_path / "t.parquet", tmp_path / "t.parquet.unfinished"
    interrupted(rec, file, out)
    ft.mine_rec(rec, model=f"npy:{file}", out=out, bag_size=None, margin=0.2, overwrite=True)
    assert not kept.exists()
    kept.mkdir()
    (kept / "mine.txt").write_text("a user's")
    with pytest.raises(FileExistsError, match=r"is in the way: .*; move it away"):
        ft.mine_rec(rec, model=f"npy:{file}", out=out, bag_size=None, overwrite=True)
    out.unlink()
    with pytest.raises(FileExistsError, match=r"is in the way: .*; move it away"):
        ft.mine_rec(rec, model=f"npy:{file}", out=out, bag_size=None, resume=True)
    assert [path.name for path in kept.iterdir()] == ["mine.txt"]
    (kept / "mine.txt").unlink()
    (kept / ".about.json.unfinished").mkdir()  # of a run that was killed when it began
    ft.mine_rec(rec, model=f"npy:{file}", out=out, bag_size=None)
    assert not kept.exists()


def test_embeddings_that_change_meanwhile(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))

    def change(now: Any) -> None:
        if now.steps == 2:
            with file.open("r+b") as opened:
                opened.seek(-4, 2)
                opened.write(b"\0\0\0\0")

    with pytest.raises(ValueError, match="the file was changed while it was mined"):
        ft.mine_rec(
            rec,
            model=f"npy:{file}",
            out=tmp_path / "t.parquet",
            bag_size=None,
            memory=SMALL,
            progress=change,
        )
    assert not (tmp_path / "t.parquet").exists()


def test_two_runs_at_once(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    arguments = [sys.executable, "-c", RUN, str(rec), str(file), str(tmp_path / "t.parquet"), "1", str(SMALL)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        run.stdout.readline()
        with pytest.raises(FileExistsError, match="another run is writing it"):
            ft.mine_rec(rec, model=f"npy:{file}", out=tmp_path / "t.parquet", bag_size=None, resume=True)
        run.send_signal(signal.SIGKILL)


# From a model


def test_images_are_embedded_first(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(20, 4), side=8)
    out = tmp_path / "t.parquet"
    result = ft.mine_rec(rec, model="pixels", out=out, bag_size=None, margin=1.0)
    embedder = ft.load_embedder("pixels")
    index = ft.index_rec(rec, cache=False)
    embedder.prepare(index)
    rows = embedder.embed(index, ft.Dataset(rec).decode(index).pixels)
    assert columns(result.triplets.collect()).equals(by_one_call(rec, rows, margin=1.0))
    assert sorted(besides_datasets(tmp_path)) == ["t.parquet"]


class Stops(Table):
    """An embedder that stops after some calls."""

    def __init__(self, rows: NDArray[np.float32], calls: int) -> None:
        super().__init__(rows)
        self.calls = calls

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().embed(rows, images)


def test_embedding_is_resumed_too(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(600, 4), side=8)
    table = np.random.default_rng(0).standard_normal((2500, 16)).astype(np.float32)
    out = tmp_path / "t.parquet"
    with pytest.raises(KeyboardInterrupt) as stopped:
        ft.mine_rec(rec, model=Stops(table, 2), out=out, bag_size=None)
    assert "images are kept in" in stopped.value.__notes__[0]
    with pytest.raises(FileExistsError, match="resume=True continues it"):
        ft.mine_rec(rec, model=Table(table), out=out, bag_size=None)
    shutil.rmtree(tmp_path / "t.parquet.unfinished")
    out.write_bytes(b"an old file")
    with pytest.raises(KeyboardInterrupt):
        ft.mine_rec(rec, model=Stops(table, 2), out=out, bag_size=None, overwrite=True)
    # The run that is continued was allowed to replace the old file.
    result = ft.mine_rec(rec, model=Stops(table, 5), out=out, bag_size=None, resume=True)
    index = ft.index_rec(rec, cache=False)
    expected = by_one_call(rec, table[index["key"].to_numpy()])
    assert columns(result.triplets.collect()).equals(expected)
    assert sorted(besides_datasets(tmp_path)) == ["t.parquet"]


def test_damaged_images_are_left_out(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(20, 4), frozenset({7, 30}), side=8)
    with pytest.raises(ft.RecordError):
        ft.mine_rec(rec, model="pixels", bag_size=None, margin=1.0)
    result = ft.mine_rec(rec, model="pixels", bag_size=None, margin=1.0, on_error="skip")
    triplets = result.triplets.collect()
    used = {*triplets["anchor_key"], *triplets["positive_key"], *triplets["negative_key"]}
    assert not used & {7, 30}
    assert [" ".join(one.split()[:5]) for one in result.summary.skipped] == [
        "the image with key 7:",
        "the image with key 30:",
    ]
    assert all("holds NaN" not in one for one in result.summary.skipped)
    assert result.summary.images == 78


def test_a_feed_needs_bags(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(20, 4), side=8)
    with pytest.raises(ft.OptionError, match="only mine_rec takes the whole dataset"):
        list(ft.Feed(rec, model="pixels", bag_size=None))
