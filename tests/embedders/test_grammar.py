"""Options at the end of a spec, and what networks expect of their input, for all frameworks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fasttriplet.embedders._inputs import (
    AS_DECODED,
    OPTIONS,
    SAYS_AS_DECODED,
    Inputs,
    given,
    three,
    wrong_size,
)
from fasttriplet.embedders._precision import precision_named
from fasttriplet.embedders._spec import split_options
from fasttriplet.errors import OptionError, SpecError


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        ("model", "model", {}),
        ("model,12", "model,12", {}),
        ("a,b=c/model,12", "a,b=c/model,12", {}),
        ("model,12,color=bgr", "model,12", {"color": "bgr"}),
        ("model,mean=1/2/3,std=4,size=8x6", "model", {"mean": "1/2/3", "std": "4", "size": "8x6"}),
        ("a\nb,color=rgb", "a\nb", {"color": "rgb"}),
    ],
)
def test_options_are_taken_off_the_end(text: str, target: str, options: dict[str, str]) -> None:
    assert split_options("onnx", text, OPTIONS) == (target, options)


def test_the_output_is_given_once() -> None:
    names = {"output", *OPTIONS}
    assert split_options("onnx", "m", names, output="fc1") == ("m", {"output": "fc1"})
    assert split_options("onnx", "m,output=fc1", names) == ("m", {"output": "fc1"})
    assert split_options("onnx", "m,output=fc1", names, output="fc1") == ("m", {"output": "fc1"})
    expected = "two outputs are chosen: 'fc1' in 'onnx:m,output=fc1' and output='fc2'; give one"
    with pytest.raises(SpecError, match=re.escape(expected)):
        split_options("onnx", "m,output=fc1", names, output="fc2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,colour=bgr", "'onnx:m,colour=bgr' has the unknown option 'colour'; did you mean 'color'?"),
        ("m,xy=1", "'onnx:m,xy=1' has the unknown option 'xy'; it has color, mean, size, std"),
        ("m,std=1,std=2", "'onnx:m,std=1,std=2' has the option 'std' twice"),
        ("m,std=", "'onnx:m,std=': the option 'std' has no value"),
        (",std=1", "'onnx:,std=1' names no model"),
        ("", "'onnx:' names no model"),
    ],
)
def test_options_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        split_options("onnx", text, OPTIONS)
    assert str(caught.value) == message


def test_what_options_say_of_the_input() -> None:
    texts = {"color": "bgr", "mean": "104/117/123", "std": "58.5", "size": "96x112", "other": "1"}
    fields = given(texts)
    assert fields == {
        "color": "bgr",
        "mean": (104.0, 117.0, 123.0),
        "std": (58.5, 58.5, 58.5),
        "size": (96, 112),
    }
    assert given({}) == {}
    assert str(Inputs(**fields)) == "BGR, (pixel - (104, 117, 123)) / 58.5, 96 x 112 (H x W)"
    assert str(Inputs()) == "RGB, (pixel - 127.5) / 128, any size"
    assert not Inputs().as_decoded


def test_pixels_as_they_are_decoded() -> None:
    """Mean 0 and deviation 1 of each channel: `(pixel - mean) / std` is the pixel."""
    assert (AS_DECODED.mean, AS_DECODED.std, AS_DECODED.size) == ((0, 0, 0), (1, 1, 1), None)
    assert str(replace(AS_DECODED, size=(8, 6))) == "RGB 0..255, 8 x 6 (H x W)"
    assert SAYS_AS_DECODED[1] in str(AS_DECODED)
    for channel in range(3):
        mean, std = [0.0] * 3, [1.0] * 3
        mean[channel] = 1.0
        assert not replace(AS_DECODED, mean=(mean[0], mean[1], mean[2])).as_decoded
        std[channel] = 2.0
        assert not replace(AS_DECODED, std=(std[0], std[1], std[2])).as_decoded


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"mean": "1/2"}, "mean must be a number, or one for each channel as in 104/117/123, not '1/2'"),
        ({"std": "x"}, "std must be a number, or one for each channel as in 104/117/123, not 'x'"),
        ({"std": "0"}, "std must be above 0, not (0.0, 0.0, 0.0)"),
        ({"std": "1/1/-1"}, "std must be above 0, not (1.0, 1.0, -1.0)"),
        ({"mean": "nan"}, "mean must be three finite numbers, not (nan, nan, nan)"),
        ({"std": "1/inf/1"}, "std must be three finite numbers, not (1.0, inf, 1.0)"),
        ({"size": "112"}, "size must be HEIGHTxWIDTH, as in 112x112, not '112'"),
        ({"size": "8x6x3"}, "size must be HEIGHTxWIDTH, as in 112x112, not '8x6x3'"),
        ({"size": "8x0"}, "the width in size must be a whole number >= 1, not 0"),
        ({"color": "grb"}, "color must be one of 'rgb', 'bgr', not 'grb'"),
    ],
)
def test_inputs_that_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Inputs(**given(texts))
    assert str(caught.value) == message


def test_numbers_of_each_channel() -> None:
    for values in ((1.0, 2.0), (1.0,) * 4, (0.0, 1.0, float("inf"))):
        two: Any = values
        with pytest.raises(OptionError, match=re.escape(f"mean must be three finite numbers, not {values}")):
            Inputs(mean=two)
    assert Inputs(std=(1e-3, 0.5, 2.0)).std == (1e-3, 0.5, 2.0)


def test_three_numbers_of_a_call() -> None:
    assert three("mean", 5) == (5.0, 5.0, 5.0)
    of_numpy: Any = np.float32(5)
    assert three("mean", of_numpy) == (5.0, 5.0, 5.0)
    assert three("mean", [1, 2.5, 3]) == (1.0, 2.5, 3.0)
    for wrong in ([1, 2], [1, 2, 3, 4], ["1", 2, 3]):
        expected = f"mean must be a number, or three, one for each channel, not {wrong!r}"
        with pytest.raises(OptionError, match=re.escape(expected)):
            three("mean", wrong)  # type: ignore[arg-type]


def test_what_is_said_of_a_wrong_size() -> None:
    found = "a.onnx: the network does not take images of 8 x 6 (H x W)"
    assert wrong_size("a.onnx", (8, 6)) == found
    assert wrong_size("a.onnx", (8, 6), (112, 96)) == f"{found}; it takes 112 x 96"


@pytest.mark.parametrize("name", ["float32", "tf32", "bfloat16"])
def test_names_of_precisions(name: str) -> None:
    assert precision_named(name) == name
    assert precision_named("bf16") == "bfloat16"


@pytest.mark.parametrize("name", ["float16", "fp32", None, 32])
def test_unknown_precisions(name: Any) -> None:
    with pytest.raises(OptionError, match="precision must be one of 'float32', 'tf32', 'bfloat16', not"):
        precision_named(name)
