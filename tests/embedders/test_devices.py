"""Devices by name, as users of all frameworks give them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fasttriplet.embedders._devices import Words, devices_of
from fasttriplet.errors import OptionError

PYTORCH = Words("PyTorch", "cuda", ("cpu", "mps"))
MXNET = Words("MXNet", "gpu")


def chosen(wanted: Any, words: Words = PYTORCH, count: int = 3) -> list[str]:
    return devices_of(wanted, words, lambda: count, lambda: "there is no driver")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cpu", ["cpu"]),
        (["mps"], ["mps"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:2", ["cuda:2"]),
        ("cuda:2,0", ["cuda:2", "cuda:0"]),
        (("cuda:1", "cuda:0"), ["cuda:1", "cuda:0"]),
        (["cuda:0,2", "cuda:1"], ["cuda:0", "cuda:2", "cuda:1"]),
    ],
)
def test_devices_that_are_there(wanted: Any, expected: list[str]) -> None:
    assert chosen(wanted) == expected
    if wanted not in (None, "cpu", ["mps"]):
        with pytest.raises(ValueError, match=re.escape(f"devices={wanted!r}: there is no driver")):
            chosen(wanted, count=0)


def test_without_a_gpu_the_cpu_is_the_default() -> None:
    assert chosen(None, count=0) == ["cpu"]


@pytest.mark.parametrize(
    "wanted",
    [
        *["", "cuda:", "cuda:a", "cuda:٣", "cpu,cuda", "cuda:-1", "cuda:0, 1", "tpu", "cuda:0\n"],
        *[["cpu", "cpu"], ["cuda", "cpu"], [], 0, [0, 1], {"cuda"}, "cuda:" + "9" * 5000],
    ],
)
def test_names_that_are_unknown(wanted: Any) -> None:
    with pytest.raises(OptionError) as caught:
        chosen(wanted)
    assert str(caught.value) == (
        f"devices must be 'cpu', 'mps', 'cuda', or GPUs such as 'cuda:0,2', not {wanted!r}"
    )


@pytest.mark.parametrize("wanted", ["cuda:3", "cuda:0,0", ["cuda", "cuda:1"], ["cuda:1", "cuda:1"]])
def test_gpus_that_do_not_exist_or_are_named_twice(wanted: Any) -> None:
    with pytest.raises(OptionError, match="devices must name each GPU once, numbered from 0 to 2, not "):
        chosen(wanted)


def test_the_other_framework_s_name_of_a_gpu_gets_its_own() -> None:
    with pytest.raises(OptionError, match=r"not 'gpu:0,1'; PyTorch's name of 'gpu:0,1' is 'cuda:0,1'$"):
        chosen("gpu:0,1")
    with pytest.raises(
        OptionError,
        match=r"must be 'cpu', 'gpu', or GPUs such as 'gpu:0,2', .*; MXNet's name of 'cuda' is 'gpu'$",
    ):
        chosen(["cuda"], MXNET)
    # Of several, the first is named.
    with pytest.raises(OptionError, match=r"; PyTorch's name of 'gpu:1' is 'cuda:1'$"):
        chosen(["tpu", "gpu:1", "gpu:2"])


def test_gpus_are_counted_only_if_that_matters() -> None:
    def count() -> int:
        raise AssertionError

    assert devices_of("cpu", PYTORCH, count, str) == ["cpu"]
    with pytest.raises(OptionError):
        devices_of("tpu", PYTORCH, count, str)
