"""Numbers and names in messages."""

from __future__ import annotations

import pytest

from fasttriplet._words import advising, counted, prefixing


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "pair") for n in (0, 1, 2, 6000)] == ["0 pairs", "1 pair", "2 pairs", "6,000 pairs"]
    nouns = {"identity": "2 identities", "key": "2 keys", "batch": "2 batches", "epoch": "2 epochs"}
    nouns["identity record"] = "2 identity records"
    assert {noun: counted(2, noun) for noun in nouns} == nouns
    assert counted(1, "identity record") == "1 identity record"


def test_errors_name_the_file() -> None:
    with pytest.raises(ValueError, match=r"^a\.bin: too short$"), prefixing("a.bin"):
        raise ValueError("too short")
    with pytest.raises(OSError, match="full"), prefixing("a.bin"):
        raise OSError("full")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "not enough memory; lower x"),
        ("Unable to allocate 1 GiB", "not enough memory: unable to allocate 1 GiB; lower x"),
        ("not enough memory: 1 GB; lower y", "not enough memory: 1 GB; lower y"),
    ],
)
def test_too_little_memory_comes_with_advice_once(said: str, told: str) -> None:
    with pytest.raises(MemoryError) as error, advising("lower x"):
        raise MemoryError(said)
    assert str(error.value) == told
