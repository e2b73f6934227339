"""`onnx:FILE.onnx` with small models made here, against the package onnx's own plain evaluation."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet._extras import how_to_install
from fasttriplet.errors import OptionError, SpecError
from fasttriplet.onnx._graph import read_graph
from tests.onnx.models import SIZE, WIDTH, Builder, planes, random_images, reference, rows_of, weights

pytestmark = pytest.mark.onnx


def close(found: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-5) -> None:
    assert found.dtype == np.float32
    assert found.std() > 0
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# --- what is fed


def test_embeddings_are_those_of_the_model(tmp_path: Path, spec: str) -> None:
    images = random_images(5)
    embedder = ft.load_embedder(spec)
    assert embedder.needs_images
    embedder.prepare(rows_of(5))
    found = embedder.embed(rows_of(5), images)
    close(found, reference(tmp_path / "net.onnx", planes(images)))
    assert embedder.description == (
        f"ONNX network {tmp_path}/net.onnx, output embedding, RGB, (pixel - 127.5) / 128, 24 x 24 (H x W), "
        "on cpu, 8 images at a time"
    )
    assert embedder.embed(rows_of(0), random_images(0)).shape == (0, WIDTH)
    for strided in (np.asfortranarray(images), images[::-1][::-1]):
        np.testing.assert_array_equal(embedder.embed(rows_of(5), strided), found)


CONVENTIONS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "": planes,
    ",color=bgr": lambda images: planes(images[..., ::-1]),
    ",mean=0,std=255": lambda images: planes(images, 0, 255),
    ",mean=104/117/123,std=1,color=bgr": lambda images: planes(images[..., ::-1], (104, 117, 123), 1),
    ",std=57.375": lambda images: planes(images, 127.5, 57.375),
    ",size=24x24": planes,
}


@pytest.mark.parametrize("options", CONVENTIONS)
def test_the_convention_can_be_given(tmp_path: Path, spec: str, options: str) -> None:
    images = random_images(3)
    expected = reference(tmp_path / "net.onnx", CONVENTIONS[options](images))
    close(ft.load_embedder(spec + options).embed(rows_of(3), images), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_any_type_and_layout(tmp_path: Path, dtype: Any, channels_last: bool) -> None:
    builder = Builder(("N", *SIZE, 3) if channels_last else ("N", 3, *SIZE), dtype=dtype)
    if dtype is not np.float32:
        builder.add("Cast", to=1)
    if channels_last:
        builder.add("Transpose", perm=[0, 3, 1, 2])
    if dtype is np.uint8:
        builder.add("Div", np.float32(255))
    spec = builder.layers().save(tmp_path / "net.onnx")
    images = random_images(3)
    batch = planes(images, 0, 1) if dtype is np.uint8 else planes(images)
    batch = batch.transpose(0, 2, 3, 1) if channels_last else batch
    embedder = ft.load_embedder(spec)
    close(embedder.embed(rows_of(3), images), reference(tmp_path / "net.onnx", batch.astype(dtype)), 1e-3)
    assert ("RGB 0..255" in embedder.description) == (dtype is np.uint8)


def test_pixels_of_uint8_are_fed_as_they_are(tmp_path: Path) -> None:
    builder = Builder(dtype=np.uint8)
    builder.add("Cast", to=1)
    spec = builder.layers().save(tmp_path / "net.onnx")
    with pytest.raises(OptionError, match=r"mean cannot be given: .*net\.onnx takes pixels of uint8"):
        ft.load_embedder(f"{spec},mean=0")
    images = random_images(2)
    found = ft.load_embedder(f"{spec},color=bgr").embed(rows_of(2), images)
    expected = reference(tmp_path / "net.onnx", images[..., ::-1].transpose(0, 3, 1, 2))
    close(found, expected, 1e-3)


RAW, UNIT, DEFAULT = "RGB 0..255", "RGB, (pixel - 0) / 255", "RGB, (pixel - 127.5) / 128"
RAMP = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STARTS: dict[str, tuple[Callable[[Builder], object], str]] = {
    "MXNet": (lambda b: (b.add("Sub", [127.5]), b.add("Mul", [0.0078125])), RAW),
    "the same, added": (lambda b: (b.add("Mul", 0.0078125), b.add("Add", -0.99609375)), RAW),
    "divided": (lambda b: b.add("Div", 255.0), RAW),
    "means of Caffe": (lambda b: b.add("Sub", [[[104.0]], [[117.0]], [[123.0]]]), RAW),
    "reversed": (lambda b: (b.add("Sub", 127.5, first=False), b.add("Identity"), b.add("Div", 128.0)), RAW),
    "running statistics": (
        lambda b: b.add("BatchNormalization", *[[1.0] * 3, [0.1] * 3, [131.0] * 3, [4900.0] * 3]),
        RAW,
    ),
    "torchvision": (lambda b: (b.add("Sub", RAMP), b.add("Div", RAMP / 2)), UNIT),
    "2 x - 1": (lambda b: (b.add("Mul", 2.0), b.add("Sub", 1.0)), UNIT),
    "nothing": (lambda b: b.add("Identity"), DEFAULT),
    "running statistics of -1 to 1": (
        lambda b: b.add("BatchNormalization", *[[1.0] * 3, [0.0] * 3, [0.3] * 3, [0.25] * 3]),
        DEFAULT,
    ),
    "a small shift": (lambda b: b.add("Add", 0.01), DEFAULT),
    "used twice": (
        lambda b: (b.add("Sub", 127.5), b.beside("Abs")),
        DEFAULT,
    ),
    "zero": (lambda b: b.add("Mul", 0.0), DEFAULT),
}


@pytest.mark.parametrize("start", STARTS)
def test_models_that_normalise_their_input_are_fed_what_they_expect(tmp_path: Path, start: str) -> None:
    begin, expected = STARTS[start]
    builder = Builder()
    builder.constant = _in_float32(builder.constant)  # type: ignore[method-assign]
    begin(builder)
    spec = builder.layers().save(tmp_path / "net.onnx")
    assert f", {expected}, 24 x 24" in ft.load_embedder(spec).description
    given = ft.load_embedder(f"{spec},mean=1/2/3,std=4").description
    assert ", RGB, (pixel - (1, 2, 3)) / 4, 24 x 24" in given


def _in_float32(constant: Callable[..., str]) -> Callable[..., str]:
    return lambda value, name=None: constant(np.asarray(value, np.float32), name)


# --- what does not fit


INPUTS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "gray": (("N", 1, 24, 24), np.float32, r"\(N, 1, 24, 24\): gray images, and only colour can be fed"),
    "gray, channels last": (("N", 24, 24, 1), np.float32, "gray images"),
    "ambiguous": (("N", 3, 24, 3), np.float32, r"\(N, 3, 24, 3\), which does not say where the 3 channels"),
    "free": (("N", "C", "H", "W"), np.float32, r"\(N, C, H, W\), which does not say where the 3 channels"),
    "vectors": (("N", 128), np.float32, r"float32 \(N, 128\); expected images, \(B, 3, H, W\) or"),
    "numbers": (("N", 3, 24, 24), np.int64, r"tensor\(int64\) \(N, 3, 24, 24\); expected float32, float16"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_are_not_colour_images(tmp_path: Path, case: str) -> None:
    shape, dtype, message = INPUTS[case]
    builder = Builder(shape, dtype=dtype)
    builder.add("Identity", name="embedding")
    spec = builder.save(tmp_path / "net.onnx", ("embedding", dtype, shape))
    with pytest.raises(ValueError, match=rf"net\.onnx: input 'input' is .*{message}"):
        ft.load_embedder(spec)


def test_several_inputs(tmp_path: Path) -> None:
    builder = Builder().layers()
    other = builder.onnx.helper.make_tensor_value_info("scale", 1, (1,))
    builder.inputs.append(other)
    builder.nodes[-1].output[0] = "before"
    builder.nodes.append(builder.onnx.helper.make_node("Mul", ["before", "scale"], ["embedding"]))
    spec = builder.save(tmp_path / "net.onnx")
    with pytest.raises(
        ValueError, match=r"one input without a default, the images; it has 'input' float32 \(N, 3.*'scale'"
    ):
        ft.load_embedder(spec)
    builder.constant(np.full(1, 3, np.float32), "scale")  # a default, which may be replaced
    tripled = ft.load_embedder(builder.save(tmp_path / "net.onnx"))
    plain = ft.load_embedder(Builder().layers().save(tmp_path / "plain.onnx"))
    images = random_images(2)
    close(tripled.embed(rows_of(2), images), 3 * plain.embed(rows_of(2), images))


def test_images_of_another_size(spec: str) -> None:
    embedder = ft.load_embedder(spec)
    with pytest.raises(
        ValueError,
        match=r"net\.onnx: the network does not take images of 32 x 24 \(H x W\); it takes 24 x 24$",
    ):
        embedder.embed(rows_of(1), random_images(1, 32, 24))
    assert embedder.embed(rows_of(1), random_images(1)).shape == (1, WIDTH)  # still usable
    with pytest.raises(OptionError, match=r"size cannot be 32 x 24: .*net\.onnx takes 24 x 24"):
        ft.load_embedder(f"{spec},size=32x24")


def test_a_model_for_images_of_any_size(tmp_path: Path) -> None:
    spec = Builder(("N", 3, "H", "W")).layers(size=None).save(tmp_path / "net.onnx")
    embedder = ft.load_embedder(spec)
    assert ", any size, on" in embedder.description
    for height, width in ((9, 8), (24, 31)):
        images = random_images(3, height, width)
        close(embedder.embed(rows_of(3), images), reference(tmp_path / "net.onnx", planes(images)))
    with pytest.raises(ValueError, match=r"does not take images of 0 x 8 \(H x W\)$"):
        embedder.embed(rows_of(1), random_images(1, 0, 8))
    limited = ft.load_embedder(f"{spec},size=24x31")
    assert ", 24 x 31 (H x W), on" in limited.description
    with pytest.raises(ValueError, match=r"images of 24 x 24 \(H x W\); it takes 24 x 31$"):
        limited.embed(rows_of(1), random_images(1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "got nothing"),
        (np.zeros((2, 3, *SIZE), np.uint8), r"\(B, H, W, 3\) uint8, got uint8"),
        (np.zeros((3, *SIZE, 3), np.uint8), "2 rows of the index but 3 images"),
    ],
)
def test_wrong_images(spec: str, images: NDArray[np.uint8] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.load_embedder(spec).embed(rows_of(2), images)


def test_not_finite_names_the_image(tmp_path: Path) -> None:
    builder = Builder().layers(output="before")
    builder.add("Log", name="embedding")  # of negative numbers
    spec = builder.save(tmp_path / "net.onnx")
    rows = pl.DataFrame({"key": [44, 55]})
    with pytest.raises(ValueError, match=r"net\.onnx, output embedding: .* key 44 holds NaN"):
        ft.load_embedder(spec).embed(rows, random_images(2))


# --- outputs


def many(tmp_path: Path, *outputs: tuple[str, Any, tuple[Any, ...]]) -> str:
    """Outputs of many shapes: two embeddings, a map, whole numbers, a number, (B, D, 1, 1)."""
    builder = Builder().layers(output="first")
    add, nodes = builder.onnx.helper.make_node, builder.nodes
    shape = builder.constant(np.array([0, WIDTH, 1, 1]), "shape")
    nodes.append(add("Neg", ["first"], ["second"]))
    nodes.append(add("Identity", [nodes[0].output[0]], ["map"]))
    nodes.append(add("ArgMax", ["first"], ["whole"], axis=1, keepdims=1))
    nodes.append(add("ReduceSum", ["first"], ["number"], keepdims=0))
    nodes.append(add("Reshape", ["first", shape], ["deep"]))
    return builder.save(tmp_path / "net.onnx", *outputs)


EMBEDDINGS = [("first", np.float32, ("N", WIDTH)), ("second", np.float32, ("N", WIDTH))]
OTHERS = [
    ("map", np.float32, ("N", 4, 12, 12)),
    ("whole", np.int64, ("N", 1)),
    ("number", np.float32, ()),
]
DEEP = ("deep", np.float32, ("N", WIDTH, 1, 1))


def test_the_only_embedding_is_found(tmp_path: Path) -> None:
    images = random_images(3)
    for end in (EMBEDDINGS[1], DEEP):
        embedder = ft.load_embedder(many(tmp_path, *OTHERS, end))
        assert f"output {end[0]}," in embedder.description
        expected = reference(tmp_path / "net.onnx", planes(images), len(OTHERS)).reshape(3, WIDTH)
        close(embedder.embed(rows_of(3), images), expected)


def test_an_output_is_chosen_by_name(tmp_path: Path) -> None:
    images = random_images(3)
    spec = many(tmp_path, *EMBEDDINGS, *OTHERS)
    with pytest.raises(
        ValueError,
        match=r"which output of .*net\.onnx is the embedding; choose one with output=NAME. It has "
        r"'first' float32 \(N, 8\), 'second' float32 \(N, 8\), 'map' float32 \(N, 4, 12, 12\), "
        r"'whole' tensor\(int64\) \(N, 1\), 'number' float32 \(\)$",
    ):
        ft.load_embedder(spec)
    for embedder in (ft.load_embedder(f"{spec},output=second"), ft.load_embedder(spec, output="second")):
        close(embedder.embed(rows_of(3), images), reference(tmp_path / "net.onnx", planes(images), 1))
    with pytest.raises(
        ValueError, match=r"no output 'secnd'; did you mean 'second'\? It has 'first' float32"
    ):
        ft.load_embedder(spec, output="secnd")
    with pytest.raises(ValueError, match="no output 'fc1'; it has 'first'"):
        ft.load_embedder(spec, output="fc1")
    for name in ("map", "whole"):
        with pytest.raises(
            ValueError, match=f"output '{name}' is not an embedding, .* the model has 'first'"
        ):
            ft.load_embedder(spec, output=name)
    with pytest.raises(SpecError, match=r"two outputs are chosen: 'first' in 'onnx:.*' and output='second'"):
        ft.load_embedder(f"{spec},output=first", output="second")


def test_no_output_is_an_embedding(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"net\.onnx has no output that is an embedding.* it has 'map' float32"
    ):
        ft.load_embedder(many(tmp_path, *OTHERS[:2]))
    builder = Builder().layers(output="before")
    builder.add("Compress", np.array([True, False, True]), axis=0, name="some")
    embedder = ft.load_embedder(builder.save(tmp_path / "net.onnx", ("some", np.float32, ("M", WIDTH))))
    with pytest.raises(
        ValueError,
        match=r"output 'some' has the shape \(2, 8\) for 8 images, and an embedding has \(8, D\)",
    ):
        embedder.embed(rows_of(2), random_images(2))


# --- batches


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_batch_size_is_kept(tmp_path: Path, fixed: int) -> None:
    spec = (
        Builder((fixed, 3, *SIZE)).layers().save(tmp_path / "net.onnx", ("embedding", np.float32, (fixed, 8)))
    )
    images = random_images(7)
    for embedder in (ft.load_embedder(spec), ft.load_embedder(spec, batch_size=fixed)):
        assert embedder.description.endswith(f"{fixed} image{'s' * (fixed > 1)} at a time")
        padded = np.concatenate([images, np.zeros_like(images)])[: -(-7 // fixed) * fixed]
        expected = [
            reference(tmp_path / "net.onnx", planes(part)) for part in np.split(padded, len(padded) // fixed)
        ]
        close(embedder.embed(rows_of(7), images), np.concatenate(expected)[:7])
    with pytest.raises(OptionError, match=rf"batch_size must be {fixed} for .*net\.onnx, not 8"):
        ft.load_embedder(spec, batch_size=8)
    with pytest.raises(OptionError, match="batch_size must be a whole number >= 1, not 0"):
        ft.load_embedder(spec, batch_size=0)


def test_embeddings_do_not_depend_on_neighbours_or_batches(tmp_path: Path) -> None:
    """Bit for bit, with layers wide enough for the kernels that multiply matrices."""
    builder = Builder()
    builder.add("Conv", weights(32, 3, 3, 3), pads=[1, 1, 1, 1])
    builder.add("PRelu", np.full((32, 1, 1), 0.2, np.float32))
    builder.add("Conv", weights(48, 32, 1, 1))
    builder.add("Flatten")
    builder.add("Gemm", weights(48 * 24 * 24, 96), name="embedding")
    spec = builder.save(tmp_path / "net.onnx", ("embedding", np.float32, ("N", 96)))
    images = random_images(21)
    expected = ft.load_embedder(spec, batch_size=8).embed(rows_of(21), images)
    order = np.random.default_rng(1).permutation(21)
    for size in (1, 2, 8, 21, 64):
        embedder = ft.load_embedder(spec, batch_size=size)
        np.testing.assert_array_equal(embedder.embed(rows_of(21), images), expected)
        np.testing.assert_array_equal(embedder.embed(rows_of(21), images[order]), expected[order])
        np.testing.assert_array_equal(embedder.embed(rows_of(3), images[5:8]), expected[5:8])


def test_images_that_are_quantised_together_are_run_alone(tmp_path: Path) -> None:
    builder = Builder()
    nodes, add = builder.nodes, builder.onnx.helper.make_node
    nodes.append(add("DynamicQuantizeLinear", ["input"], ["codes", "scale", "zero"]))
    nodes.append(add("DequantizeLinear", ["codes", "scale", "zero"], ["coarse"]))
    builder.last = "coarse"
    spec = builder.layers().save(tmp_path / "net.onnx")
    images = random_images(3)
    images[0] //= 8
    embedder = ft.load_embedder(spec)
    assert embedder.description.endswith(", 1 image at a time")
    together = embedder.embed(rows_of(3), images)
    for at in range(3):
        np.testing.assert_array_equal(embedder.embed(rows_of(1), images[at : at + 1])[0], together[at])
    with pytest.raises(OptionError, match=r"batch_size must be 1 for .*net\.onnx, not 2"):
        ft.load_embedder(spec, batch_size=2)
    builder.inputs = [builder.onnx.helper.make_tensor_value_info("input", 1, (4, 3, *SIZE))]
    with pytest.raises(ValueError, match="quantises 4 images by their common range"):
        ft.load_embedder(builder.save(tmp_path / "net.onnx"))


def test_a_model_for_one_image_that_says_any_number(tmp_path: Path) -> None:
    builder = Builder()
    builder.add("Reshape", np.array([1, -1]))
    builder.add("MatMul", weights(3 * 24 * 24, WIDTH), name="embedding")
    spec = builder.save(tmp_path / "net.onnx")
    with pytest.raises(
        RuntimeError,
        match=r"ONNX Runtime failed to run .*net\.onnx on cpu with an input of \(8, 3, 24, 24\): .*; "
        "if it was exported for one image at a time, give batch_size=1$",
    ) as caught:
        ft.load_embedder(spec).embed(rows_of(2), random_images(2))
    assert "ONNXRuntimeError" not in str(caught.value)
    found = ft.load_embedder(spec, batch_size=1).embed(rows_of(2), random_images(2))
    assert found.shape == (2, WIDTH)


SLOPES: dict[str, tuple[tuple[int, ...], int]] = {
    "(C, 1, 1)": ((4, 1, 1), 0),
    "(1, C, 1, 1)": ((1, 4, 1, 1), 0),
    "one": ((1, 1, 1), 1),
    "of a row": ((12,), 1),
}


@pytest.mark.parametrize("slopes", SLOPES)
def test_prelu_gives_what_it_is_defined_to_give(tmp_path: Path, slopes: str) -> None:
    """It is replaced where it has a slope for each channel."""
    shape, left = SLOPES[slopes]
    builder = Builder()
    builder.add("Conv", weights(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    builder.add("BatchNormalization", *(np.full(4, value, np.float32) for value in (1.5, 0.1, 0.2, 0.7)))
    slope = np.linspace(-0.5, 1.5, int(np.prod(shape)), dtype=np.float32)
    builder.add("PRelu", slope.reshape(shape))
    builder.add("Flatten")
    builder.add("Gemm", weights(4 * 12 * 12, WIDTH), name="embedding")
    spec = builder.save(tmp_path / "net.onnx")
    images = random_images(3)
    embedder = ft.load_embedder(spec)
    close(embedder.embed(rows_of(3), images), reference(tmp_path / "net.onnx", planes(images)))
    content = read_graph(tmp_path / "net.onnx", for_cpu=True).content
    nodes = builder.nodes if content is None else builder.onnx.load_model_from_string(content).graph.node
    assert [node.op_type for node in nodes].count("PRelu") == left
    assert read_graph(tmp_path / "net.onnx", for_cpu=False).content is None
    apart = tmp_path / "apart.onnx"  # its weights are in another file, as PyTorch's exporter writes it
    builder.onnx.save(builder.model(), str(apart), save_as_external_data=True, size_threshold=0)
    assert (read_graph(apart, for_cpu=True).content is None) == (content is None)
    np.testing.assert_array_equal(
        ft.load_embedder(f"onnx:{apart}").embed(rows_of(3), images), embedder.embed(rows_of(3), images)
    )


# --- specs, and what is not installed


def test_specs(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ValueError, match="did you mean") as caught:
        ft.load_embedder(f"{tmp_path}/net.onnx")
    assert f"did you mean {spec!r}?" in str(caught.value)
    with pytest.raises(SpecError, match=r"unknown option 'colour'; did you mean 'color'\?"):
        ft.load_embedder(f"{spec},colour=bgr")
    with pytest.raises(OptionError, match="color must be one of 'rgb', 'bgr', not 'gray'"):
        ft.load_embedder(f"{spec},color=gray")
    with pytest.raises(OptionError, match="std must be above 0"):
        ft.load_embedder(f"{spec},std=0")


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
def test_a_missing_package_is_one_sentence(spec: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    message = re.escape(f"is not installed. {how_to_install('onnx')}")
    with pytest.raises(ImportError, match=message):
        ft.load_embedder(spec)
    with pytest.raises(ImportError, match=message):
        ft.onnx.OnnxEmbedder(spec.removeprefix("onnx:"))


def test_one_number_is_for_all_channels(tmp_path: Path) -> None:
    Builder().layers().save(tmp_path / "net.onnx")
    embedder = ft.onnx.OnnxEmbedder(tmp_path / "net.onnx", mean=np.float32(100.5), std=2)  # type: ignore[arg-type]
    assert embedder.inputs.mean == (100.5,) * 3
    assert embedder.inputs.std == (2.0,) * 3
