"""Each command, with a fault at each of its calls; tests/training/test_crashes.py is about trainings."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.dataset._index_cache import SUFFIX as KEPT
from tests.auditing.findings import write_suspects
from tests.dataset.pictures import people
from tests.faults import CHANGES, Fault, Faults, Kind
from tests.faults.campaign import Campaign, Case, Words
from tests.faults.disturbed import DISTURBED, Tell
from tests.small_rec import identities, write_rec

pytestmark = pytest.mark.heavy

INDEX = ("index", "--rec", "train.rec", "--threads", "1", "--json")
REC = ("--rec", "train.rec", "--no-cache", "--threads", "1")
MINE = ("mine", *REC, "--bag-size", "9", "--band", "violating", "--json")
PAIRS = ("pack-pairs", "new/small.bin", *REC, "--pairs-per-kind", "3")
VERIFY: Words = ("verify", *REC, "--model", "pixels", "--roc", "new/roc.png", "--folds", "3")
VERIFY += ("--pairs-per-kind", "9")
EMBED = ("embed", *REC, "--model", "pixels", "--out", "new/e.npy")
NEIGHBORS = ("neighbors", *REC, "--model", "pixels", "--out", "new/g.parquet")
AUDIT = ("audit", *REC, "--model", "pixels", "--out", "new")


def _rec(folder: Path) -> None:
    write_rec(folder / "train.rec", identities(6, 3))


def _mined_before(ending: str) -> Case:
    def make(folder: Path) -> None:
        _rec(folder)
        options: dict[str, Any] = {"bag_size": 18, "band": "violating", "cache": False}
        ft.mine_rec(folder / "train.rec", out=folder / f"new/t.{ending}", **options)

    return Case(make, (*MINE, "--out", f"new/t.{ending}", "--overwrite"))


def _packed_before(folder: Path) -> None:
    """Another version, with a list of what was left out."""
    damaged = people(folder / "faces") / "p1/damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff")
    ft.pack(folder / "faces", folder / "new/small.rec", split=0.4, on_error="skip", threads=1)
    damaged.unlink()
    shutil.rmtree(folder / "faces/p2")


def _index(path: Path) -> str:
    """What a run reads from a kept index, which it would replace if it could not use it."""
    before = path.stat().st_ino
    beside = (path.parent / "train.rec").exists()
    folder = path.parent if beside else path.parent.parent
    index = ft.index_rec(folder / "train.rec", cache=beside or path.parent)
    assert path.stat().st_ino == before
    return index.write_json()


def _audited_before(folder: Path) -> None:
    """Of another dataset."""
    write_rec(folder / "train.rec", identities(5, 3), damaged=frozenset({2}))
    ft.audit(folder / "train.rec", model="pixels", out=folder / "new", cache=False, threads=1)
    _rec(folder)


INDEXED = Case(_rec, INDEX, again=(), read={KEPT: _index}, prints=True)
PACK = Case(
    lambda folder: people(folder / "faces"),
    ("pack", "faces", "new/small.rec", "--split", "0.4", "--threads", "1"),
    follow=(".idx", ".csv", ".parquet", "property", "-val.rec"),
)


CLEAN: Words = ("clean", *REC[:3], "--suspects", "s.parquet", "--out", "new/c.rec")


def _audited(folder: Path) -> None:
    _rec(folder)
    moved = {"kind": "mislabelled", "key": 1, "action": "relabel", "suggested_label": 3}
    write_suspects(
        folder / "s.parquet", folder / "train.rec", moved, {"kind": "outlier", "key": 5}, cache=False
    )


def _cleaned_before(folder: Path) -> None:
    """Another version, in which other images are left."""
    _audited(folder)
    suspects = pl.read_parquet(folder / "s.parquet").head(1)
    ft.clean(folder / "train.rec", suspects=suspects, out=folder / "new/c.rec", cache=False)


def _embedded_before(folder: Path) -> None:
    """Of another dataset."""
    write_rec(folder / "train.rec", identities(5, 3))
    ft.embed_rec(folder / "train.rec", model="pixels", out=folder / "new/e.npy", cache=False, threads=1)
    _rec(folder)


def _errors(campaign: Campaign, *, number: int) -> Iterable[Fault]:
    return campaign.errors(number)


# Embeddings and what was seen are of use without the results.
AUDITED = Case(
    _rec,
    AUDIT,
    follow=("embeddings.json", "identities.parquet"),
    sets=(
        ("embeddings.npy", "embeddings.json"),
        ("pictures.parquet",),
        ("suspects.parquet", "identities.parquet"),
    ),
    prints=True,
)
EMBEDDED = Case(_rec, (*EMBED, "--resume"), again=(), follow=(".json",), keeps="e.npy.unfinished")
CASES = {
    "embed": EMBEDDED,
    "embed again": replace(EMBEDDED, make=_embedded_before, words=(*EMBED, "--overwrite")),
    "audit": AUDITED,
    "audit again": replace(AUDITED, make=_audited_before, words=(*AUDIT, "--overwrite")),
    "index": replace(INDEXED, optional=(KEPT,)),
    "index into a folder": replace(INDEXED, words=(*INDEX, "--cache-dir", "kept")),
    "mine": Case(_rec, (*MINE, "--out", "new/t.parquet")),
    **{f"mine again, {ending}": _mined_before(ending) for ending in ("csv", "arrow", "jsonl")},
    "neighbors": Case(_rec, NEIGHBORS),
    "pack": PACK,
    "pack again": replace(PACK, make=_packed_before, words=(*PACK.words, "--overwrite")),
    "pack-pairs": Case(_rec, PAIRS, prints=True),
    "clean": Case(_audited, CLEAN, follow=(".idx", ".parquet", "property")),
    "clean again": Case(_cleaned_before, (*CLEAN, "--overwrite"), follow=(".idx", ".parquet", "property")),
    "report": Case(_rec, ("report", *REC[:3], "--out", "new/a.html"), prints=True),
    "verify": Case(_rec, VERIFY, prints=True),
}
EACH = (errno.EIO, errno.ENOSPC, errno.EINTR)
# What the quick tests let fail.
QUICK: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("index", "mine", "pack-pairs"), DISTURBED),
    "audit": ("write",),
    "audit again": (),
    "embed": DISTURBED,
    "embed again": CHANGES,
    **dict.fromkeys(("index into a folder", "mine again, csv"), CHANGES),
    **dict.fromkeys(("neighbors", "pack", "clean"), ("create", "write")),
    "clean again": (),
    "pack again": (),  # tests/dataset/test_pack_interrupted.py is about its errors
}
THOROUGH: dict[str, Callable[[Campaign], Iterable[Fault]]] = {
    "kill": Campaign.kills,
    **{errno.errorcode[number]: partial(_errors, number=number) for number in (*EACH, errno.EACCES)},
    "full": Campaign.full,
    "half": Campaign.halves,
}


@pytest.fixture(scope="module")
def commands(shim: Path) -> Iterator[Faults]:
    with Faults(shim) as faults:
        yield faults


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_at_each_call(commands: Faults, in_memory: Path, name: str, record_property: Tell) -> None:
    """A kill before each call that changes a file under its final name, and an error of each call."""
    campaign = Campaign(CASES[name], commands, in_memory, record_property, quick=True)
    campaign.go_through(campaign.kills(), campaign.errors(*EACH, kinds=QUICK[name]))


@pytest.mark.slow
@pytest.mark.parametrize("how", THOROUGH)
@pytest.mark.parametrize("name", CASES)
def test_all_faults_at_all_calls(
    commands: Faults, in_memory: Path, name: str, how: str, record_property: Tell
) -> None:
    campaign = Campaign(CASES[name], commands, in_memory, record_property, quick=False)
    campaign.go_through(THOROUGH[how](campaign))
