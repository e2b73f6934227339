"""The numbers of threads that the extension is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from fasttriplet import _core

# Calls whose last argument is `threads`, by name or position.
CALLS = (
    "scan", "decode_rows", "decode_images", "image_size", "looks_of", "compare_pictures",
    "mine", "collect", "merge", "finish",
)  # fmt: skip


def threads_asked(patch: pytest.MonkeyPatch) -> dict[str, set[int | None]]:
    """By the name of a call, all numbers that it is asked for from now on."""
    asked: dict[str, set[int | None]] = defaultdict(set)

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            asked[name].add(options["threads"] if "threads" in options else arguments[-1])
            return call(*arguments, **options)

        return called

    for name in CALLS:
        patch.setattr(_core, name, watched(name, getattr(_core, name)))
    return asked
