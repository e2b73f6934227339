"""Which output of a saved network is taken as its embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.mxnet.small_networks import NETWORKS, body, direct, random_images, rows_of, save, softmax

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


@pytest.mark.parametrize("case", NETWORKS)
def test_output_is_found(mx: Any, tmp_path: Path, case: str) -> None:
    build, output = NETWORKS[case]
    images = random_images(5)
    embedder = ft.load_embedder(save(mx, tmp_path / "net", build(mx), {"y": None}), batch_size=6)
    assert f"output {output}," in embedder.description
    expected = direct(mx, tmp_path / "net", f"{output}_output", images, 6)
    np.testing.assert_array_equal(embedder.embed(rows_of(5), images), expected)


@pytest.mark.parametrize("name", ["fc7", "fc7_output"])
def test_output_is_chosen(mx: Any, tmp_path: Path, name: str) -> None:
    spec = save(mx, tmp_path / "net", softmax(mx, body(mx)))
    images = random_images(3)
    expected = direct(mx, tmp_path / "net", "fc7_output", images, 64)
    for embedder in (ft.load_embedder(spec, output=name), ft.load_embedder(f"{spec},output={name}")):
        assert ", output fc7, " in embedder.description
        np.testing.assert_array_equal(embedder.embed(rows_of(3), images), expected)
    with pytest.raises(ValueError, match="two outputs are chosen"):
        ft.load_embedder(f"{spec},output={name}", output="fc1")


def test_output_that_does_not_exist(mx: Any, tmp_path: Path) -> None:
    spec = save(mx, tmp_path / "net", softmax(mx, body(mx)))
    with pytest.raises(ValueError, match=r"net-symbol\.json: the network has no output 'fc2'.*fc1"):
        ft.load_embedder(spec, output="fc2")
    for variable in ("data", "fc1_weight", "softmax_label"):
        with pytest.raises(ValueError, match="no output"):
            ft.load_embedder(spec, output=variable)
    with pytest.raises(ValueError, match=r"is computed from data, softmax_label"):
        ft.load_embedder(spec, output="softmax")


def test_output_that_is_no_vector(mx: Any, tmp_path: Path) -> None:
    embedder = ft.load_embedder(save(mx, tmp_path / "net", body(mx)), output="conv")
    wanted = r"output 'conv_output' has the shape \(64, 4, 15, 11\) .*Choose another"
    with pytest.raises(ValueError, match=wanted):
        embedder.embed(rows_of(1), random_images(1))


def test_undecidable_output_lists_the_candidates(mx: Any, tmp_path: Path) -> None:
    flat = body(mx, "left").get_internals()["flat_output"]
    both = [mx.sym.FullyConnected(flat, name=name, num_hidden=3) for name in ("left", "right")]
    spec = save(mx, tmp_path / "net", mx.sym.Group(both))
    with pytest.raises(ValueError, match=r"choose one with output=NAME\. Candidates: left, right$"):
        ft.load_embedder(spec)
    spec = save(mx, tmp_path / "net", mx.sym.MakeLoss(both[0] * both[1]))
    with pytest.raises(ValueError, match=r"Candidates: left, right$"):
        ft.load_embedder(spec)
    assert ft.load_embedder(f"{spec},output=right").embed(rows_of(1), random_images(1)).shape == (1, 3)
    scaled = mx.sym.broadcast_mul(mx.sym.Variable("data"), mx.sym.Variable("scale", shape=(1, 3, 1, 1)))
    spec = save(mx, tmp_path / "net", mx.sym.MakeLoss(scaled))
    with pytest.raises(ValueError, match="cannot tell which output"):
        ft.load_embedder(spec)


def test_input_of_another_name(mx: Any, tmp_path: Path) -> None:
    symbol = mx.sym.FullyConnected(mx.sym.Variable("image"), name="fc1", num_hidden=3)
    weights = {"arg:fc1_weight": mx.nd.ones((3, 12)), "arg:fc1_bias": mx.nd.zeros(3)}
    symbol.save(f"{tmp_path}/net-symbol.json")
    mx.nd.save(f"{tmp_path}/net-0000.params", weights)
    images = random_images(2, 2, 2)
    found = ft.load_embedder(f"mxnet:{tmp_path}/net,0").embed(rows_of(2), images)
    np.testing.assert_array_equal(found, images.sum((1, 2, 3))[:, None].repeat(3, axis=1).astype(np.float32))
    mx.nd.save(f"{tmp_path}/net-0000.params", {"arg:fc1_bias": mx.nd.zeros(3)})
    with pytest.raises(ValueError, match=r"no input called 'data'.*image, fc1_weight"):
        ft.load_embedder(f"mxnet:{tmp_path}/net,0")
