"""Whatever is given as a path, a command ends soon, with one message that names it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fasttriplet.cli import cli, main
from fasttriplet.cli._types import NameOfFile
from tests.auditing.findings import write_suspects
from tests.cli.command import Capture
from tests.dataset.pictures import people
from tests.run.leftovers import alarm

# What each command needs besides the option, by the names of the options, and what some need instead.
NEEDS: dict[str, dict[str, str]] = {
    "audit": {"rec": "train.rec", "model": "pixels", "out": "audit"},
    "clean": {"rec": "train.rec", "suspects": "suspects.parquet", "out": "a.rec"},
    "completion": {"shell": "bash"},
    "demo": {"identities": "2", "images": "2", "batches": "1"},
    "embed": {"rec": "train.rec", "model": "pixels", "out": "e.npy"},
    "export": {"rec": "train.rec", "keys": "1", "out": "new"},
    "index": {"rec": "train.rec"},
    "mine": {"rec": "train.rec", "band": "any"},
    "neighbors": {"rec": "train.rec", "model": "pixels", "out": "g.parquet"},
    "pack": {"folder": "people", "out": "a.rec"},
    "pack-pairs": {"out": "a.bin", "rec": "train.rec", "pairs_per_kind": "9"},
    "report": {"rec": "train.rec", "out": "new/a.html"},
    "train": {"rec": "train.rec", "out": "new/net", "network": "small", "batches": "1", "batch_size": "6"},
    "verify": {"rec": "train.rec", "model": "pixels", "pairs_per_kind": "9"},
}
INSTEAD: dict[tuple[str, str], dict[str, str | None]] = {
    ("export", "suspects"): {"keys": None},
    ("export", "triplets"): {"keys": None},
    ("pack-pairs", "listing"): {"rec": None, "pairs_per_kind": None},
    ("pack-pairs", "folder"): {"rec": None, "pairs_per_kind": None, "listing": "list.txt"},
    ("train", "symbol"): {"network": None},
    ("verify", "pairs"): {"rec": None, "pairs_per_kind": None},
}
ENDINGS = {
    ("clean", "out"): ".rec",
    ("embed", "out"): ".npy",
    ("export", "out"): "",
    ("mine", "out"): ".csv",
    ("mine", "report"): ".html",
    ("neighbors", "out"): ".parquet",
    ("pack", "out"): ".rec",
    ("pack-pairs", "out"): ".bin",
    ("report", "out"): ".html",
    ("verify", "roc"): ".png",
}
SPECS = {"model": ("npy:{}", "mxnet:{},0"), "pretrained": ("{},0",)}  # options with a path inside
FOLDERS = {"cache_dir", "tensorboard"}
NEW = {"missing/x", "-", "caf\udce9"}  # names of what can be made

PATHS = [
    "folder", "file", "file/", "file/x", "missing/x", "-", "/dev/null", "/dev/full", "/dev/stdout", "fifo",
    "socket", "loop", "device", "closed/x", "x" * 300, "y/" * 2100 + "x", "caf\udce9", "nul\0", "",
]  # fmt: skip


def options_with_paths() -> list[tuple[str, str]]:
    """All options of all commands that take a path."""
    found = []
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            assert option.name is not None
            assert isinstance(option.type, NameOfFile) or not isinstance(
                option.type, (click.Path, click.File)
            )
            if isinstance(option.type, NameOfFile) or option.name in SPECS:
                found.append((name, option.name))
    return found


@pytest.fixture
def places(rec: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with all kinds of things in it, under their names and with the endings of outputs."""
    monkeypatch.chdir(rec.parent)
    people(Path("people"))
    Path("list.txt").write_text("a.jpg b.jpg 1\n")
    write_suspects(Path("suspects.parquet"), rec, {"kind": "outlier", "key": 1}, cache=False)
    Path("closed").mkdir(mode=0)
    with socket.socket(socket.AF_UNIX) as listener:
        for ending in {"", *ENDINGS.values()}:
            Path(f"folder{ending}").mkdir()
            Path(f"file{ending}").write_text("x")
            os.mkfifo(f"fifo{ending}")
            Path(f"loop{ending}").symlink_to(f"loop{ending}")
            Path(f"device{ending}").symlink_to("/dev/null")
            Path(f"socket{ending}").symlink_to("listener")
        listener.bind("listener")
        yield


def cases() -> list[object]:
    """All options with paths; those of a training need MXNet."""
    return [
        pytest.param(name, option, marks=[pytest.mark.mxnet] if name == "train" or option in SPECS else [])
        for name, option in options_with_paths()
    ]


def arguments(name: str, option: str, value: str) -> list[str]:
    """The command line."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    given = NEEDS[name] | INSTEAD.get((name, option), {}) | {option: value}
    flags, places = [], []
    for one in command.params:
        word = given.get(str(one.name))
        if word is not None and isinstance(one, click.Argument):
            places.append(word)
        elif word is not None:
            flags += [one.opts[0], word]
    return [name, *flags, "--", *places]


def may_succeed(name: str, option: str, path: str) -> bool:
    """Whether it can be the path of what a command writes."""
    folder = option in FOLDERS or name == "demo" or (name, option) == ("audit", "out")
    prefix = (name, option) == ("train", "out")
    if folder or prefix or (name, option) in ENDINGS:
        return path in NEW or (path == "folder" and (folder or prefix)) or (prefix and not path.endswith("x"))
    return False


def is_right(code: int, said: list[str], value: str) -> bool:
    """Whether a command ended with one message that names the path."""
    named = re.split("[\udce9\0]", str(Path(value)))[0][:100] if value else ""
    return code in (1, 2) and len(said) == 1 and named in said[0]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("name", "option"), cases())
def test_whatever_is_given_as_a_path(
    name: str, option: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    if request.node.get_closest_marker("mxnet"):
        request.getfixturevalue("mx")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    # The processes of pytest tell each other what is logged, and in UTF-8.
    monkeypatch.setattr(logging.getLogger("fasttriplet.index"), "propagate", False)
    ending, before = ENDINGS.get((name, option), ""), set(Path().iterdir())
    found = []
    for path in PATHS:
        if path.startswith("closed") and os.geteuid() == 0:  # root may look into all folders
            continue
        if ending and path.startswith("/dev"):
            continue  # a new file
        if may_succeed(name, option, path) and name in {"demo", "train"}:
            continue  # it takes seconds
        value = path if not path or path.endswith("/") else path + ending
        for form in SPECS.get(option, ("{}",)):
            with alarm():
                code = main(arguments(name, option, form.format(value)))
            lines = capfd.readouterr().err.splitlines()
            said = [line for line in lines if line.startswith(("fasttriplet: ", "Error: "))]
            said = [line for line in said if "the index is kept for later runs" not in line]
            right = is_right(code, said, value) or (code == 0 and may_succeed(name, option, path))
            if not right or any("Traceback" in line for line in lines):
                found.append(ascii(f"{form.format(value)[:60]}: exit code {code}, {lines}"))
            for made in set(Path().iterdir()) - before:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            shutil.rmtree("folder")
            Path("folder").mkdir()
    assert not found


def test_all_options_with_paths_are_found() -> None:
    assert set(cli.list_commands(click.Context(cli))) == NEEDS.keys()
    assert {("index", "rec"), ("mine", "out"), ("pack", "folder"), ("train", "symbol")} < set(
        options_with_paths()
    )
