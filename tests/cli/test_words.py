"""Messages of functions name flags in the command line, and nothing but names of options is changed."""

from __future__ import annotations

import click
import pytest

import fasttriplet as ft
from fasttriplet.cli import cli
from fasttriplet.cli._words import in_flags, usage
from fasttriplet.training import _train_rec


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("raise bag_size or lower images_per_identity", "raise --bag-size or lower --images-per-identity"),
        ("(raise bag_size), or max_ap.", "(raise --bag-size), or --max-ap."),
        ("a.rec exists; overwrite=True replaces it", "a.rec exists; --overwrite replaces it"),
        ("use tail='keep'", "use --tail keep"),
        ("fewer bags (epochs=2)", "fewer bags (--epochs 2)"),
        ("mine band='violating', or more", "mine --band violating, or more"),
        ("it needs normalize=True or normalize=False", "it needs --normalize or --no-normalize"),
        ("are over max_ap=0.5: raise it", "are over --max-ap 0.5: raise it"),
        ("give its new path as rec=PATH", "give its new path as --rec PATH"),
        ("memory: 7 images", "--memory: 7 images"),
        ("labels='separate': too many", "--labels separate: too many"),
        ("cache='my cache': full; or use cache=False", "--cache-dir my cache: full; or use --no-cache"),
        ("the memory of a seed: out of bands", "the memory of a seed: out of bands"),
        ("/data/bag_size/seed=3/a.rec: no such file", "/data/bag_size/seed=3/a.rec: no such file"),
        ("lr=1,seed=3/a.rec, my_bag_size, bag_sizes", "lr=1,seed=3/a.rec, my_bag_size, bag_sizes"),
        ("verify_on is not an option of this command", "verify_on is not an option of this command"),
    ],
)
def test_names_of_options_become_flags(text: str, flags: str) -> None:
    assert in_flags(text, command("mine")) == flags


def test_an_error_of_an_option_begins_with_its_flag() -> None:
    error = ft.OptionError("margin", "must be a number >= 0, not bag_size")
    assert isinstance(error, ValueError)
    assert str(error) == "margin must be a number >= 0, not bag_size"
    assert usage(error, command("mine")) == "--margin must be a number >= 0, not --bag-size"
    assert usage(error, command("pack")) == str(error)
    assert usage(ft.OptionError("out", "is wrong"), command("pack")) == "OUT.rec is wrong"


def test_a_training_that_cannot_be_resumed_names_the_flag_for_another_one() -> None:
    said = in_flags(_train_rec._ANOTHER, command("train"))
    assert said == "Begin another training, with the network of this one as --pretrained SPEC"
