"""Numbers and names in messages."""

from __future__ import annotations

import pytest

from fasttriplet._words import amount_of, counted, naming


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "pair") for n in (0, 1, 2, 6000)] == ["0 pairs", "1 pair", "2 pairs", "6,000 pairs"]
    nouns = {"identity": "2 identities", "key": "2 keys", "batch": "2 batches", "epoch": "2 epochs"}
    nouns["identity record"] = "2 identity records"
    assert {noun: counted(2, noun) for noun in nouns} == nouns
    assert counted(1, "identity record") == "1 identity record"
    sizes = {0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1.0 kB", 36_240: "36.2 kB"}
    sizes |= {999_949: "999.9 kB", 999_950: "1.0 MB", 2_500_000_000: "2,500.0 MB"}
    assert {size: amount_of(size) for size in sizes} == sizes


def test_errors_name_the_file() -> None:
    with pytest.raises(ValueError, match=r"^a\.bin: too short$"), naming("a.bin"):
        raise ValueError("too short")
    with pytest.raises(OSError, match="full"), naming("a.bin"):
        raise OSError("full")
