"""How many there are of something, in the words of a message."""

from __future__ import annotations


def plural(noun: str) -> str:
    """``images``, ``batches``, ``epochs``, ``identities``; of several words the last one changes."""
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("tch", "sh", "x")) else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``1,024 images``, ``0 identities``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"
