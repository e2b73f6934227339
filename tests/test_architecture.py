"""The rooms are as ARCHITECTURE.md draws them: imports go down, options are written once."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import fasttriplet as ft
from fasttriplet.auditing._options import AuditKeywords, AuditOptions, PictureKeywords, PictureOptions
from fasttriplet.auditing._thresholds import LabelKeywords, LabelOptions
from fasttriplet.dataset._options import (
    BagKeywords,
    BagOptions,
    DatasetKeywords,
    DatasetOptions,
    IndexKeywords,
    IndexOptions,
    RefreshKeywords,
    RefreshOptions,
)
from fasttriplet.dataset._packing._options import PackKeywords, PackOptions
from fasttriplet.mining._options import MiningKeywords, MiningOptions
from fasttriplet.run._options import (
    FeedKeywords,
    FeedOptions,
    ResourceKeywords,
    ResourceOptions,
    RunKeywords,
    RunOptions,
)

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "fasttriplet"

# A room may import from those before it, and from itself. What a framework's room implements is looked up by
# name (of a model's spec, of a training's framework), so no import goes up.
ROOMS = [
    "", "checkpoint", "dataset", "mining", "embedders", "run", "verify", "auditing", "reporting", "training",
    "mxnet", "torch", "onnx", "ray", "demo", "cli",
]  # fmt: skip
# The package's own names, and the entry points that start the command line.
OUTSIDE = {"__init__", "__main__"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; a room is named for its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    first = module.partition(".")[0]
    return first if first in ROOMS else ""


def imports(path: Path, *, everywhere: bool) -> set[str]:
    """Modules of the package that a file imports: at its top level, or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fasttriplet":
            base = (node.module or "").removeprefix("fasttriplet").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else base)
    return found - {""}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in OUTSIDE])
def test_no_import_goes_up(module: str) -> None:
    own = ROOMS.index(room(module))
    up = {name for name in imports(MODULES[module], everywhere=True) if ROOMS.index(room(name)) > own}
    assert not up, f"{module} imports from a room above its own: {', '.join(sorted(up))}"


def test_no_imports_go_round_in_circles() -> None:
    below = {name: imports(path, everywhere=True) - {name} for name, path in MODULES.items()}
    while ends := [name for name, names in below.items() if not names & below.keys()]:
        for name in ends:
            del below[name]
    assert not below, below


@pytest.mark.parametrize(
    ("framework", "its_room"),
    [("mxnet", "mxnet"), ("torch", "torch"), ("onnx", "onnx"), ("onnxruntime", "onnx"), ("ray", "ray")],
)
def test_only_its_own_room_imports_a_framework(framework: str, its_room: str) -> None:
    for module, path in MODULES.items():
        if room(module) != its_room:
            text = path.read_text(encoding="utf-8")
            assert not re.search(rf"^\s*(import|from) {framework}\b", text, re.MULTILINE), module


def test_no_room_hides_a_public_name() -> None:
    """Importing a room makes it an attribute of the package, in the place of a function of the same name."""
    assert not set(ft.__all__) & set(ROOMS)


def test_public_modules_say_what_is_public() -> None:
    """Below the package, only rooms have names without an underscore; ``errors`` is the one exception."""
    for info in pkgutil.walk_packages([str(PACKAGE)], "fasttriplet."):
        if not any(part.startswith("_") for part in info.name.split(".")[1:]) and not info.ispkg:
            assert info.name == "fasttriplet.errors"
    for name in ft.__all__:
        assert getattr(ft, name).__doc__ or name == "__version__"


def test_pages_import_nothing_private() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in page.read_text(encoding="utf-8").splitlines():
            if re.match(r"\W*(from|import) fasttriplet", line):
                assert not re.search(r"fasttriplet\S*\._|import _", line), f"{page.name}: {line}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from fasttriplet import decode_rows", "decode_rows is now fasttriplet.Dataset(rec).decode(rows)"),
        (
            "import fasttriplet.feed",
            "the module fasttriplet.feed is gone: import its public names from fasttriplet",
        ),
        (
            "from fasttriplet.mxnet.training import train_rec",
            "import its public names from fasttriplet.training",
        ),
    ],
)
def test_old_names_answer(code: str, message: str) -> None:
    with pytest.raises(ImportError, match=re.escape(message)):
        exec(code, {})


GROUPS = [
    (MiningOptions, MiningKeywords),
    (IndexOptions, IndexKeywords),
    (DatasetOptions, DatasetKeywords),
    (BagOptions, BagKeywords),
    (RefreshOptions, RefreshKeywords),
    (ResourceOptions, ResourceKeywords),
    (RunOptions, RunKeywords),
    (FeedOptions, FeedKeywords),
    (PackOptions, PackKeywords),
    (LabelOptions, LabelKeywords),
    (PictureOptions, PictureKeywords),
    (AuditOptions, AuditKeywords),
]


@pytest.mark.parametrize(("options", "keywords"), GROUPS)
def test_keywords_are_the_options(options: Any, keywords: Any) -> None:
    hints = get_type_hints(options)
    assert {field.name: hints[field.name] for field in dataclasses.fields(options)} == get_type_hints(
        keywords
    )


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (ft.index_rec, IndexOptions),
        (ft.Dataset, DatasetOptions),
        (ft.verify_rec, DatasetOptions),
        (ft.report, DatasetOptions),
        (ft.mine, MiningOptions),
        (ft.mine_rec, RunOptions),
        (ft.Feed, FeedOptions),
        (ft.pack, PackOptions),
        (ft.audit, AuditOptions),
        (ft.embed_rec, DatasetOptions),
    ],
)
def test_help_shows_each_option_with_its_default(function: Any, options: Any) -> None:
    shown = inspect.signature(function).parameters
    for field in dataclasses.fields(options):
        assert shown[field.name].default == field.default
        assert shown[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    for parameter in shown.values():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert re.search(rf"\b{parameter.name}\b", function.__doc__), parameter.name


@pytest.mark.parametrize(
    ("function", "option", "hint"),
    [
        (ft.mine_rec, "margn", "did you mean 'margin'?"),
        (ft.mine_rec, "max_triplet", "did you mean 'max_triplets'?"),
        (ft.Feed, "batchsize", "did you mean 'batch_size'?"),
        (ft.mine, "reference", "did you mean 'references'?"),
        (ft.pack, "sizes", "did you mean 'size'?"),
        (ft.audit, "copy_above", "did you mean 'copies_above'?"),
        (ft.mine, "x", "it has embeddings, labels, references, "),
    ],
)
def test_an_unknown_option_is_named(function: Any, option: str, hint: str) -> None:
    arguments: dict[str, Any] = {option: 1} | ({"model": "pixels"} if function in (ft.Feed, ft.audit) else {})
    arguments |= {"out": "audit"} if function is ft.audit else {}
    with pytest.raises(TypeError, match=re.escape(f"{function.__name__}() has no option {option!r}; {hint}")):
        function(*[[]] * (2 if function in (ft.mine, ft.pack) else 1), **arguments)


def test_options_import_nothing_heavy() -> None:
    """The command line shows their defaults; ``--help`` must not wait for NumPy."""
    code = (
        "import sys, fasttriplet.run._options, fasttriplet.auditing._options; "
        "assert not {'numpy', 'polars', 'click'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_module_can_be_imported_alone() -> None:
    """No module needs another one to have been imported before it."""
    for name in MODULES:
        if room(name) not in {"mxnet", "torch"} and name not in OUTSIDE:
            importlib.import_module(f"fasttriplet.{name}")
