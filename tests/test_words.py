"""Counts in messages."""

from __future__ import annotations

import pytest

from fasttriplet._words import counted


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1024, "image", "1,024 images"),
        (2, "identity", "2 identities"),
        (1, "identity record", "1 identity record"),
        (5, "key", "5 keys"),
        (3, "batch", "3 batches"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_counted(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
