"""What TensorBoard would show of a folder."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c


def events(path: Path) -> list[Event]:
    """The events of a file; what a killed run left at its end is not one."""
    content, found = path.read_bytes(), []
    while len(content) >= 12:
        (length,) = struct.unpack("<Q", content[:8])
        if len(content) < length + 16:
            break
        assert content[8:12] == struct.pack("<I", masked_crc32c(content[:8]))
        event = content[12 : 12 + length]
        assert content[12 + length : 16 + length] == struct.pack("<I", masked_crc32c(event))
        found.append(Event.FromString(event))
        content = content[16 + length :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Numbers by tag and step, but for speeds."""
    found: dict[tuple[str, int], float] = {}
    for path in sorted(folder.glob("*tfevents*")):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                found = {place: value for place, value in found.items() if place[1] < event.step}
            for one in event.summary.value:
                if not one.tag.endswith("images_per_second"):
                    found[one.tag, event.step] = one.simple_value
    return found
