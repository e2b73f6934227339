"""`fasttriplet.torch.mx` gives datasets what MXNet gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.small_rec import picture

torch = pytest.importorskip("torch")

from fasttriplet.torch import mx as stand_in  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """A record with one label and one with two, as InsightFace's tools write them."""
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        writer.write(1, ft.IRHeader(0, 7.0, 1, 0), picture(1))
        writer.write(5, ft.IRHeader(2, np.array([9, 1], np.float32), 5, 3), picture(2))
    return tmp_path / "train.rec"


def read(mx: Any, rec: Path) -> list[Any]:
    """What a dataset reads by these names."""
    records = mx.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "r")
    found: list[Any] = [list(records.keys)]
    for key in records.keys:
        header, image = mx.recordio.unpack(records.read_idx(key))
        label = header.label if header.flag == 0 else [float(label) for label in header.label]
        pixels = mx.image.imdecode(image).asnumpy()
        found += [header.flag, label, header.id, header.id2, bytes(image), pixels.tolist(), pixels.dtype]
    records.close()
    return found


@pytest.mark.mxnet
def test_it_is_what_mxnet_reads(rec: Path, mx: Any) -> None:
    assert read(stand_in, rec) == read(mx, rec)


def test_labels_become_tensors(rec: Path) -> None:
    records = stand_in.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "r")
    one, two = (stand_in.recordio.unpack(records.read_idx(key))[0].label for key in (1, 5))
    assert torch.tensor(one, dtype=torch.long) == 7
    assert torch.tensor(two[0], dtype=torch.long) == 9
    assert isinstance(stand_in.recordio.unpack(records.read_idx(1))[0], stand_in.recordio.IRHeader)


def test_it_does_not_write(rec: Path) -> None:
    with pytest.raises(ValueError, match=r"flag='w' .*RecordWriter writes"):
        stand_in.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "w")
