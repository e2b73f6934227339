"""Help: what it lists, what it waits for, and options that commands share."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import fasttriplet as ft
from fasttriplet.cli import cli, main
from tests.cli.command import Capture


def test_help_lists_the_commands_and_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from fasttriplet.cli import main; codes = [main(['--help']), main(['mine', '--help'])];"
        "assert codes == [0, 0]; assert not {'numpy', 'polars', 'rich', 'mxnet'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in cli.list_commands(
        cli.make_context("fasttriplet", ["mine", "--help"], resilient_parsing=True)
    ):
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE)
    assert "d_ap < d_an < d_ap + margin" in done.stdout


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert ft.__version__ in capsys.readouterr().out


def test_flags_have_the_defaults_of_mine_rec() -> None:
    from fasttriplet.cli._mine import mine  # noqa: PLC0415

    arguments = inspect.signature(ft.mine_rec).parameters
    compared = set()
    for flag in mine.params:
        assert flag.name
        if flag.name in arguments and flag.name not in ("rec", "out"):
            wanted = arguments[flag.name].default
            assert flag.to_info_dict()["default"] == wanted, flag.name
            compared.add(flag.name)
    assert compared >= {
        "bag_size",
        "images_per_identity",
        "margin",
        "max_ap",
        "band",
        "pick",
        "seed",
        "epochs",
    }
    assert arguments["bag_size"].default == 7200
    assert arguments["images_per_identity"].default == 5
    assert arguments["margin"].default == 0.3
    assert arguments["max_ap"].default is None
