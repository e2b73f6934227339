"""Spec strings, and the embedders that need no network: `npy:` and `pixels`."""

from __future__ import annotations

import importlib.util
import io
import pickle
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.embedders import _load
from fasttriplet.embedders._base import check_finite
from fasttriplet.embedders._pixels import PixelEmbedder
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.errors import SpecError


def index_of(keys: list[int] | NDArray[np.int64], files: list[int] | None = None) -> pl.DataFrame:
    frame = pl.DataFrame({"key": pl.Series(keys, dtype=pl.Int64)})
    return frame if files is None else frame.with_columns(file=pl.Series(files, dtype=pl.UInt32))


def random_images(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def save(path: Path, array: NDArray[Any]) -> str:
    np.save(path, array)
    return f"npy:{path}"


# --- spec strings


UNKNOWN = ["", "model", Path("model"), "tensorflow:model", "pixels ", "MXNET:model,0", "mxnet", "npy"]


@pytest.mark.parametrize("spec", UNKNOWN)
def test_unknown_spec_lists_the_known_ones_with_examples(spec: str | Path) -> None:
    with pytest.raises(SpecError, match=f"unknown embedder {str(spec)!r}; known are") as caught:
        ft.load_embedder(spec)
    for part in (
        *("mxnet:PREFIX,EPOCH", "mxnet:models/model,0", "torch:mxnet:PREFIX,EPOCH", "torch:FILE"),
        *("torch:PACKAGE.MODULE:FACTORY", "torch:mynet:iresnet50,weights=r50.safetensors", "onnx:FILE"),
        *("python:PACKAGE.MODULE:NAME", "npy:FILE", "npy:embeddings.npy", "pixels"),
    ):
        assert part in str(caught.value)
    first, *lines = str(caught.value).splitlines()
    assert first == f"unknown embedder {str(spec)!r}; known are"
    assert max(map(len, lines)) <= 150
    # The meanings are below each other.
    assert len({len("".join(re.findall(r"^  \S+ +", line))) for line in lines}) == 1


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        *[("mxnet:", "mxnet:PREFIX,EPOCH"), ("npy:", "npy:FILE"), ("mxnet:a", "mxnet:")],
        *[("pixels:16", "pixels"), ("pixels:", "pixels")],
    ],
)
def test_incomplete_spec_says_the_form(spec: str, form: str) -> None:
    with pytest.raises(ValueError, match=f"{spec!r} is not of the form {form}"):
        ft.load_embedder(spec)


def test_a_path_alone_gets_the_spec_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "emb.npy", np.zeros((1, 1)))
    prefix = tmp_path / "model"
    for name in ("model-symbol.json", "model-0000.params", "model-0012.params", "model-best.params"):
        (tmp_path / name).touch()
    for name in ("net.pt2", "net.pt", "net.pth", "net.onnx", "net.safetensors"):
        (tmp_path / name).touch()
    # The checkpoint's hint is for the framework that is there.
    monkeypatch.setattr("fasttriplet.embedders._load.find_spec", lambda name: name)
    for spec, meant in {
        f"{tmp_path}/emb.npy": f"npy:{tmp_path}/emb.npy",
        f"{tmp_path}/net.pt2": f"torch:{tmp_path}/net.pt2",
        f"{tmp_path}/net.pt": f"torch:{tmp_path}/net.pt",
        f"{tmp_path}/net.pth": f"torch:{tmp_path}/net.pth",
        f"{tmp_path}/net.onnx": f"onnx:{tmp_path}/net.onnx",
        f"{tmp_path}/net.safetensors": f"torch:PACKAGE.MODULE:FACTORY,weights={tmp_path}/net.safetensors",
        f"{prefix}": f"mxnet:{prefix},12",
        f"{prefix},0": f"mxnet:{prefix},0",
        f"{prefix}-symbol.json": f"mxnet:{prefix},12",
        f"{prefix}-0000.params": f"mxnet:{prefix},0",
    }.items():
        with pytest.raises(ValueError, match="did you mean") as caught:
            ft.load_embedder(spec)
        assert f"did you mean {meant!r}?" in str(caught.value)
    with pytest.raises(ValueError, match=r"epochs found: 0, 12, so write mxnet:.*model,12"):
        ft.load_embedder(f"mxnet:{prefix}")
    monkeypatch.setattr("fasttriplet.embedders._load.find_spec", lambda _: None)  # MXNet is not installed
    with pytest.raises(ValueError, match=rf"did you mean 'torch:mxnet:{prefix},12'"):
        ft.load_embedder(str(prefix))


def test_what_is_not_there_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "emb.txt").touch()
    for name in ("emb.npy", "net.onnx", "net.safetensors", "emb.txt", "model"):
        with pytest.raises(SpecError, match="unknown embedder"):
            ft.load_embedder(tmp_path / name)


MODULES = {
    "mxnet:model,0": "mxnet._embedder",
    "torch:mxnet:model,0": "torch._embedder",
    "torch:net.pt": "torch._embedder",
    "onnx:net.onnx": "onnx._embedder",
    "python:mynet:Embedder": "embedders._python",
    "npy:emb.npy": "embedders._precomputed",
    "pixels": "embedders._pixels",
}


@pytest.mark.parametrize("spec", MODULES)
def test_the_module_of_a_scheme_gets_the_text_and_the_options_that_are_given(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def imported(module: str) -> Any:
        return SimpleNamespace(from_spec=lambda text, **options: made.append((module, text, options)))

    monkeypatch.setattr(_load, "import_module", imported)
    ft.load_embedder(spec)
    where, text = f"fasttriplet.{MODULES[spec]}", spec.partition(":")[2]
    assert Path(ft.__file__).parent.joinpath(*MODULES[spec].split(".")).with_suffix(".py").is_file()
    is_network = MODULES[spec].partition(".")[0] in ("mxnet", "torch", "onnx")
    assert _load.runs_network(spec) is is_network
    given: list[dict[str, Any]] = [{"batch_size": 7}, {"devices": ["cpu"], "output": "0"}]
    if is_network:
        for options in given:
            ft.load_embedder(spec, **options)
    assert made == [(where, text, options) for options in ([{}, *given] if is_network else [{}])]


def test_what_is_no_scheme_runs_no_network() -> None:
    assert _load.runs_network("tensorflow:model") is False


def test_frameworks_are_imported_only_by_embedders_that_need_them(tmp_path: Path) -> None:
    save(tmp_path / "emb.npy", np.zeros((1, 1)))
    script = """
import sys
import fasttriplet as ft
ft.load_embedder("pixels")
ft.load_embedder("npy:emb.npy")
for spec in ("unknown", "emb.npy", "mxnet:emb", "net.pt2", "python:json:dumps"):
    try:
        ft.load_embedder(spec)
    except ValueError:
        continue
    raise AssertionError(spec)
assert not {"mxnet", "torch", "onnxruntime"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


@pytest.mark.parametrize("option", [{"batch_size": 8}, {"devices": "cpu"}, {"output": "fc1"}])
@pytest.mark.parametrize("spec", ["pixels", "npy:emb.npy", "python:mynet:Embedder"])
def test_options_of_networks_are_refused_elsewhere(spec: str, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} cannot be given with {spec!r}"):
        ft.load_embedder(spec, **option)


@pytest.mark.parametrize("scheme", ["mxnet", "torch", "onnx"])
def test_a_missing_framework_is_one_sentence_with_a_command(scheme: str) -> None:
    if scheme == "onnx" and importlib.util.find_spec("fasttriplet.onnx") is None:
        pytest.skip("the room onnx is not there yet")
    script = f"""
import sys
sys.modules["{scheme if scheme != "onnx" else "onnxruntime"}"] = None
import fasttriplet as ft
try:
    ft.load_embedder("{scheme}:model,0")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    command = r": \S+ -m pip install [^\n]+"
    if scheme == "mxnet" and sys.version_info >= (3, 13):
        command = r" with Python 3\.11 or 3\.12: MXNet [^\n]+"  # none would work
    assert re.fullmatch(rf"[^\n]+\. Install it{command}\n", done.stdout)


# --- npy


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_npy_row_i_belongs_to_the_ith_key_of_file_after_file(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], kind: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    keys = [np.sort(rng.choice(10**12, count, replace=False)) for count in counts]
    table: NDArray[Any] = rng.standard_normal((sum(counts), 5)).astype(kind)
    index = index_of(
        np.concatenate(keys), [number for number, count in enumerate(counts) for _ in range(count)]
    )
    if len(counts) == 1 and seed % 2:
        index = index.drop("file")
    embedder = ft.load_embedder(save(tmp_path_factory.mktemp("npy") / "emb.npy", table))
    assert not embedder.needs_images
    order = rng.permutation(index.height)
    embedder.prepare(index[rng.permutation(index.height).tolist()])  # the index may come in any order
    for copy in (embedder, pickle.loads(pickle.dumps(embedder))):
        found = copy.embed(index[order.tolist()], None)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, table[order].astype(np.float32))
        assert copy.embed(index[:0], None).shape == (0, 5)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [">f4", "<f8", "<f2"])
def test_npy_in_any_order_of_bytes_and_columns(tmp_path: Path, kind: str, order: Any) -> None:
    table = np.arange(35).reshape(7, 5).astype(kind, order=order)
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", table))
    index = index_of([1, 2, 3, 4, 5, 6, 7])
    embedder.prepare(index)
    rows = [6, 0, 1, 2, 2, 4]
    assert np.array_equal(embedder.embed(index[rows], None), table[rows].astype(np.float32))


def test_npy_is_described(tmp_path: Path) -> None:
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", np.ones((1234, 7))))
    assert isinstance(embedder, PrecomputedEmbedder)
    assert embedder.description == f"precomputed embeddings: {tmp_path}/emb.npy, 1,234 rows of 7 float64"


def test_npy_with_another_number_of_rows_than_images(tmp_path: Path) -> None:
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", np.ones((4, 2))))
    with pytest.raises(ValueError, match=r"emb\.npy has 4 rows but the index has 3 images.*key order"):
        embedder.prepare(index_of([1, 2, 3]))


def test_npy_after_an_index_that_was_refused(tmp_path: Path) -> None:
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", np.array([[1], [2]], np.float32)))
    for bad in (index_of([1, 1]), index_of([1, 1], [2, 2]), index_of([-1, 1], [0, 1])):
        with pytest.raises(ValueError, match=r"twice in the index|of several files, keys"):
            embedder.prepare(bad)
        with pytest.raises(ValueError, match="call prepare"):
            embedder.embed(bad, None)
    embedder.prepare(index_of([1, 1], [2, 0]))  # one key in two files
    assert embedder.embed(index_of([1, 1], [2, 0]), None).tolist() == [[2], [1]]


def test_npy_unknown_and_repeated_keys(tmp_path: Path) -> None:
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", np.ones((3, 2))))
    with pytest.raises(ValueError, match="call prepare"):
        embedder.embed(index_of([1]), None)
    with pytest.raises(ValueError, match="key 2 is twice"):
        embedder.prepare(index_of([2, 1, 2]))
    embedder.prepare(index_of([1, 2, 4]))
    for key in (0, 3, 5):
        with pytest.raises(ValueError, match=f"no row for key {key}"):
            embedder.embed(index_of([1, key]), None)
    with pytest.raises(ValueError, match="no row for key 1"):
        embedder.embed(index_of([1], [1]), None)


@pytest.mark.parametrize(
    "array",
    [np.ones(3), np.ones((2, 3, 4)), np.ones((2, 0)), np.ones((2, 2), np.int64), np.ones((2, 2), complex)],
    ids=str,
)
def test_npy_of_another_shape_or_type(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"must hold \(images, D\) float16, float32 or float64, but holds"):
        ft.load_embedder(save(tmp_path / "emb.npy", array))


def test_npy_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "emb.npy"
    with pytest.raises(FileNotFoundError, match=r"no file of embeddings at .*emb\.npy"):
        ft.load_embedder(f"npy:{path}")
    archive = io.BytesIO()
    np.savez(archive, a=np.ones(2))
    objects = io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    whole = io.BytesIO()
    np.save(whole, np.ones((9, 9)))
    for content, what in {
        b"": "is empty, not a .npy file",
        b"hello": "is not a .npy file",
        b"version https://git-lfs.github.com/spec/v1\n": "is a Git LFS pointer",
        archive.getvalue(): "is an archive of several arrays",
        objects.getvalue(): r"must hold \(images, D\) .*, but holds object \(1,\)",
        whole.getvalue()[:-1]: "has 775 bytes and should have 776: it is cut off",
        whole.getvalue().replace(b"(9, 9)", b"(-9,9)"): r"but holds float64 \(-9, 9\)",
        whole.getvalue().replace(b"(9, 9)", b"(9,-9)"): r"but holds float64 \(9, -9\)",
        whole.getvalue().replace(
            b"(9, 9), }" + 20 * b" ", b"(%d, 9), }" % 10**20
        ): r"but holds float64 \(10{20}, 9\)",
        whole.getvalue().replace(b"(9, 9)", b"(9, 9 "): "is not a .npy file",  # NumPy raises a TokenError
        whole.getvalue().replace(b"'shape'", b"'shape "): "is not a .npy file",
        whole.getvalue().replace(b"(9, 9)", b"(09,9)"): "is not a .npy file",  # a SyntaxError
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=what):
            ft.load_embedder(f"npy:{path}")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_npy_not_finite_names_the_first_key(tmp_path: Path, bad: float) -> None:
    table = np.ones((5, 3))
    table[2, 1] = table[4, 0] = bad
    embedder = ft.load_embedder(save(tmp_path / "emb.npy", table))
    embedder.prepare(index_of([10, 20, 30, 40, 50]))
    assert embedder.embed(index_of([40, 10]), None).shape == (2, 3)
    with pytest.raises(ValueError, match=r"key 50 holds NaN or infinity \(2 of 3 images\)"):
        embedder.embed(index_of([10, 50, 30]), None)


def test_large_but_finite_embeddings_pass() -> None:
    largest = np.full((2, 4), np.finfo(np.float32).max, np.float32)
    check_finite(largest, index_of([1, 2]), "test")
    largest[:, ::2] *= -1
    check_finite(largest, index_of([1, 2]), "test")
    with pytest.raises(ValueError, match="key 7 of file 3"):
        check_finite(np.full((1, 1), np.nan, np.float32), index_of([7], [3]), "test")


# --- pixels


def thumbnail(image: NDArray[np.uint8], size: int) -> list[Fraction]:
    """The area average by definition, in exact fractions, and its mean removed."""
    height, width, _ = image.shape
    cells = []
    for row in range(size):
        for column in range(size):
            top, left = Fraction(row * height, size), Fraction(column * width, size)
            bottom, right = top + Fraction(height, size), left + Fraction(width, size)
            for colour in range(3):
                total = Fraction(0)
                for y in range(int(top), min(height, int(bottom) + 1)):
                    for x in range(int(left), min(width, int(right) + 1)):
                        high = min(bottom, Fraction(y + 1)) - max(top, Fraction(y))
                        wide = min(right, Fraction(x + 1)) - max(left, Fraction(x))
                        total += max(high, Fraction(0)) * max(wide, Fraction(0)) * int(image[y, x, colour])
                cells.append(total * size * size / (height * width))
    mean = sum(cells, Fraction(0)) / len(cells)
    return [cell - mean for cell in cells]


@given(
    height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 5), seed=st.integers(0, 2**16)
)
@settings(max_examples=60, deadline=None)
def test_pixels_are_the_exact_area_average(height: int, width: int, size: int, seed: int) -> None:
    images = random_images(2, height, width, seed)
    found = PixelEmbedder(size).embed(index_of([1, 2]), images)
    expected = [[float(value) for value in thumbnail(image, size)] for image in images]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected).astype(np.float32))


def test_pixels_do_not_depend_on_the_bag_or_the_light() -> None:
    images = random_images(150, 30, 45) // np.uint8(2)
    rows = index_of(np.arange(150))
    embedder = ft.load_embedder("pixels")
    together = embedder.embed(rows, images)
    assert together.shape == (150, 768)
    alone = np.concatenate([embedder.embed(rows[i : i + 1], images[i : i + 1]) for i in range(150)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, embedder.embed(rows, images + np.uint8(100)))
    np.testing.assert_array_equal(together, embedder.embed(rows, np.asfortranarray(images)))


def test_pixels_of_a_large_image_are_exact() -> None:
    image = np.full((1, 2000, 1500, 3), 255, dtype=np.uint8)
    image[:, :, :750] = 1
    found = PixelEmbedder(2).embed(index_of([1]), image).reshape(2, 2, 3)
    np.testing.assert_array_equal(found[:, 0], np.full((2, 3), -127.0, np.float32))
    np.testing.assert_array_equal(found[:, 1], np.full((2, 3), 127.0, np.float32))


@pytest.mark.parametrize("height", [20, 50, 90])
def test_pixels_are_exact_below_and_above_what_float32_adds(height: int) -> None:
    """One cell, so that sums of bright pixels are up to 2^23, 2^25 and 2^26."""
    images = random_images(1, height, 2001) | np.uint8(248)
    sums = [int(images[0, :, :, colour].sum(dtype=np.int64)) for colour in range(3)]
    expected = [Fraction(3 * one - sum(sums), 3 * height * 2001) for one in sums]
    found = PixelEmbedder(1).embed(index_of([1]), images)
    np.testing.assert_array_equal(found[0], np.array([float(one) for one in expected]).astype(np.float32))


def test_pixels_say_that_they_are_a_baseline() -> None:
    embedder = ft.load_embedder("pixels")
    assert "baseline, not a trained network" in embedder.description
    assert embedder.needs_images
    embedder.prepare(index_of([1]))
    assert pickle.loads(pickle.dumps(embedder)).description == embedder.description
    with pytest.raises(ValueError, match="size must be a whole number >= 1, not 0"):
        PixelEmbedder(0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "got nothing"),
        (np.zeros((2, 8, 8, 3), np.float32), r"got float32 \(2, 8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"\(B, H, W, 3\) uint8, got uint8 \(2, 3, 8, 8\)"),
        (np.zeros((3, 8, 8, 3), np.uint8), "2 rows of the index but 3 images"),
        (np.zeros((2, 0, 8, 3), np.uint8), "images of 0 x 8 have no pixels"),
        (np.zeros((2, 8, 0, 3), np.uint8), "images of 8 x 0 have no pixels"),
    ],
)
def test_pixels_of_wrong_images(images: NDArray[Any] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.load_embedder("pixels").embed(index_of([1, 2]), images)


def test_pixels_of_a_full_bag_are_quick() -> None:
    images = np.broadcast_to(random_images(100, 112, 112), (72, 100, 112, 112, 3)).reshape(7200, 112, 112, 3)
    start = time.process_time()
    ft.load_embedder("pixels").embed(index_of(np.arange(7200)), images)
    assert time.process_time() - start < 3  # 0.4 s on 2 idle cores
