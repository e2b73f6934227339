"""`mxnet:PREFIX,EPOCH` against MXNet itself, with small networks made here."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.mxnet import save_untrained, small_convnet
from fasttriplet.mxnet._checkpoint import load_checkpoint
from fasttriplet.mxnet._embedder import MXNetEmbedder
from fasttriplet.mxnet._quiet import quiet
from tests.mxnet.small_networks import NETWORKS, SIZE, body, direct, random_images, rows_of, save, softmax

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


@pytest.fixture
def spec(mx: Any, tmp_path: Path) -> str:
    """A small network, saved as `net` in `tmp_path`."""
    return save(mx, tmp_path / "net", body(mx))


# --- the forward pass


@pytest.mark.parametrize("count", [1, 7, 8, 9, 24])
def test_equals_a_module_bit_for_bit(mx: Any, tmp_path: Path, spec: str, count: int) -> None:
    images = random_images(count)
    embedder = ft.load_embedder(spec, batch_size=8)
    assert embedder.needs_images
    embedder.prepare(rows_of(count))
    found = embedder.embed(rows_of(count), images)
    assert found.dtype == np.float32
    assert found.shape == (count, 8)
    assert found.std() > 0
    np.testing.assert_array_equal(found, direct(mx, tmp_path / "net", "fc1_output", images, 8))
    np.testing.assert_array_equal(found, embedder.embed(rows_of(count), images))


def test_batch_sizes_agree(tmp_path: Path) -> None:
    save_untrained(tmp_path / "net", small_convnet(), SIZE)
    images = random_images(30)
    embedders = [ft.load_embedder(f"mxnet:{tmp_path}/net,0", batch_size=size) for size in (1, 7, 30, 64)]
    found = [embedder.embed(rows_of(30), images) for embedder in embedders]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-5)


def test_images_of_another_size_and_layout(mx: Any, tmp_path: Path) -> None:
    """A network that takes any size is set up again when the size changes; strided images are read right."""
    data = mx.sym.Variable("data")
    layer = mx.sym.Convolution(data, name="conv", num_filter=4, kernel=(3, 3))
    spec = save(mx, tmp_path / "net", mx.sym.Pooling(layer, global_pool=True, pool_type="avg", name="pool"))
    embedder = ft.load_embedder(spec, batch_size=4)
    for height, width in ((9, 8), (12, 15), (9, 8)):
        images = random_images(6, height, width)
        found = embedder.embed(rows_of(6), images)
        expected = direct(mx, tmp_path / "net", "pool_output", images, 4)
        assert expected.shape == (6, 4, 1, 1)
        np.testing.assert_array_equal(found, expected[:, :, 0, 0])
        np.testing.assert_array_equal(found, embedder.embed(rows_of(6), np.asfortranarray(images)))
        np.testing.assert_array_equal(found[::-1], embedder.embed(rows_of(6), images[::-1]))


def test_no_images_at_all(spec: str) -> None:
    embedder = ft.load_embedder(spec)
    assert embedder.embed(rows_of(0), random_images(0)).shape == (0, 8)


def test_runs_in_another_thread_and_after_pickling(mx: Any, tmp_path: Path) -> None:
    images = random_images(5)
    embedder = ft.load_embedder(save(mx, tmp_path / "net", body(mx, "emb")), batch_size=4, output="emb")
    expected = embedder.embed(rows_of(5), images)
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy.description == embedder.description
    found = []
    thread = threading.Thread(target=lambda: found.append(copy.embed(rows_of(5), images)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], expected)


def test_not_finite_names_the_image(mx: Any, tmp_path: Path) -> None:
    bias = np.zeros(8, np.float32)
    bias[3] = np.nan
    spec = save(mx, tmp_path / "net", body(mx), {"fc1_bias": bias})
    rows = pl.DataFrame({"key": [44, 55]})
    with pytest.raises(ValueError, match=r"net-0000\.params, output fc1_output: .* key 44 holds NaN"):
        ft.load_embedder(spec).embed(rows, random_images(2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "got nothing"),
        (np.zeros((2, 3, *SIZE), np.uint8), r"\(B, H, W, 3\) uint8, got uint8"),
        (np.zeros((3, *SIZE, 3), np.uint8), "2 rows of the index but 3 images"),
    ],
)
def test_wrong_images(spec: str, images: NDArray[np.uint8] | None, message: str) -> None:
    embedder = ft.load_embedder(spec)
    with pytest.raises(ValueError, match=message):
        embedder.embed(rows_of(2), images)


# --- checkpoints that do not fit


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no network at .*net-symbol\.json"):
        ft.load_embedder(f"mxnet:{tmp_path}/net,0")
    with pytest.raises(FileNotFoundError, match=r"no network at .*nowhere/net-symbol\.json"):
        ft.load_embedder(f"mxnet:{tmp_path}/nowhere/net,0")
    small_convnet().save(f"{tmp_path}/net-symbol.json")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*net-0000\.params; no epoch lies beside it"):
        ft.load_embedder(f"mxnet:{tmp_path}/net,0")
    for name in ("net-0002.params", "net-10000.params", "other-0003.params", "net-x.params"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"net-0000\.params; epochs found beside it: 2, 10000$"):
        ft.load_embedder(f"mxnet:{tmp_path}/net,0")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xfe{"]
)
@pytest.mark.parametrize("name", ["net-symbol.json", "net-0000.params"])
def test_files_that_are_something_else(tmp_path: Path, spec: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    what = {b"": "is empty, not", b"ver": "is a Git LFS pointer"}.get(content[:3], "is not")
    with pytest.raises(ValueError, match=f"{re.escape(name)} {what}"):
        ft.load_embedder(spec)


def test_a_damaged_network_is_told_by_its_node(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "net-symbol.json"
    whole = path.read_text()
    path.write_text(whole.replace('"inputs": [[0, 0, 0]]', '"inputs": [[70, 0, 0]]'))
    with pytest.raises(
        ValueError,
        match=r"net-symbol\.json is not an MXNet symbol: inputs of node 1 \(_mulscalar\d+\): output 0",
    ):
        ft.load_embedder(spec)
    path.write_text(whole.replace('"op": "Convolution"', '"op": "Konvolution"'))
    with pytest.raises(
        ValueError,
        match=r"net-symbol\.json: MXNet cannot load the network: .*Operator Konvolution is not regist",
    ):
        ft.load_embedder(spec)


def test_truncated_params(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "net-0000.params"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"net-0000\.params is damaged or cut off: before byte \d+, "):
        ft.load_embedder(spec)


# MXNet itself reads or allocates for minutes where the first number of dimensions or the shape is damaged.
@pytest.mark.parametrize("at", [16, 24, 28, 32, 37, 45, 52])
def test_damaged_params(tmp_path: Path, spec: str, at: int) -> None:
    path = tmp_path / "net-0000.params"
    content = bytearray(path.read_bytes())
    content[at : at + 3] = b"\x7f\x7f\x7f"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net-0000\.params is damaged or cut off: before byte \d+, "):
        ft.load_embedder(spec)


def test_no_parameters_at_all(mx: Any, tmp_path: Path, spec: str) -> None:
    mx.nd.save(f"{tmp_path}/net-0000.params", {})
    with pytest.raises(ValueError, match=r"net-0000\.params lacks conv_weight, .*, which"):
        ft.load_embedder(spec)


def test_gluon_parameters(mx: Any, tmp_path: Path, spec: str) -> None:
    mx.nd.save(f"{tmp_path}/net-0000.params", {"fc1_weight": mx.nd.ones(3)})
    with pytest.raises(ValueError, match=r"lack 'arg:' or 'aux:'.*export"):
        ft.load_embedder(spec)


@pytest.mark.parametrize("case", ["plain", "trained with softmax"])
def test_missing_params_are_named(mx: Any, tmp_path: Path, case: str) -> None:
    spec = save(mx, tmp_path / "net", NETWORKS[case][0](mx), {"conv_weight": None, "bn_moving_mean": None})
    with pytest.raises(
        ValueError, match=r"net-0000\.params lacks conv_weight, bn_moving_mean, which .*symbol"
    ):
        ft.load_embedder(spec)


def test_unneeded_params_are_ignored_and_unknown_ones_named(mx: Any, tmp_path: Path) -> None:
    spec = save(mx, tmp_path / "net", softmax(mx, body(mx)), {"fc7_weight": None})
    assert ft.load_embedder(spec).embed(rows_of(1), random_images(1)).shape == (1, 8)
    spec = save(mx, tmp_path / "net", body(mx), {f"old_{i}": np.ones(2) for i in range(7)})
    wanted = r"holds old_0, old_1, old_2, old_3, old_4 and 2 more, unknown to"
    with pytest.warns(UserWarning, match=wanted) as warned:
        embedder = ft.load_embedder(spec)
    assert warned[0].filename == __file__
    assert embedder.embed(rows_of(1), random_images(1)).shape == (1, 8)


def test_image_size_that_does_not_fit_names_both(mx: Any, tmp_path: Path) -> None:
    spec = save(mx, tmp_path / "net", body(mx), size=(112, 96))
    embedder = ft.load_embedder(spec)
    with pytest.raises(
        ValueError, match=r"net-symbol\.json.*not take images of 32 x 24.*; it takes 112 x 96$"
    ):
        embedder.embed(rows_of(1), random_images(1))
    assert embedder.embed(rows_of(1), random_images(1, 112, 96)).shape == (1, 8)  # still usable

    spec = save(mx, tmp_path / "odd", body(mx), size=(17, 1000))
    with pytest.raises(
        ValueError, match=r"not take images of 32 x 24.*fc1_weight would have to be \(8, 660\)"
    ):
        ft.load_embedder(spec).embed(rows_of(1), random_images(1))


def test_gray_network_is_told_apart(mx: Any, tmp_path: Path) -> None:
    symbol = body(mx)
    shapes, _, _ = symbol.infer_shape(data=(1, 1, 28, 28))
    fc1 = dict(zip(symbol.list_arguments(), shapes, strict=True))["fc1_weight"]
    changes = {"conv_weight": np.ones((4, 1, 3, 3)), "fc1_weight": np.ones(fc1)}
    spec = save(mx, tmp_path / "net", symbol, changes)
    with pytest.raises(
        ValueError, match=r"images of 28 x 28.*takes 28 x 28 in gray, and only colour can be fed"
    ):
        ft.load_embedder(spec).embed(rows_of(1), random_images(1, 28, 28))


# --- devices and batch size


def test_device_is_said(mx: Any, tmp_path: Path, spec: str) -> None:
    embedder = ft.load_embedder(spec, devices="cpu")
    assert isinstance(embedder, MXNetEmbedder)
    assert embedder.devices == ["cpu"]
    assert embedder.description == (
        f"MXNet network {tmp_path}/net, epoch 0, output fc1, on cpu, 64 images at a time"
    )
    if not mx.context.num_gpus():
        assert ft.load_embedder(spec).description == embedder.description
        with pytest.raises(ValueError, match="devices='gpu:0': MXNet finds no GPU"):
            ft.load_embedder(spec, devices="gpu:0")


def test_too_little_memory_advises_a_smaller_batch(
    mx: Any, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise mx.base.MXNetError("storage.cc:210: cudaMalloc retry failed: out of memory")

    large = ft.load_embedder(spec, batch_size=10**7)  # which MXNet 1.9.1 cannot even count
    with pytest.raises(
        MemoryError, match=r"^not enough memory on cpu for 10,000,000 images of 32 x 24 at a t"
    ):
        large.embed(rows_of(1), random_images(1))
    embedder = ft.load_embedder(spec, batch_size=8)
    monkeypatch.setattr(mx.mod.Module, "forward", fails)
    with pytest.raises(
        MemoryError, match=r"^not enough memory on cpu for 8 images of 32 x 24 at a time in .*; lower batch_s"
    ):
        embedder.embed(rows_of(1), random_images(1))


def test_gpus_are_chosen(mx: Any, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice only: no GPU is touched before images come."""
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 3)
    for devices, expected in {
        None: ["gpu:0", "gpu:1", "gpu:2"],
        "cpu": ["cpu"],
        "gpu": ["gpu:0", "gpu:1", "gpu:2"],
        "gpu:2": ["gpu:2"],
        "gpu:0,2": ["gpu:0", "gpu:2"],
        ("gpu:1", "gpu:0"): ["gpu:1", "gpu:0"],
    }.items():
        embedder = ft.load_embedder(spec, devices=devices)
        assert isinstance(embedder, MXNetEmbedder)
        assert embedder.devices == expected
        assert f"on {', '.join(expected)}, " in embedder.description
        assert embedder.batch_size == (64 if expected == ["cpu"] else 128)
    assert "gpu:2, 100 images at a time on each" in ft.load_embedder(spec, batch_size=100).description
    for devices in ("gpu:3", "gpu:0,0"):
        with pytest.raises(ValueError, match="name each GPU once, numbered from 0 to 2"):
            ft.load_embedder(spec, devices=devices)


def test_several_devices_share_a_batch(mx: Any, spec: str) -> None:
    """Two devices of the CPU stand in for two GPUs."""
    images = random_images(11)
    alone, both = (ft.load_embedder(spec, batch_size=size) for size in (8, 4))
    assert isinstance(both, MXNetEmbedder)
    both._contexts = [mx.cpu(0), mx.cpu(1)]
    expected = alone.embed(rows_of(11), images)
    np.testing.assert_allclose(both.embed(rows_of(11), images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [0, -4])
def test_batch_size_out_of_range(spec: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be a whole number >= 1, not {size}"):
        ft.load_embedder(spec, batch_size=size)


# --- the real network


def decoded(mx: Any, folder: Path, keys: list[int]) -> NDArray[np.uint8]:
    record = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
    contents = (mx.recordio.unpack(record.read_idx(key))[1] for key in keys)
    images: NDArray[np.uint8] = np.stack([mx.image.imdecode(content).asnumpy() for content in contents])
    record.close()
    return images


@pytest.mark.parametrize("step", [100, pytest.param(1, marks=pytest.mark.slow)])  # 24 images
def test_real_checkpoint_gives_the_recorded_embeddings(mx: Any, real_data: Path, step: int) -> None:
    folder = real_data / "lfw112-a"
    expected = np.load(folder / "emb_a.npy")[::step]
    rows = pl.DataFrame({"key": np.arange(1, 2376)[::step]})
    # Three batches: with MXNet's own settings the second would fail.
    embedder = ft.load_embedder(f"mxnet:{real_data}/model-y1/model,0", batch_size=8)
    assert "output fc1," in embedder.description
    found = embedder.embed(rows, decoded(mx, folder, rows["key"].to_list()))
    assert found.shape == (rows.height, 128)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.sum(found * expected, axis=1) / norms).min() > 1 - 1e-6


def test_real_checkpoint_needs_nothing_from_the_user(real_data: Path) -> None:
    """No environment variable, even where MXNet came first; and nothing on stderr."""
    code = """
import numpy, polars, sys, warnings
numpy.bool = bool
warnings.simplefilter("ignore")
import mxnet
import fasttriplet as ft
embedder = ft.load_embedder(sys.argv[1], batch_size=2)
images = numpy.zeros((5, 112, 112, 3), numpy.uint8)  # three batches: without the variable the second fails
print(embedder.embed(polars.DataFrame({"key": numpy.arange(5)}), images).shape)
"""
    environment = {name: value for name, value in os.environ.items() if name != "MXNET_SUBGRAPH_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code, f"mxnet:{real_data}/model-y1/model,0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(5, 128)\n", "")


def test_only_the_known_line_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"before\n[01:02:03] ../src/a.cc:60: MXNET_SUBGRAPH_BACKEND=NONE is detected, x\n")
        os.write(2, b"unended")
    with pytest.raises(KeyError), quiet():
        os.write(2, b"[01:02:03] ../src/a.cc:1: Something else\n")
        raise KeyError
    assert capfd.readouterr().err == "before\nunended[01:02:03] ../src/a.cc:1: Something else\n"


def test_checkpoint_is_read_whole(mx: Any, tmp_path: Path) -> None:
    save(mx, tmp_path / "net", softmax(mx, body(mx)))
    checkpoint = load_checkpoint(tmp_path / "net", 0)
    assert [checkpoint.symbol.name_of(head) for head in checkpoint.symbol.heads] == ["softmax_output"]
    assert sorted(checkpoint.aux_params) == ["bn_moving_mean", "bn_moving_var"]
    assert "fc7_weight" in checkpoint.arg_params
