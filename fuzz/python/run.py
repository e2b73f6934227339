"""Fuzzes a target with the coverage of the package's Python code: ``run.py TARGET [libFuzzer options]``."""

from __future__ import annotations

import importlib
import sys

import atheris

with atheris.instrument_imports(include=["fasttriplet"]):
    target = importlib.import_module(sys.argv.pop(1))
    target.check(b"")  # most modules are imported by the first call
atheris.Setup(sys.argv, target.check)
atheris.Fuzz()
