"""Help: what it lists, what it waits for, and options that commands share."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import click
import pytest

import fasttriplet as ft
from fasttriplet.cli import cli, main
from fasttriplet.dataset._options import Boundary, DatasetOptions, IndexOptions, Labels, Tail
from fasttriplet.mining._band import BANDS
from fasttriplet.mining._options import Fallback, Metric, Pairs, Pick, scale_of
from fasttriplet.run._options import RunOptions
from tests.cli.command import Capture, commands


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


NAMES = (
    "audit",
    "clean",
    "completion",
    "demo",
    "embed",
    "export",
    "index",
    "mine",
    "neighbors",
    "pack",
    "pack-pairs",
    "report",
    "train",
    "verify",
)


@pytest.mark.parametrize("name", NAMES)
def test_no_help_waits_for_anything_heavy(name: str) -> None:
    assert set(NAMES) == commands().keys()
    code = (
        f"import sys; from fasttriplet.cli import main; assert main([{name!r}, '--help']) == 0; "
        "heavy = {'numpy', 'polars', 'rich', 'mxnet', 'matplotlib', 'PIL', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: fasttriplet {name} [OPTIONS]")


# Flags that mean something else in each command that has them.
OWN_MEANING = {
    "--out",
    "--kinds",  # that an audit looks for, or that a clean dataset heeds
    "--triplets",  # to be shown, or exported
    "--resume",  # a training, or embeddings
    ("verify", "--pairs"),  # files of pairs
    ("train", "--batch-size"),  # images that the loss sees, not images per forward pass
    ("demo", "--batches"),
}


def test_an_option_of_two_commands_is_the_same_in_both() -> None:
    of_flag: dict[str, dict[str, click.Option]] = {}
    for name, command in commands().items():
        for parameter in command.params:
            if not isinstance(parameter, click.Option) or parameter.hidden:
                continue
            assert parameter.help, parameter.opts
            flag = parameter.opts[0]
            if flag not in OWN_MEANING and (name, flag) not in OWN_MEANING:
                of_flag.setdefault(flag, {})[name] = parameter
    shared = {flag: list(options.values()) for flag, options in of_flag.items() if len(options) > 1}
    assert shared.keys() >= {
        "--rec", "--labels", "--cache", "--cache-dir", "--model", "--devices", "--batch-size", "--margin",
        "--band", "--pick", "--pairs", "--metric", "--negatives-per-pair", "--max-ap", "--normalize",
        "--images-per-identity", "--bag-size", "--boundary", "--on-error", "--seed", "--threads",
        "--prefetch", "--memory", "--json", "--overwrite", "--pairs-per-kind", "--pictures",
    }  # fmt: skip
    for flag, options in shared.items():
        described = [option.to_info_dict() for option in options]
        for one in described:
            required = one.pop("required")
            if required:  # in a command that cannot do without
                one.pop("default")
        defaults = [one.pop("default") for one in described if "default" in one]
        assert all(default == defaults[0] for default in defaults), flag
        assert all(one == described[0] for one in described), flag


def flags_of(name: str) -> dict[str, click.Parameter]:
    return {str(flag.name): flag for flag in commands()[name].params}


@pytest.mark.parametrize(
    "name",
    ["clean", "embed", "export", "index", "mine", "neighbors", "pack-pairs", "report", "train", "verify"],
)
def test_every_command_that_takes_a_dataset_has_its_options(name: str) -> None:
    flags, group = flags_of(name), IndexOptions if name == "index" else DatasetOptions
    assert flags.keys() >= {"rec", "cache_dir", *group.names()}
    for option in fields(group):
        assert flags[option.name].to_info_dict()["default"] == option.default


@pytest.mark.parametrize("name", ["mine", "train"])
def test_every_option_of_python_is_a_flag(name: str) -> None:
    flags = flags_of(name)
    of_a_run = {"mine": set(RunOptions.names()), "train": set(RunOptions.names()) - {"tail"}}[name]
    assert flags.keys() >= of_a_run
    for option in fields(RunOptions):
        if option.name in of_a_run:
            assert flags[option.name].to_info_dict()["default"] == option.default, option.name


def test_choices_are_those_of_the_types() -> None:
    flags = flags_of("mine")
    kinds = {
        "labels": Labels,
        "pick": Pick,
        "fallback": Fallback,
        "pairs": Pairs,
        "metric": Metric,
        "boundary": Boundary,
        "tail": Tail,
    }
    for name, literal in kinds.items():
        kind = flags[name].type
        assert isinstance(kind, click.Choice)
        assert tuple(kind.choices) == get_args(literal)
    assert flags["metric"].to_info_dict()["help"].count(scale_of("cosine")) == 1
    assert all(f"{band}: " in flags["band"].to_info_dict()["help"] for band in BANDS)
