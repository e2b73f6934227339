"""A small dataset with everything that a page shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from fasttriplet.verify._details import details
from tests.reporting.made import log_lines, one_of_each, write_audit, write_log
from tests.small_rec import identities, write_rec


@dataclass
class Made:
    """A dataset, and what was done with it."""

    folder: Path
    rec: Path
    dataset: ft.Dataset
    mined: ft.MineResult
    given: dict[str, Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Twelve identities of six images, mined, audited, verified and trained on."""
    folder = tmp_path_factory.mktemp("made")
    rec = write_rec(folder / "train.rec", identities(12, 6))
    dataset = ft.Dataset(rec)
    mined = ft.mine_rec(rec, out=folder / "triplets.parquet", margin=0.2)
    (folder / "run.json").write_text(json.dumps(mined.summary.to_dict()))
    found = ft.verify_rec(rec, "pixels", pairs_per_kind=50)
    result = {"file": "train.rec", "files": ["train.rec"]} | found.to_dict() | details(found)
    (folder / "verify.json").write_text(json.dumps({"model": "pixels", "results": [result]}))
    write_audit(folder / "audit", dataset, one_of_each(dataset))
    write_log(folder / "net-log.jsonl", log_lines())
    given = {
        "rec": rec,
        "triplets": folder / "triplets.parquet",
        "run": folder / "run.json",
        "audit": folder / "audit",
        "log": folder / "net-log.jsonl",
        "verify": folder / "verify.json",
    }
    return Made(folder, rec, dataset, mined, given)
