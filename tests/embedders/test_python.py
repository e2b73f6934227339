"""The scheme ``python:``: an object of a user's module."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.errors import OptionError, SpecError
from tests.small_rec import Table, identities, random_table, write_rec

SOURCE = """
import numpy as np


class Mean:
    description = "mean colours"
    needs_images = True

    def prepare(self, index):
        self.count = index.height

    def embed(self, rows, images):
        return images.mean(axis=(1, 2)).astype(np.float32)


class Callable_(Mean):
    def __call__(self):
        raise AssertionError


class NeedsArguments(Mean):
    def __init__(self, depth):
        pass


class Half:
    description = "half"

    def embed(self, rows, images):
        return None


class Wrong(Mean):
    description = None
    needs_images = 1
    prepare = 3


def make():
    return Mean()


def nothing():
    return None


class space:
    mean = Mean()


made = Mean()
called = Callable_()
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has a module `mine_own`."""
    (tmp_path / "mine_own.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine_own", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["Mean", "make", "made", "called", "space.mean"])
@pytest.mark.usefixtures("folder")
def test_an_object_a_class_or_a_function_makes_an_embedder(name: str) -> None:
    embedder = ft.load_embedder(f"python:mine_own:{name}")
    assert embedder.description == "mean colours"
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    rows = pl.DataFrame({"key": [1, 2, 3]})
    for copied in (embedder, pickle.loads(pickle.dumps(embedder))):
        np.testing.assert_array_equal(copied.embed(rows, images), images.mean(axis=(1, 2)).astype(np.float32))


FAULTS = {
    "mine_owm:Mean": r"there is no module 'mine_owm' in the current folder, .*, nor among the installed",
    "no.such:Mean": r"there is no module 'no' in",
    "mine_own.sub:Mean": r"there is no module 'mine_own.sub' in",
    "mine_own:Man": r"mine_own has no 'Man'; did you mean 'Mean'\?",
    "mine_own:Mean.other": r"Mean has no 'other'",
    "mine_own:made.other": r"<mine_own\.Mean object at 0x[0-9a-f]+> has no 'other'",
    "mine_own": r"expected PACKAGE.MODULE:NAME, not 'mine_own'",
    "mine_own:Mean,size=3": r"expected PACKAGE.MODULE:NAME, not 'mine_own:Mean,size=3'",
    "mine_own:number": "is not an embedder: a int has no description, no needs_images, no prepare, no embed;",
    "mine_own:nothing": "is not an embedder: a NoneType has no description",
    "mine_own:Half": r"a Half has no needs_images, no prepare; it must have description \(a str\), needs_im",
    "mine_own:Wrong": "a Wrong has no method prepare and has the description None and has needs_images=1; it",
}


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.usefixtures("folder")
def test_what_is_missing_is_named(text: str) -> None:
    with pytest.raises(SpecError, match=f"{re.escape(repr('python:' + text))}.*{FAULTS[text]}"):
        ft.load_embedder(f"python:{text}")


class Some(Table):
    """An embedder, if it is made."""


def test_all_calls_name_a_model_that_is_no_embedder(tmp_path: Path) -> None:
    class Network:
        __module__ = "torch.nn.modules.module"

    needs = re.escape("it must have description (a str), needs_images (a bool), prepare(index) and embed(")
    some, rec = random_table(), write_rec(tmp_path / "train.rec", identities(3, 2))
    some.needs_images = 1  # type: ignore[assignment]
    calls: list[Any] = [
        lambda model: ft.mine_rec(rec, model=model),
        lambda model: ft.Feed(rec, model=model),
        lambda model: ft.embed_rec(rec, model=model, out=tmp_path / "embeddings.npy"),
        lambda model: ft.verify_rec(rec, model),
        lambda model: ft.verify_pairs(tmp_path / "pairs.bin", model),
        lambda model: ft.audit(rec, model=model, out=tmp_path / "audit"),
    ]
    for model, said in (
        (
            None,
            f"must be a spec, such as 'onnx:model.onnx', or an embedder, but a NoneType has no d.*; {needs}",
        ),
        (
            Path("a.onnx"),
            f"but a PosixPath has no description, no needs_images, no prepare, no em.*; {needs}",
        ),
        (some, f"but a Table has needs_images=1; {needs}"),
        (Some, r"must be an embedder, not a class of them; give Some\(\.\.\.\)$"),
        (Network(), r"no embed; fasttriplet\.torch\.TorchEmbedder\(module\) makes one of it$"),
    ):
        for call in calls:
            with pytest.raises(OptionError, match=rf"^model .*{said}"):
                call(model)
    assert {path.name for path in tmp_path.iterdir()} <= {"train.idx", "train.rec", "train.rec.index"}


def test_errors_of_the_users_module_name_it_and_the_line(folder: Path) -> None:
    for name, source, message in (
        ("bad_import", "import os\nimport no_such_package_1\n", "ModuleNotFoundError: No module named"),
        ("bad_value", "\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("bad_syntax", "\n1 +\n", "SyntaxError: invalid syntax"),
    ):
        (folder / f"{name}.py").write_text(source)
        where = "" if name == "bad_syntax" else f", {re.escape(str(folder))}/{name}.py, line 2"
        with pytest.raises(ImportError, match=f"importing {name} failed{where}: {message}") as caught:
            ft.load_embedder(f"python:{name}:Mean")
        assert caught.value.name == name
    with pytest.raises(ValueError, match=r"the call without arguments failed.*: TypeError: .*'depth'"):
        ft.load_embedder("python:mine_own:NeedsArguments")


@pytest.mark.parametrize("source", ["import no_such_package_1", "raise ValueError('at once')"])
def test_a_package_that_fails_is_not_taken_for_one_that_is_missing(folder: Path, source: str) -> None:
    (folder / "mine_package").mkdir()
    (folder / "mine_package" / "__init__.py").write_text(f"\n{source}\n")
    (folder / "mine_package" / "inner.py").write_text("")
    where = re.escape(f"{folder}/mine_package/__init__.py, line 2")
    with pytest.raises(ImportError, match=rf"importing mine_package\.inner failed, {where}: "):
        ft.load_embedder("python:mine_package.inner:Mean")


def test_the_current_folder_hides_other_modules_of_the_name(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine_own.py").write_text(SOURCE.replace("mean colours", "another"))
    sys.path.insert(0, str(other))
    assert ft.load_embedder("python:mine_own:Mean").description == "mean colours"
    assert folder == tmp_path


def test_the_current_folder_comes_first_and_then_last(folder: Path) -> None:
    """As for ``python -m``; afterwards it hides nothing."""
    before = list(sys.path)
    ft.load_embedder("python:mine_own:Mean")
    assert sys.path == [*(entry for entry in before if entry != str(folder)), str(folder)]
    ft.load_embedder("python:mine_own:Mean")
    assert sys.path.count(str(folder)) == 1


def test_the_command_takes_it_and_so_do_workers(folder: Path) -> None:
    write_rec(folder / "train.rec", identities(4, 4))
    command = [sys.executable, "-m", "fasttriplet"]
    arguments = ["verify", "--rec", "train.rec", "--model", "python:mine_own:Mean", "--folds", "2"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, "mean colours" in done.stdout) == (0, True), done.stderr
    script = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
sys.path = [entry for entry in sys.path if entry]
import fasttriplet as ft

def describe(embedder):
    return embedder.description

if __name__ == "__main__":
    embedder, spawn = ft.load_embedder("python:mine_own:Mean"), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        print(pool.submit(describe, embedder).result())
"""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "script.py").write_text(script)
    shown: Any = subprocess.run(
        [sys.executable, str(elsewhere / "script.py")], capture_output=True, text=True, check=False
    )
    assert shown.stdout == "mean colours\n", shown.stderr


def test_a_module_that_ends_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that parses the command line when it is imported."""
    (folder / "mine_script.py").write_text("import sys\nsys.exit(2)")
    with pytest.raises(
        ImportError, match=r"importing mine_script failed, .*mine_script\.py, line 2: SystemExit: 2"
    ):
        ft.load_embedder("python:mine_script:Mean")
    with pytest.raises(ValueError, match="the call without arguments failed: SystemExit: "):
        ft.load_embedder("python:sys:exit")
    monkeypatch.delitem(sys.modules, "mine_script", raising=False)


@pytest.mark.parametrize("output", [0, ["fc1"], b"fc1"])
def test_an_output_is_named_in_text(output: Any) -> None:
    with pytest.raises(OptionError, match=r"^output must be text, a name or a number such as '0', not "):
        ft.load_embedder("onnx:net.onnx", output=output)
