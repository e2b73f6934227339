"""The devices that a network runs on, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fasttriplet.errors import OptionError

_NUMBERS = r"(?::([0-9]{1,9}(?:,[0-9]{1,9})*))?"
_ANY_GPU = re.compile("(?:gpu|cuda)" + _NUMBERS)


class Words(NamedTuple):
    """What a framework calls its devices."""

    framework: str
    gpu: str  # "cuda" stands for all GPUs, "cuda:0,2" for two of them
    others: tuple[str, ...] = ("cpu",)


def devices_of(
    wanted: str | Sequence[str] | None, words: Words, count: Callable[[], int], why_none: Callable[[], str]
) -> list[str]:
    """The devices that a user names; by default all GPUs, or the CPU where there is none.

    Parameters
    ----------
    wanted : str or sequence of str, optional
        See :func:`fasttriplet.load_embedder`.
    words : Words
        The framework's names of devices.
    count : callable
        Counts the GPUs. It is called only if that matters.
    why_none : callable
        Says why there are no GPUs, as the words after ``devices='cuda':``.

    Returns
    -------
    list of str
        Such as ``["cpu"]`` or ``["cuda:0", "cuda:2"]``.

    Raises
    ------
    OptionError
        If a name is unknown, or a GPU does not exist or is named twice.
    ValueError
        If GPUs are named and there is none.
    """
    if wanted is None:
        return [f"{words.gpu}:{number}" for number in range(count())] or ["cpu"]
    names = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence) else list(wanted)
    if len(names) == 1 and names[0] in words.others:
        return [str(names[0])]
    chosen = [_numbers(name, words) for name in names]
    if not chosen or None in chosen:
        raise OptionError("devices", _unknown(wanted, names, words))
    there = count()
    if not there:
        raise ValueError(f"devices={wanted!r}: {why_none()}")
    numbers = [number for some in chosen for number in (some or range(there))]
    if max(numbers) >= there or len(set(numbers)) != len(numbers):
        raise OptionError(
            "devices", f"must name each GPU once, numbered from 0 to {there - 1}, not {wanted!r}"
        )
    return [f"{words.gpu}:{number}" for number in numbers]


def _numbers(name: object, words: Words) -> list[int] | None:
    """The numbers of the GPUs that a name lists; none if it stands for all, and None if it is unknown."""
    match = re.fullmatch(words.gpu + _NUMBERS, name) if isinstance(name, str) else None
    if match is None:
        return None
    return list(map(int, match[1].split(","))) if match[1] else []


def _unknown(wanted: object, names: Sequence[object], words: Words) -> str:
    hint = ""
    for name in names:
        if isinstance(name, str) and _ANY_GPU.fullmatch(name) and not name.startswith(words.gpu):
            own = words.gpu + name.removeprefix("gpu").removeprefix("cuda")
            hint = f"; {words.framework}'s name of {name!r} is {own!r}"
            break
    known = ", ".join(map(repr, (*words.others, words.gpu)))
    return f"must be {known}, or GPUs such as '{words.gpu}:0,2', not {wanted!r}{hint}"
