"""Whatever is given as a path, a command ends soon, with one message that names it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fasttriplet.cli import cli, main
from fasttriplet.cli._options import NameOfFile
from tests.cli.command import Capture
from tests.dataset.pictures import people
from tests.run.leftovers import alarm

# What each command needs besides the option, by the names of the options, and what some need instead.
NEEDS: dict[str, dict[str, str]] = {
    "completion": {"shell": "bash"},
    "demo": {"identities": "2", "images": "2", "batches": "1"},
    "index": {"rec": "train.rec"},
    "mine": {"rec": "train.rec", "band": "any"},
    "pack": {"folder": "people", "out": "a.rec"},
    "pack-pairs": {"out": "a.bin", "rec": "train.rec", "pairs_per_kind": "9"},
    "train": {"rec": "train.rec", "out": "new/net", "network": "small", "batches": "1", "batch_size": "6"},
    "verify": {"rec": "train.rec", "model": "pixels", "pairs_per_kind": "9"},
}
INSTEAD: dict[tuple[str, str], dict[str, str | None]] = {
    ("pack-pairs", "listing"): {"rec": None, "pairs_per_kind": None},
    ("pack-pairs", "folder"): {"rec": None, "pairs_per_kind": None, "listing": "list.txt"},
    ("train", "symbol"): {"network": None},
    ("verify", "pairs"): {"rec": None, "pairs_per_kind": None},
}
ENDINGS = {("mine", "out"): ".csv", ("pack", "out"): ".rec", ("pack-pairs", "out"): ".bin", ("verify", "roc"): ".png"}
SPECS = {"model": ("npy:{}", "mxnet:{},0"), "pretrained": ("{},0",)}  # options with a path inside
FOLDERS = {"cache_dir", "tensorboard", ("demo", "out")}  # a file is wrong there, and a folder right
NEW = {"missing/x", "-", "caf\udce9"}  # names of files that can be made

PATHS = [
    "folder", "file", "file/", "file/x", "missing/x", "-", "/dev/null", "/dev/full", "/dev/stdout", "fifo", "socket",
    "loop", "device", "closed/x", "x" * 300, "y/" * 2100 + "x", "caf\udce9", "nul\0", "",
]  # fmt: skip


def options_with_paths() -> list[tuple[str, str]]:
    """All options of all commands that take a path."""
    found = []
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            assert option.name is not None
            assert isinstance(option.type, NameOfFile) or not isinstance(option.type, (click.Path, click.File))
            if isinstance(option.type, NameOfFile) or option.name in SPECS:
                found.append((name, option.name))
    return found


@pytest.fixture
def places(rec: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with all kinds of things in it, under their names and with the endings of outputs."""
    monkeypatch.chdir(rec.parent)
    people(Path("people"))
    Path("list.txt").write_text("a.jpg b.jpg 1\n")
    Path("closed").mkdir(mode=0)
    with socket.socket(socket.AF_UNIX) as listener:
        for ending in ("", *ENDINGS.values()):
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


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("name", "option"), cases())
def test_whatever_is_given_as_a_path(  # noqa: PLR0912
    name: str, option: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    if request.node.get_closest_marker("mxnet"):
        request.getfixturevalue("mx")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    ending = ENDINGS.get((name, option), "")
    for path in PATHS:
        if path.startswith("closed") and os.geteuid() == 0:  # root may look into all folders
            continue
        value = path if not path or path.endswith("/") else path + ending
        for form in SPECS.get(option, ("{}",)):
            before = set(Path().iterdir())
            with alarm():
                code = main(arguments(name, option, form.format(value)))
            shown = capsys.readouterr()
            said = [line for line in shown.err.splitlines() if line.startswith(("fasttriplet: ", "Error: "))]
            said = [line for line in said if "the index is kept for later runs" not in line]
            case = ascii(f"{form.format(value)[:60]}: {code}, {shown.err[-500:]}")
            if code == 0:
                made = {(name, option), option} & FOLDERS or ending or option == "out"
                assert made, case
                assert path in NEW or path == "folder", case
            else:
                assert (code in (1, 2), len(said)) == (True, 1), case
                named = str(Path(value))[:100].encode(errors="backslashreplace").decode() if value else option
                assert named.rstrip("\0") in said[0].replace("\\\\", "\\"), case
            assert "Traceback" not in shown.err
            for path_of_new in set(Path().iterdir()) - before:
                shutil.rmtree(path_of_new) if path_of_new.is_dir() else path_of_new.unlink()


def test_all_options_with_paths_are_found() -> None:
    assert set(cli.list_commands(click.Context(cli))) == NEEDS.keys()
    assert {("index", "rec"), ("mine", "out"), ("pack", "folder"), ("train", "symbol")} < set(options_with_paths())
