"""The fuzz targets in Python, on their corpora and on a fixed sequence of changes.

`cargo test` in ``fuzz/`` does the same for those in Rust.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"


def smoke(target: str, mutations: int) -> None:
    """Try the corpus, and `mutations` of it; with FUZZ_SECONDS as many as fit."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{target}", FUZZ / "python" / f"{target}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inputs = [path.read_bytes() for path in sorted((FUZZ / "corpus" / target).iterdir())]
    for data in inputs:
        module.check(data)
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "inf"))
    tried = 0
    while time.monotonic() < end and (tried < mutations or "FUZZ_SECONDS" in os.environ):
        data = mutated(random.Random(tried), inputs)
        try:
            module.check(data)
        except Exception:
            failed = FUZZ / "artifacts" / target / "smoke"
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.write_bytes(data)
            raise
        tried += 1
    print(f"{target}: {len(inputs)} inputs and {tried} mutations")


def mutated(draw: random.Random, inputs: list[bytes]) -> bytes:
    """One input, changed in a few places."""
    data = bytearray(draw.choice(inputs))
    for _ in range(draw.randint(1, 5)):
        at, length = draw.randrange(len(data) + 1), draw.randrange(9)
        new = bytes(draw.choice((0, 1, 127, 128, 255, draw.randrange(256))) for _ in range(length))
        data[at : at + draw.choice((0, length))] = draw.choice((new, data[at : at + length]))
    return bytes(data)


@pytest.mark.mxnet
def test_params() -> None:
    smoke("params", 300)


def test_symbol() -> None:
    smoke("symbol", 300)


def test_cache() -> None:
    smoke("cache", 150)


@pytest.mark.parametrize("target", [(), ("TARGET=nonsense",), ("TARGET=idx png",), ("TARGET=%",)], ids=str)
def test_make_lists_the_targets(target: tuple[str, ...]) -> None:
    """Where none is given, or one that does not exist."""
    words = ["make", "--no-print-directory", "fuzz", *target]
    done = subprocess.run(words, cwd=FUZZ.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is not a fuzz target; run: make fuzz TARGET=NAME, with one of cache header idx" in done.stderr
    corpora = sorted(one.name for one in (FUZZ / "corpus").iterdir())
    assert done.stderr.splitlines()[0].endswith(f" one of {' '.join(corpora)}")
