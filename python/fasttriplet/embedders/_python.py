"""Embedders that are objects of a user's own module."""

from __future__ import annotations

import inspect
from typing import cast

from fasttriplet.embedders._base import Embedder
from fasttriplet.embedders._objects import find_object, make
from fasttriplet.errors import SpecError

_METHODS = ("prepare", "embed")


def from_spec(text: str) -> Embedder:
    """Make the embedder of ``python:PACKAGE.MODULE:NAME``: that object, or what calling it returns."""
    spec = f"python:{text}"
    found = find_object(spec, text)
    if inspect.isclass(found) or (callable(found) and _faults(found)):
        found = make(spec, found)
    if faults := _faults(found):
        raise SpecError(
            f"{spec!r} is not an embedder: a {type(found).__name__} {' and '.join(faults)}; it must have "
            "description (a str), needs_images (a bool), prepare(index) and embed(rows, images)"
        )
    return cast(Embedder, found)


def _faults(found: object) -> list[str]:
    """Say what keeps an object from being an embedder."""
    missing = [name for name in ("description", "needs_images", *_METHODS) if not hasattr(found, name)]
    if missing:
        return [f"has no {', no '.join(missing)}"]
    faults = [f"has no method {name}" for name in _METHODS if not callable(getattr(found, name))]
    if not isinstance(description := found.description, str):  # type: ignore[attr-defined]
        faults.append(f"has the description {description!r}")
    if not isinstance(needs_images := found.needs_images, bool):  # type: ignore[attr-defined]
        faults.append(f"has needs_images={needs_images!r}")
    return faults
