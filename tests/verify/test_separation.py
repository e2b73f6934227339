"""What `verify` says of a model that separates nothing, and that it says nothing of others."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from fasttriplet import draw_pairs, verify_distances, verify_pairs, verify_rec, write_pairs
from fasttriplet.cli import _verify
from fasttriplet.demo import draw_identities
from fasttriplet.embedders._inputs import AS_DECODED, Inputs
from fasttriplet.embedders._pixels import PixelEmbedder
from fasttriplet.mining._mine import COLLAPSE
from fasttriplet.verify._separation import what_to_try
from tests.onnx.models import Builder
from tests.small_rec import Table, identities, picture, random_table, write_rec

LEAST = 151  # pairs of each kind, with which three standard errors of guessing are 0.1


class Network(Table):
    """A table that looks like a network with a convention for its input."""

    needs_images = True

    def __init__(self, rows: NDArray[np.float32], inputs: Inputs) -> None:
        super().__init__(rows)
        self.inputs = inputs

    def embed(self, rows: Any, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is not None
        return super().embed(rows, None)


def distances(
    near: NDArray[np.float64], far: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.concatenate([near, far]).clip(0, 4), np.arange(len(near) + len(far)) < len(near)


@pytest.mark.parametrize("genuine", [LEAST, 400, 3000])
@pytest.mark.parametrize("impostors", [LEAST, 400, 3000])
def test_guessing_is_always_told_and_separation_never(genuine: int, impostors: int) -> None:
    for seed in range(25):
        rng = np.random.default_rng([seed, genuine, impostors])
        near, far = rng.normal(2, 0.1, genuine), rng.normal(2, 0.1, impostors)
        found = verify_distances(*distances(near, far))
        assert found.warning is not None
        assert found.warning == f"AUC {found.auc:.2f}: same and different look alike to this model"
        assert verify_distances(*distances(near - 0.12, far)).warning is None  # an AUC of 0.80
        if seed == 0:
            found = verify_distances(*distances(near + 0.12, far))
            assert found.warning is not None
            assert "nearer to each other" in found.warning


def test_of_few_pairs_nothing_is_said() -> None:
    rng = np.random.default_rng(0)
    for count in (5, 20, LEAST - 1):
        assert verify_distances(*distances(*rng.normal(2, 0.1, (2, count)))).warning is None
    assert verify_distances([0.5] * 20, [True] * 20).warning is None


def test_a_wrong_range_is_told_from_thumbnails() -> None:
    """The AUC of both is about 0.62; only embeddings that are all nearly alike speak of the input."""
    rng = np.random.default_rng(0)
    near, far = rng.normal(1.4 - 0.043, 0.1, 3000), rng.normal(1.4, 0.1, 3000)
    assert verify_distances(*distances(near, far)).warning is None
    found = verify_distances(*distances(near / 100, far / 100))
    assert found.warning is not None
    assert "all images look nearly alike (the median squared L2 distance of impostor pairs is 0.014;" in (
        found.warning
    )


@pytest.mark.parametrize(("people", "images"), [(2, 20), (8, 7), (20, 5), (60, 4)])
def test_random_embeddings_of_a_few_identities(tmp_path: Path, people: int, images: int) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(people, images))
    rng = np.random.default_rng(people)
    noise = rng.standard_normal((people * images + 1, 16)).astype(np.float32)
    found = verify_rec(rec, Table(noise))
    assert found.warning is not None
    assert found.warning.endswith("Does row i of the embeddings belong to image i, in the order of the keys?")
    centres = rng.standard_normal((people, 16)).astype(np.float32)
    labels = (np.arange(len(noise)) - 1) // images
    assert verify_rec(rec, Table(noise + 2 * centres[labels])).warning is None


def test_the_warning_says_what_the_input_is_and_what_to_try(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(8, 7))
    rows = random_table(57).rows
    normalised = verify_rec(rec, Network(rows, Inputs(size=(112, 112))))
    assert normalised.warning is not None
    assert "Is its input RGB, (pixel - 127.5) / 128, 112 x 112 (H x W), as it expects?" in normalised.warning
    assert (
        "Try, at the end of a spec or as arguments, mean=0 and std=1 if the network normalises its input "
        "itself, otherwise the mean and std of its training, and color=bgr; the images" in normalised.warning
    )
    as_decoded = what_to_try(Network(rows, AS_DECODED))
    assert "Is its input RGB 0..255, any size, as it expects?" in as_decoded
    assert "mean=127.5 and std=128 unless the network normalises its input itself, otherwise" in as_decoded
    assert "color=rgb" in what_to_try(Network(rows, Inputs(color="bgr")))
    assert "give a network" in what_to_try(PixelEmbedder())
    assert "aligned" in what_to_try(type("", (), {"needs_images": True})())


def test_the_warning_is_in_the_table_and_in_json(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(8, 7))
    np.save(tmp_path / "a.npy", random_table(56).rows)
    arguments = ["--rec", str(rec), "--model", f"npy:{tmp_path / 'a.npy'}"]
    table = CliRunner().invoke(_verify.verify, arguments)
    assert "same and different look alike to this model" in " ".join(table.output.replace("│", " ").split())
    [found] = json.loads(CliRunner().invoke(_verify.verify, [*arguments, "--json"]).stdout)["results"]
    assert found["warning"] == verify_rec(rec, f"npy:{tmp_path / 'a.npy'}").warning


def test_thumbnails_of_drawn_characters_separate_them(tmp_path: Path) -> None:
    rec = tmp_path / "drawn.rec"
    with ft.RecordWriter(rec) as writer:
        for key, (identity, _, pixels) in enumerate(draw_identities(8, 7, size=32)):
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "PNG")
            writer.write(key, ft.IRHeader(0, float(identity), key, 0), encoded.getvalue())
    done = CliRunner().invoke(_verify.verify, ["--rec", str(rec), "--model", "pixels", "--json"])
    [found] = json.loads(done.stdout)["results"]
    assert found["auc"] > 0.9
    assert found["warning"] is None


def test_a_collapse_is_told_once(tmp_path: Path) -> None:
    """In the result, in the words of `CollapseWarning`, which is an error in these tests."""
    rec = write_rec(tmp_path / "a.rec", identities(4, 3))
    same = np.ones((100, 3), dtype=np.float32)
    for recall in (True, False):
        found = verify_rec(rec, Table(same), recall=recall)
        assert found.warning == f"{COLLAPSE}. {what_to_try(Table(same))}"
    write_pairs(tmp_path / "a.bin", [picture(i) for i in range(40)], [True, False] * 10)
    inputs = Inputs()
    assert verify_pairs(tmp_path / "a.bin", Network(same, inputs)).warning == (
        f"{COLLAPSE}. {what_to_try(Network(same, inputs))}"
    )


def test_equal_impostor_pictures_are_not_a_collapse() -> None:
    assert verify_distances([0.5, 0.0] * 5, [True, False] * 5).warning is None


def test_thumbnails_of_real_faces_separate_a_little(real_data: Path) -> None:
    dataset = ft.Dataset(real_data / "lfw112-a" / "train.rec")
    found = verify_rec(dataset, "pixels", pairs_per_kind=1000, recall=False, flip=False)
    assert found.auc is not None
    assert 0.6 < found.auc < 0.7
    assert found.warning is None
    assert draw_pairs(dataset.index, 1000).same.sum() == 1000


@pytest.mark.torch
def test_embedders_of_pytorch_say_what_their_input_is() -> None:
    torch = pytest.importorskip("torch")
    from fasttriplet.torch import TorchEmbedder  # noqa: PLC0415  optional

    said = what_to_try(TorchEmbedder(torch.nn.Flatten(), color="bgr", mean=127.5, std=127.5))
    assert "Is its input BGR, (pixel - 127.5) / 127.5, any size, as it expects?" in said


@pytest.mark.onnx
def test_a_model_of_uint8_is_not_told_to_take_other_numbers(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    builder = Builder(dtype=np.uint8)
    builder.add("Cast", to=1)
    embedder = ft.load_embedder(builder.layers().save(tmp_path / "net.onnx"))
    assert what_to_try(embedder) == (
        "Is its input RGB 0..255, 24 x 24 (H x W), as it expects? Try, at the end of a spec or as arguments, "
        "color=bgr; the images must be cut out and aligned as those it was trained on"
    )


@pytest.mark.heavy
@pytest.mark.torch
def test_a_face_network_whose_input_is_normalised_twice(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = real_data / "lfw112-a" / "train.rec"
    faces, index = ft.RecordFile(source), ft.index_rec(source, cache=False)
    some = index.group_by("label", maintain_order=True).head(6).head(72)  # 12 people
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key, label in some.select("key", "label").iter_rows():
            writer.write(key, ft.IRHeader(0, float(label), key, 0), faces.read(key)[1])
    model = f"torch:mxnet:{real_data / 'model-y1' / 'model'},0"
    found = verify_rec(tmp_path / "a.rec", model, recall=False)
    assert found.auc is not None
    assert found.auc > 0.99
    assert found.warning is None
    found = verify_rec(tmp_path / "a.rec", f"{model},mean=127.5,std=128", recall=False)
    assert found.warning is not None
    assert "Is its input RGB, (pixel - 127.5) / 128" in found.warning
    assert "mean=0 and std=1 if the network normalises its input itself" in found.warning
