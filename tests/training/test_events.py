"""Numbers of TensorBoard's files, as Protocol Buffers have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fasttriplet.training._events import Events, _text, _varint, _whole, has_events_of


def number_of(content: bytes) -> int:
    """Seven bits of each byte, the lowest first; the eighth is set in all but the last."""
    assert [byte >> 7 for byte in content] == [1] * (len(content) - 1) + [0]
    return sum((byte & 127) << 7 * at for at, byte in enumerate(content))


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(127)
@example(128)
@example(16_383)
@example(16_384)
def test_numbers_of_any_length(number: int) -> None:
    found = _varint(number)
    assert number_of(found) == number
    assert len(found) == max(1, -(-number.bit_length() // 7))


def test_fields() -> None:
    """The examples of the format's documentation: field 1 is 150, field 2 is a text."""
    assert _whole(1, 150).hex() == "089601"
    assert _text(2, b"testing").hex() == "120774657374696e67"
    assert _text(2, bytes(128))[:3].hex() == "128001"


@pytest.mark.parametrize("keep", [False, True])
def test_a_file_without_events_is_removed_unless_it_is_to_be_kept(tmp_path: Path, keep: bool) -> None:
    prefix = str(tmp_path / "a")
    for gone in (False, True):
        events = Events(tmp_path, prefix)
        (path,) = tmp_path.iterdir()
        assert has_events_of(prefix, str(tmp_path))
        assert not has_events_of(f"{prefix}b", str(tmp_path))
        if gone:  # somebody else removed it
            path.unlink()
        events.close(keep=keep)
        assert [*tmp_path.iterdir()] == ([path] if keep and not gone else [])
        path.unlink(missing_ok=True)
    events = Events(tmp_path, prefix)
    events.begin(0)
    events.close(keep=False)
    assert len([*tmp_path.iterdir()]) == 1
