"""InsightFace's iterator by its name: what its arguments become, and its own training script with it."""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import mxnet
from fasttriplet.mxnet import small_convnet, triplet_loss
from tests.small_rec import identities, write_rec

pytestmark = pytest.mark.mxnet

SHAPE = (3, 24, 24)
PAGE = Path(__file__).parents[2] / "docs" / "migration.md"


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(16, 6))


@pytest.fixture
def module(mx: Any) -> Callable[..., Any]:
    """Makes a module, always with the same random weights once it is bound to an iterator."""

    def make(devices: int = 1) -> Any:
        symbol = triplet_loss(small_convnet(16), 0.3, 12)
        return mx.mod.Module(symbol, context=[mx.cpu(number) for number in range(devices)])

    return make


def first_batches(mx: Any, batches: Any, module: Any) -> list[tuple[Any, Any]]:
    """Two epochs of an iterator, as images and labels."""
    mx.random.seed(0)
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(mx.init.Xavier())
    taken = []
    for _ in range(2):
        taken += [(batch.data[0].asnumpy(), batch.label[0].asnumpy()) for batch in batches]
        batches.reset()
    batches.close()
    return taken


def call(rec: Path, module: Any, **changes: Any) -> Any:
    """An iterator, made with the arguments that InsightFace's `train.py` gives."""
    arguments: dict[str, Any] = {
        "batch_size": 12,
        "data_shape": SHAPE,
        "path_imgrec": str(rec),
        "shuffle": True,
        "rand_mirror": True,
        "mean": None,
        "cutoff": False,
        "ctx_num": 1,
        "images_per_identity": 5,
        "triplet_params": [48, 0.3, 0.0],
        "mx_model": module,
    }
    return mxnet.FaceImageIter(**arguments | changes)


SAME: dict[str, Any] = {"bag_size": 48, "margin": 0.3, "augment": ft.Augment(mirror=True)}
COLOURS = ft.Augment(mirror=True, cutoff=4, brightness=0.125)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, SAME),
        ({"rand_mirror": False}, SAME | {"augment": None}),
        ({"cutoff": 8}, SAME | {"augment": ft.Augment(mirror=True, cutoff=8)}),
        ({"rand_mirror": False, "augment": COLOURS}, SAME | {"augment": COLOURS}),
        ({"images_per_identity": 3}, SAME | {"images_per_identity": 3}),
        ({"triplet_params": (30, 0.3, 0.0)}, SAME | {"bag_size": 30}),
        ({"triplet_params": [48, 0.1, 0]}, SAME | {"margin": 0.1}),
        (
            {"triplet_params": [48, np.float32(0.3), 0.15]},
            SAME | {"margin": float(np.float32(0.3)), "max_ap": 0.15},
        ),
        ({"batch_size": 24, "ctx_num": 2}, SAME | {"batch_size": 24, "devices": 2}),
        ({"seed": 3, "first_epoch": 2, "threads": 1}, SAME | {"seed": 3, "first_epoch": 2, "threads": 1}),
        ({"boundary": "split"}, SAME | {"boundary": "split"}),
        ({"band": "violating", "pairs": "ordered"}, SAME | {"band": "violating", "pairs": "ordered"}),
        ({"metric": "cosine", "triplet_params": [48, 0.15, 0]}, SAME),  # half of squared L2
        ({"metric": "euclidean"}, SAME | {"metric": "euclidean"}),
    ],
)
def test_batches_are_those_of_a_triplet_iter(
    mx: Any, rec: Path, module: Callable[..., Any], changes: dict[str, Any], same: dict[str, Any]
) -> None:
    ours, theirs = module(changes.get("ctx_num", 1)), module(changes.get("ctx_num", 1))
    batches = call(rec, ours, **changes)
    assert batches.batch_size == changes.get("batch_size", 12)
    plain = mxnet.TripletIter(rec, theirs, data_shape=SHAPE, **{"batch_size": 12} | same)
    found, expected = first_batches(mx, batches, ours), first_batches(mx, plain, theirs)
    assert len(found) == len(expected) > 2
    for (images, labels), (other_images, other_labels) in zip(found, expected, strict=True):
        assert np.array_equal(images, other_images)
        assert np.array_equal(labels, other_labels)


def test_each_argument_matters(mx: Any, rec: Path, module: Callable[..., Any]) -> None:
    """So that the test above cannot pass with an option that goes nowhere."""
    changes: list[dict[str, Any]] = [
        {}, {"rand_mirror": False}, {"cutoff": 8}, {"images_per_identity": 3}, {"seed": 3},
        {"triplet_params": (30, 0.3, 0.0)}, {"triplet_params": (48, 0.1, 0.0)}, {"first_epoch": 2},
        {"triplet_params": (48, 0.3, 0.15)}, {"boundary": "split"}, {"band": "violating"},
        {"metric": "euclidean"},
    ]  # fmt: skip
    seen = set()
    for change in changes:
        made = module()
        taken = first_batches(mx, call(rec, made, **change), made)
        seen.add(b"".join(images.tobytes() for images, _ in taken))
    assert len(seen) == len(changes)


def test_it_names_the_modules_inputs(rec: Path, module: Callable[..., Any]) -> None:
    batches = call(rec, module(), data_name="image", label_name="identity")
    assert [(one.name, one.shape) for one in batches.provide_data] == [("image", (12, *SHAPE))]
    assert [(one.name, one.shape) for one in batches.provide_label] == [("identity", (12,))]


def test_its_signature_is_insightfaces() -> None:
    parameters = inspect.signature(mxnet.FaceImageIter).parameters
    assert ", ".join(parameters) == (
        "batch_size, data_shape, path_imgrec, shuffle, aug_list, rand_mirror, cutoff, ctx_num, "
        "images_per_identity, triplet_params, mx_model, data_name, label_name, kwargs"
    )


def test_each_option_of_a_feed_has_its_place() -> None:
    from fasttriplet.mxnet._face_image_iter import _ELSEWHERE, _PASSED_ON  # noqa: PLC0415  needs MXNet

    options = set(inspect.signature(ft.Feed).parameters) - {"batch_size", "images_per_identity"}
    assert set(_PASSED_ON) <= options
    assert options <= {*_PASSED_ON, *_ELSEWHERE}
    assert not {*_PASSED_ON} & {*_ELSEWHERE}


def test_a_network_is_trained_for_some_epochs(mx: Any, rec: Path, module: Callable[..., Any]) -> None:
    made, epochs, losses = module(), [], []
    batches = call(rec, made)
    mx.random.seed(0)

    def note(state: Any) -> None:
        epochs.append(state.epoch)
        losses.append(state.eval_metric.get()[1][0])

    made.fit(
        batches,
        eval_metric=mxnet.TripletMetric(0.3),
        optimizer="sgd",
        optimizer_params={"learning_rate": 0.01, "rescale_grad": 1.0},
        initializer=mx.init.Xavier(),
        num_epoch=3,
        batch_end_callback=note,
    )
    batches.close()
    assert set(epochs) == {0, 1, 2}
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shuffle": False}, "shuffle must be True"),
        ({"aug_list": []}, "aug_list must be None: give rand_mirror and cutoff, or augment="),
        ({"mean": [127.5] * 3}, "mean must be None: .* the network subtracts it"),
        ({"triplet_params": None}, r"triplet_params is missing.*use InsightFace's image_iter\.py"),
        ({"triplet_params": [48, 0.3]}, r"must be \[bag_size, alpha, max_ap\], not \[48, 0.3\]"),
        ({"triplet_params": 48}, r"must be \[bag_size, alpha, max_ap\], not 48"),
        ({"path_imgrec": None}, "path_imgrec is missing"),
        ({"mx_model": None}, "mx_model is missing: give the Module"),
        ({"ctx_num": 0}, "ctx_num, the number of the module's devices, must be .* >= 1, not 0"),
        ({"ctx_num": True}, "ctx_num, .*, must be .*, not True"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, not 0"),
        ({"ctx_num": 5}, "multiple of ctx_num: 12 images cannot be shared out to 5 devices"),
        ({"batch_size": 40, "ctx_num": 2}, "per-batch-size.* multiple of 3.* not 20: take 18 or 21$"),
        ({"batch_size": 2}, "not 2: take 3$"),
        ({"images_per_identity": 0}, r"images_per_identity \(5 in InsightFace\) must be .* >= 2, not 0"),
        ({"images_per_identity": 2.5}, "images_per_identity .* must be .* >= 2, not 2.5"),
        ({"triplet_params": [48.5, 0.3, 0]}, r"bag_size \(triplet_params\[0\], .* whole .* not 48.5"),
        ({"triplet_params": [9, 0.3, 0]}, "bag_size .* is 9, less than two identities of 5 images"),
        ({"triplet_params": [11, 0.3, 0]}, "is 11, less than the 12 images of a batch: raise it"),
        ({"triplet_params": [48, 0.0, 0]}, r"alpha \(triplet_params\[1\], .* above 0, .* not 0.0"),
        ({"triplet_params": [48, 1.5, 0]}, "alpha .* at most 1, .* not 1.5"),
        ({"triplet_params": [48, math.nan, 0]}, "alpha .* not nan"),
        ({"triplet_params": [48, "0.3", 0]}, "alpha .* not '0.3'"),
        ({"triplet_params": [48, 0.3, -1]}, r"max_ap \(triplet_params\[2\], .* 0 for no .* not -1"),
        ({"triplet_params": [48, 0.3, None]}, "max_ap .* not None"),
        ({"cutoff": True}, "cutoff is the side of the square in pixels"),
        ({"cutoff": -1}, "cutoff must be a whole number >= 0"),
        ({"augment": ft.Augment(mirror=True)}, "augment replaces rand_mirror and cutoff"),
        ({"rand_mirror": False, "augment": "mirror"}, "augment must be an Augment"),
        ({"data_shape": (1, 24, 24)}, r"data_shape must be \(3, height, width\)"),
        ({"seed": -1}, "seed"),
        ({"pick": "best"}, "pick must be one of"),
    ],
)
def test_wrong_arguments_are_named(
    rec: Path, module: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(rec, module(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "no option 'colour'; beside InsightFace's it has augment, .*, threads, .*$"),
        ({"margin": 0.3}, r"no option 'margin': give triplet_params\[1\]"),
        ({"tail": "drop"}, "no option 'tail': all batches are full"),
        ({"epochs": 1}, "no option 'epochs': .* num_epoch"),
        ({"color_jittering": 1}, r"no option 'color_jittering': .* augment=fasttriplet.Augment\("),
    ],
)
def test_unknown_options_are_named(
    rec: Path, module: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call(rec, module(), **changes)


def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, rec: Path, module: Callable[..., Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.rec"):
        call(tmp_path / "none.rec", module())
    with pytest.raises(ValueError, match=r"the images are 24 x 24 .* data_shape says 112 x 112"):
        next(call(rec, module(), data_shape=(3, 112, 112)))


# The options that InsightFace's sample has, and a dataset that is small enough for a CPU.
SETTINGS = """
config.max_steps = 3
dataset.small = edict()
dataset.small.dataset = 'small'
dataset.small.dataset_path = '.'
dataset.small.num_classes = 24
dataset.small.image_shape = (112, 112, 3)
dataset.small.val_targets = ['small']
dataset.small.triplet_bag_size = 60
"""


@pytest.fixture
def insightface(tmp_path: Path) -> Iterator[Path]:
    """A copy of InsightFace's training, configured for a small dataset that lies in the same folder."""
    checkout = os.environ.get("INSIGHTFACE")
    if not checkout:
        pytest.skip("INSIGHTFACE does not name a checkout of deepinsight/insightface")
    missing = [
        name
        for name in ("mxnet", "easydict", "sklearn", "scipy", "cv2")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        pytest.skip(f"InsightFace needs {', '.join(missing)}; docs/migration.md says how to install them")
    folder = tmp_path / "arcface_mxnet"
    shutil.copytree(
        Path(checkout) / "recognition" / "arcface_mxnet", folder, ignore=shutil.ignore_patterns("models")
    )
    sample = (folder / "sample_config.py").read_text(encoding="utf-8")
    (folder / "config.py").write_text(sample + SETTINGS, encoding="utf-8")
    rec = write_rec(folder / "train.rec", identities(24, 5), side=112)
    pack = ["pack-pairs", str(folder / "small.bin"), "--rec", str(rec), "--pairs-per-kind", "10"]
    subprocess.run([sys.executable, "-m", "fasttriplet", *pack], check=True, timeout=120)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Please import `csr_matrix`:DeprecationWarning"
)  # of MXNet, where SciPy is
@pytest.mark.parametrize("loss", ["triplet", "atriplet"])
def test_insightfaces_own_training_runs_with_one_line_changed(insightface: Path, loss: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, after = re.findall(
        r"^[-+](.*)$", page.partition("```diff\n")[2].partition("```")[0], re.MULTILINE
    )
    script = insightface / "train.py"
    lines = script.read_text(encoding="utf-8").split("\n")
    assert lines.count(before) == 1
    lines[lines.index(before)] = after
    script.write_text("\n".join(lines), encoding="utf-8")
    start = page.partition("```python\n")[2].partition("```")[0]
    (insightface / "start.py").write_text(start, encoding="utf-8")

    options = ["--network", "y1", "--dataset", "small", "--loss", loss]
    options += ["--per-batch-size", "12", "--frequent", "1", "--verbose", "3"]
    run = subprocess.run(
        [sys.executable, "-u", "start.py", *options],
        cwd=insightface,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = run.stdout + run.stderr
    assert run.returncode == 0, told[-3000:]
    # The script ends after the step that follows the last, and tells nothing of the first.
    losses = re.findall(r"Batch \[\d+-(\d+)\].*lossvalue=(\S+)", told)
    assert [int(step) for step, _ in losses] == [1, 2, 3]
    assert all(0 <= float(value) < 4 for _, value in losses)
    bag, first = told.find("INFO:fasttriplet:epoch 0, bag 0"), told.find("Batch [0-")
    assert 0 <= bag < first
    assert re.search(r"\[small\]\[3\]Accuracy-Flip: [01]\.\d+", told)
    checkpoint = insightface / "models" / f"y1-{loss}-small" / "model"
    images = ft.RecordFile(insightface / "train.rec").decode([1, 2])
    rows = ft.index_rec(insightface / "train.rec")[:2]
    embedded = ft.load_embedder(f"mxnet:{checkpoint},1").embed(rows, images)
    assert embedded.shape == (2, 128)
    assert np.isfinite(embedded).all()
