"""The dataset of the benches: real faces, as often as needed."""

from __future__ import annotations

from pathlib import Path

import fasttriplet as ft

FACES = Path(__file__).parents[2] / "shared" / "data" / "lfw112-a" / "train.rec"
BAG, PER_IDENTITY = 7200, 5  # InsightFace's `triplet` configuration


def write_dataset(source: Path, path: Path, count: int, *, per_identity: int = PER_IDENTITY) -> Path:
    """Write `count` images of a `.rec`, over and over, as identities of `per_identity`; keys start at 0."""
    file, index = ft.RecordFile(source), ft.index_rec(source, cache=False)
    contents = [file.read(key)[1] for key in index["key"]]
    with ft.RecordWriter(path) as writer:
        for key in range(count):
            header = ft.IRHeader(0, float(key // per_identity), key, 0)
            writer.write(key, header, contents[key % len(contents)])
    return path
