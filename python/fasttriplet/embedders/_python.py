"""Embedders that are objects of a user's own module."""

from __future__ import annotations

import inspect
from typing import cast

from fasttriplet.embedders._base import EMBEDDER_HAS, Embedder, faults_of
from fasttriplet.embedders._objects import find_object, make
from fasttriplet.errors import SpecError


def from_spec(text: str) -> Embedder:
    """Make the embedder of ``python:PACKAGE.MODULE:NAME``: that object, or what calling it returns."""
    spec = f"python:{text}"
    found = find_object(spec, text)
    if inspect.isclass(found) or (callable(found) and faults_of(found)):
        found = make(spec, found)
    if faults := faults_of(found):
        raise SpecError(
            f"{spec!r} is not an embedder: a {type(found).__name__} {' and '.join(faults)}; {EMBEDDER_HAS}"
        )
    return cast(Embedder, found)
