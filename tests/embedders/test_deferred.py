"""The embedder of a spec that is loaded where it embeds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest

from fasttriplet.embedders import _deferred
from fasttriplet.embedders._deferred import DeferredEmbedder
from tests.small_rec import random_table

ROWS = pl.DataFrame({"key": [5, 7]})


class Begins:
    """A network that says how it was loaded, and begins to embed."""

    needs_images = True

    def __init__(self, spec: str, **options: Any) -> None:
        self.description = f"{spec} {options}"

    def embed(self, rows: object, images: object) -> Any:
        return "embedded", rows, images

    def start_embedding(self, rows: object, images: object) -> Any:
        return "begun", rows, images


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Begins]:
    """The networks that were loaded."""
    found: list[Begins] = []

    def load(spec: str, **options: Any) -> Begins:
        found.append(Begins(spec, **options))
        return found[-1]

    monkeypatch.setattr(_deferred, "load_embedder", load)
    return found


def test_it_is_loaded_once_and_as_it_was_said(loaded: list[Begins]) -> None:
    embedder: Any = DeferredEmbedder("a:b", batch_size=3, devices="cpu")
    embedder.prepare(ROWS)
    assert embedder.needs_images is True
    assert loaded == []
    images: Any = object()
    assert embedder.embed(ROWS, images) == ("embedded", ROWS, images)
    assert embedder.start_embedding(ROWS, images) == ("begun", ROWS, images)
    assert embedder.description == "a:b {'batch_size': 3, 'devices': 'cpu'}"
    assert loaded == [embedder.network()]
    by_default = DeferredEmbedder("c")
    assert by_default.description == "c {'batch_size': None, 'devices': None}"


def test_a_copy_for_another_process_loads_its_own(loaded: list[Begins]) -> None:
    embedder = DeferredEmbedder("a:b")
    embedder.known = embedder.description
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy.description == embedder.known
    assert len(loaded) == 1  # the description was known
    copy.network()
    assert len(loaded) == 2


@pytest.mark.usefixtures("loaded")
def test_it_runs_alike_everywhere() -> None:
    embedder = DeferredEmbedder("a:b", devices="cpu")
    embedder.known = "a:b on a GPU"
    assert embedder.description == "a:b on a GPU"
    with pytest.raises(ValueError, match="a:b runs differently on two machines") as caught:
        embedder.embed(ROWS, None)
    assert str(caught.value) == (
        "a:b runs differently on two machines, so its embeddings could differ: a:b on a GPU; and "
        "a:b {'batch_size': None, 'devices': 'cpu'}; say where it runs (devices)"
    )


def test_what_begins_nothing_embeds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table()
    monkeypatch.setattr(_deferred, "load_embedder", lambda *_, **__: table)
    begun = DeferredEmbedder("a").start_embedding(ROWS, None)
    assert np.array_equal(begun.result(), table.rows[[5, 7]])
