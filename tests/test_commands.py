"""Every command that a page, a help text, a message or the demo shows runs as shown, from a fresh clone.

Files that a command reads, and that no command before it on the page has made, are made beforehand. Trainings
and the demo are shortened by more flags at their end.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.auditing.findings import write_decisions, write_suspects
from tests.cli.command import commands
from tests.reporting.made import log_lines, one_of_each, write_audit, write_log
from tests.small_rec import identities, picture, write_rec

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benches" / "README.md"]
MODELS = ROOT / "docs" / "models.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"  # tests/test_tutorial.py runs it, on the pictures that it is about
CHANGELOG = ROOT / "CHANGELOG.md"  # what it shows may be of earlier versions
PROGRAMS = {"fasttriplet", "make", "python", "pip", "git", "source", "cp", "cmp", "CUDA_VISIBLE_DEVICES=0,1"}
SHORT_DEMO = ["--identities", "6", "--images", "4", "--batches", "2"]
SHORT_TRAINING = ["--batches", "2", "--batch-size", "6", "--bag-size", "24", "--images-per-identity", "3"]
IDENTITIES, IMAGES = 20, 4  # and images of each; a tenth is enough to verify on
SIDE = 112  # pixels; what mobilefacenet is made for
OWN_MODULES = ("mynet", "backbones")  # a user's, and a stand-in for arcface_torch's


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def code_of(page: Path) -> list[str]:
    """The blocks of Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def in_blocks(text: str) -> Iterator[list[str]]:
    """The commands in the indented blocks of a page, which follow each other."""
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE):
        lines = re.sub(r"\\\n *", "", block).splitlines()
        if lines[0].split()[0].removeprefix(".venv/bin/") in PROGRAMS:
            yield from map(words_of, lines)


def in_sentences(text: str) -> Iterator[list[str]]:
    """The commands in `backticks`, each of which stands alone."""
    yield from map(words_of, re.findall(r"`((?:fasttriplet|make)\s[^`]+)`", text))


def test_what_a_page_shows_is_found() -> None:
    page = "a\n\n    fasttriplet train --rec a.rec \\\n        --out b  # c\n    make demo\n\n"
    page += "    no | command\n\n`fasttriplet\n  mine`, `fast`\n"
    assert [*in_blocks(page)] == [["fasttriplet", "train", "--rec", "a.rec", "--out", "b"], ["make", "demo"]]
    assert [*in_sentences(page)] == [["fasttriplet", "mine"]]


# What commands read


def make_rec(path: Path) -> None:
    write_rec(path, identities(IDENTITIES, IMAGES), side=SIDE)


def make_pairs(path: Path) -> None:
    images = [picture(seed, SIDE) for seed in (1, 1, 2, 3) * 5]
    ft.write_pairs(path, images, [True, False] * 5)


def make_folder(path: Path) -> None:
    for identity in range(IDENTITIES):
        for image in range(IMAGES):
            file = path / f"person-{identity}" / f"{image}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(100 + IMAGES * identity + image, SIDE))


def make_groups(path: Path) -> None:
    for group in ("friends", "family"):
        make_folder(path / group)


def make_list(path: Path) -> None:
    path.write_text("person-0/0.jpg person-0/1.jpg 1\nperson-0/0.jpg person-1/1.jpg 0\n" * 10)


def make_embeddings(path: Path) -> None:
    np.save(path, np.random.default_rng(0).standard_normal((IDENTITIES * IMAGES, 16)).astype(np.float32))


def make_network(prefix: Path) -> None:
    from fasttriplet.mxnet import import_mxnet, small_convnet  # noqa: PLC0415  optional
    from tests.mxnet.small_networks import save  # noqa: PLC0415

    prefix.parent.mkdir(exist_ok=True)
    save(import_mxnet(), prefix, small_convnet(16), size=(SIDE, SIDE))


@contextlib.contextmanager
def own_module() -> Iterator[None]:
    """Let the files in the current folder be the modules `OWN_MODULES` in the block."""
    sys.path.insert(0, str(Path.cwd()))
    for name in OWN_MODULES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.pop(0)
        for name in OWN_MODULES:
            sys.modules.pop(name, None)


def make_own_module() -> None:
    """Save the code that the page on models asks to save."""
    code = next(code for code in code_of(MODELS) if "class Thumbnails" in code)
    Path("mynet.py").write_text(code, encoding="utf-8")


def make_backbone(weights: Path) -> None:
    """Stand in for arcface_torch: its package of networks, and the weights that it saved of one."""
    import torch  # noqa: PLC0415  optional

    code = (
        "from mynet import small as iresnet50\n\n\ndef get_model(name, **options):\n    return iresnet50()\n"
    )
    Path("backbones.py").write_text(code, encoding="utf-8")
    weights.parent.mkdir(parents=True, exist_ok=True)
    with own_module():
        torch.save(importlib.import_module("backbones").get_model("r50", fp16=False).state_dict(), weights)


def make_model(spec: str) -> None:
    """Make what the spec of a model names; skip the test where its framework is not installed."""
    scheme, _, target = spec.partition(":")
    if scheme in {"torch", "onnx"}:
        pytest.importorskip("torch")
        pytest.importorskip("onnxscript")  # which exports
        pytest.importorskip("onnxruntime")
    if model := re.fullmatch(r"(?:torch:)?mxnet:([^,]+),0.*", spec):
        if not Path(f"{model[1]}-symbol.json").exists():
            make_network(Path(model[1]))
    elif scheme in {"torch", "onnx", "python"} and not Path("mynet.py").exists():
        make_own_module()
        if scheme != "python":
            saving = next(code for code in code_of(MODELS) if "from mynet import small" in code)
            with own_module(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PyTorch warns while it exports
                exec(compile(saving, target, "exec"), {})
    if (saved := re.match(r"torch:backbones:\w+,weights=([^,]+)", spec)) and not Path(saved[1]).exists():
        make_backbone(Path(saved[1]))


def make_suspects(path: Path) -> None:
    """Of the file that pages call train.rec."""
    path.parent.mkdir(exist_ok=True)
    label = IDENTITIES - 1
    moved = {"kind": "mislabelled", "key": 1, "action": "relabel", "suggested_label": label}
    write_suspects(path, Path("train.rec"), moved, {"kind": "outlier", "key": 5}, cache=False)


def make_decisions(path: Path) -> None:
    write_decisions(path, Path("train.rec"), pl.read_parquet("audit/suspects.parquet"), {0: "keep"})


def make_audit(path: Path) -> None:
    if not Path("train.rec").exists():
        make_rec(Path("train.rec"))
    dataset = ft.Dataset("train.rec")
    write_audit(path, dataset, one_of_each(dataset))


def make_log(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_log(path, log_lines())


MAKERS = {
    "suspects.parquet": make_suspects,
    "decisions.json": make_decisions,
    "audit": make_audit,
    ".jsonl": make_log,
    ".rec": make_rec,
    ".bin": make_pairs,
    ".txt": make_list,
    ".npy": make_embeddings,
    "FOLDER": make_folder,
    "photos": make_folder,
    "pictures": make_folder,
    "albums": make_groups,
    "lfw": make_folder,
    "FILE": make_rec,
}
OUTPUTS = {"--out", "--report", "--roc", "--tensorboard"}


def make_what_it_reads(words: list[str], made: set[Path]) -> None:
    """Make the files that a command reads and that are not there; remove those `made` so that it writes."""
    for before, word in pairwise(words):
        path = Path(word.removeprefix("npy:"))
        if before in {"--model", "--pretrained"} and ":" in word and not word.startswith("npy:"):
            make_model(word)
        elif before in OUTPUTS or (
            words[0].startswith("pack") and path.suffix in {".rec", ".bin"} and before != "--rec"
        ):
            if path in made:
                made.remove(path)
                path.unlink()
        elif (maker := MAKERS.get(path.name) or MAKERS.get(path.suffix)) and not path.exists():
            maker(path)
            made.add(path)


def run(words: list[str], made: set[Path]) -> None:
    """Run a command of ours in the current folder; it must succeed."""
    _, *words = words
    make_what_it_reads(words, made)
    more = SHORT_TRAINING[: 2 if "--resume" in words else None] if words[0] == "train" else []
    words, stdout = (words[:-2], Path(words[-1])) if words[-2:-1] == [">"] else (words, None)
    printed = io.StringIO()
    with own_module(), contextlib.redirect_stdout(printed) if stdout else contextlib.nullcontext():
        assert main([*words, *more]) == 0, shlex.join(words)
    if stdout:
        stdout.write_text(printed.getvalue(), encoding="utf-8")


# Pages


def needs_mxnet(page: Path) -> bool:
    shown = in_blocks(page.read_text(encoding="utf-8"))
    return any(words[:2] == ["fasttriplet", "train"] or "mxnet:" in str(words) for words in shown)


def marked(page: Path) -> Any:
    return pytest.param(page, id=page.name, marks=[pytest.mark.mxnet] if needs_mxnet(page) else [])


def check(words: list[str], page: Path, made: set[Path]) -> None:
    """Run a command of ours; of other programs see that what they name is there."""
    match words:
        case ["fasttriplet", name]:
            assert name in (*commands(), "--help")
        case ["fasttriplet", *_]:
            run(words, made)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in targets:
                assert "=" in target or re.search(f"^{target}:", makefile, re.MULTILINE), target
        case ["python", script, *_] if page.parent.name == "benches":
            assert (ROOT / script).exists()
        case ["cmp", first, second]:
            assert Path(first).read_bytes() == Path(second).read_bytes()
        case ["source", script]:
            assert script == ".venv/bin/activate"  # made by `make build`
        case [program, *_]:
            assert program.removeprefix(".venv/bin/") in PROGRAMS


@pytest.mark.parametrize(
    "page", [marked(page) for page in sorted(PAGES) if page not in (TUTORIAL, CHANGELOG)]
)
def test_the_commands_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if needs_mxnet(page):
        request.getfixturevalue("mx")
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made: set[Path] = set()
    for words in in_blocks(text):
        check(words, page, made)
    for number, words in enumerate(in_sentences(text)):
        folder = tmp_path / f"sentence-{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        check(words, page, set())


# The demo


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_what_the_demo_proposes_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *SHORT_DEMO]) == 0
    _, proposed = capsys.readouterr().out.split(" Next:\n")
    # It may be shown as `python -m fasttriplet`.
    shown = [line[line.index("fasttriplet ") :] for line in proposed.splitlines() if "fasttriplet " in line]
    names = [words_of(command)[1] for command in shown]
    assert {"index", "mine", "train", "pack"} <= set(names)
    for command in shown:
        run(words_of(command), set())


# Names of commands and flags in help, messages and pages


def flags() -> set[str]:
    options = [one for command in commands().values() for one in command.params]
    return {"--help", "--version"} | {flag for one in options for flag in (*one.opts, *one.secondary_opts)}


# Flags of other programs and of earlier versions, and what stands for any flag.
FOREIGN = {
    "--ckpt",
    "--per-batch-size",
    "--frequent",
    "--dataset",
    "--positives",
    "--name",
    "--strict",
    "--durations",
    "--extra-index-url",
    "--locked",
    "--lib",
    "--platform",
    "--example",
    "--nproc-per-node",
    "--shm-size",
    "--nodes",
    "--ntasks",
    "--ntasks-per-node",
    "--cpus-per-task",
    "--exclusive",
    "--time",
    "--head",
    "--port",
    "--num-cpus",
    "--block",
    "--address",
}


def texts() -> Iterator[tuple[str, str]]:
    """The texts in our Python code, and the pages, each with where it is."""
    for path in (ROOT / "python").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, f"{path}:{node.lineno}"
    for page in PAGES:
        if page.parent.name != "benches":  # whose flags are those of benches/harness.py
            yield page.read_text(encoding="utf-8"), str(page)


def test_every_command_and_flag_that_is_named_exists() -> None:
    known = {*commands()} | flags() | FOREIGN
    pattern = re.compile(r"(?<=`fasttriplet )[a-z-]+|(?<![\w/-])--[a-z][a-z0-9-]+")
    unknown = {
        (found, where) for text, where in texts() for found in pattern.findall(text) if found not in known
    }
    assert not unknown
