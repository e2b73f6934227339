"""Files are on the disk before they get their names, and their names before the command ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.cli import main
from tests.auditing.findings import write_suspects
from tests.dataset.pictures import people, save

SEEN = {"embeddings.npy", "embeddings.json", "pictures.parquet"}  # which an audit uses again
COMMANDS = {
    "index --rec train.rec": {"train.rec.index"},
    **{
        f"mine --rec train.rec --out t.{ending} --band any --no-cache": {f"t.{ending}"}
        for ending in ("parquet", "csv", "ndjson", "jsonl", "arrow", "feather")
    },
    "pack people new/a.rec --size 20 --split 0.4 --on-error skip": {
        f"new/{part}.{ending}"
        for part in ("a", "a-val")
        for ending in ("rec", "idx", "identities.csv", "sources.parquet")
    } | {"new/property", "new/a.problems.csv"},
    "clean --rec train.rec --suspects s.parquet --out new/c.rec --no-cache": {
        *("new/c.rec", "new/c.idx", "new/c.changes.parquet", "new/property"),
    },
    "pack-pairs a.bin --rec train.rec --pairs-per-kind 9 --no-cache": {"a.bin"},
    "report --rec train.rec --out new/a.html --no-cache": {"new/a.html"},
    "verify --rec train.rec --model pixels --pairs-per-kind 9 --roc a.png --no-cache": {"a.png"},
    "embed --rec train.rec --model pixels --out new/e.npy --no-cache": {"new/e.npy", "new/e.npy.json"},
    "neighbors --rec train.rec --model pixels --out new/g.parquet --no-cache": {"new/g.parquet"},
    "audit --rec train.rec --model pixels --out new --no-cache": {
        f"new/{name}" for name in ("suspects.parquet", "identities.parquet", "audit.html", *SEEN)
    },
    "completion bash": set[str](),
}  # fmt: skip


class Disk:
    """Notes which files are on the disk, and fails where a name comes too early."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: set[tuple[int, int]] = set()  # files
        self.names: set[str] = set()
        self.waiting: set[str] = set()  # names that are not yet on the disk
        patch.setattr(os, "fsync", self.fsync)
        for name in ("rename", "replace", "link"):
            patch.setattr(os, name, self.naming(getattr(os, name)))

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.synced.add((status.st_dev, status.st_ino))
        folder = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        self.waiting = {name for name in self.waiting if os.path.dirname(os.path.realpath(name)) != folder}  # noqa: PTH120

    def naming(self, real: Any) -> Any:
        def name(source: Any, target: Any) -> None:
            status = os.stat(source)  # noqa: PTH116
            real(source, target)
            if ".unfinished" not in str(target):
                assert (status.st_dev, status.st_ino) in self.synced, f"{target} is not on the disk"
                self.names.add(str(target))
                self.waiting.add(str(target))

        return name


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("again", [False, True])
def test_files_are_on_the_disk(rec: Path, command: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rec.parent)
    save(people(Path("people")) / "p1" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    write_suspects(Path("s.parquet"), rec, {"kind": "outlier", "key": 1}, cache=False)
    if "verify" in command:
        pytest.importorskip("matplotlib")
    if again:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)
            assert main(command.split()) == 0
        os.utime(rec)  # the index is stale
        command += " --overwrite" if COMMANDS[command] - {"train.rec.index"} else ""
    before = {str(path): path.stat().st_ino for path in Path().rglob("*") if path.is_file()}
    disk = Disk(monkeypatch)
    assert main(command.split()) == 0
    after = {str(path): path.stat().st_ino for path in Path().rglob("*") if path.is_file()}
    written = {path for path in after if before.get(path) != after[path]}
    expected = COMMANDS[command.removesuffix(" --overwrite")]
    expected = {path for path in expected if not again or Path(path).name not in SEEN}
    assert written == expected == {os.path.relpath(name) for name in disk.names}
    assert disk.waiting == set()
