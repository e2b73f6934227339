"""How fast a network learns from mined triplets, beside InsightFace's iterator, and how far it gets.

Trained is on the 136 characters of Omniglot's first small set, judged on 106 characters of other alphabets. A
network learns from the original iterator (`recognition/arcface_mxnet/triplet_image_iter.py` of a checkout of
deepinsight/insightface, which `--insightface` or INSIGHTFACE points to; left out without one), then the same
network from `TripletIter` with the same settings, then from `TripletIter` with better ones. All begin with the
same weights.

Time is that of the training; judging does not count. The judge embeds all images as they are, without mirrored
ones, and takes all pairs of them: AUC, TAR at FAR 1e-3, and recall@1.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
parser.add_argument("--insightface", default=os.environ.get("INSIGHTFACE"), metavar="CHECKOUT")
parser.add_argument("--seconds", type=float, default=258.0, help="of each training (default: 258)")
parser.add_argument("--every", type=float, default=10.0, help="seconds between two judgements (default: 10)")
parser.add_argument(
    "--only", choices=("original", "same", "better"), action="append", help="leave out others"
)
parser.add_argument("--seed", type=int, default=0)

if __name__ == "__main__":
    arguments = parser.parse_args()
    # MXNet takes half of the processors for the second threads of cores, whether they are or not, and reads
    # this when it is loaded. With 2 cores a step takes 0.055 s instead of 0.097.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

import io
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import fasttriplet as ft
from fasttriplet.mxnet import TripletIter, triplet_loss
from fasttriplet.mxnet.compat import import_mxnet
from fasttriplet.mxnet.module_embedder import ModuleEmbedder
from fasttriplet.mxnet.networks import small_convnet
from fasttriplet.mxnet.quiet import quiet
from machine import report
from omniglot import OMNIGLOT, SIDE, Variants, write_training, write_unseen

AUC = 0.92  # the time to which is compared


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a training."""

    batch_size: int = 120
    bag_size: int = 1200
    images_per_identity: int = 10
    margin: float = 0.3
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: bool = False  # of the learning rate: in a straight line to 0, or not at all
    mining: dict[str, Any] = field(default_factory=dict)  # more options of the iterator
    variants: Variants = field(default_factory=Variants)  # of the drawings


SAME = Settings()
BETTER = Settings(
    bag_size=2720,
    learning_rate=0.2,
    decay=True,
    mining={"pick": "hardest"},
    variants=Variants(turns=4, copies=8, degrees=12, scale=0.15, shear=0.15, shift=0.06),
)

# The original as it is does not run beside current packages. Nothing that it does to images or triplets is
# changed. In its text:
REPAIRS = (
    # its module was deleted from the repository, and it is not used
    ("import face_preprocess\n", ""),
    # only `sklearn.preprocessing.normalize` is used; `normalized` stands in for it
    ("import sklearn\n", ""),
    # a range cannot be shuffled in Python 3
    ("_list = range(*v)\n            random.shuffle", "_list = list(range(*v))\n            random.shuffle"),
    # NumPy 2 has no NaN
    ("np.NaN", "np.nan"),
    # distances are computed on GPUs; here they are on the device of the network
    ("mx.gpu(i)", "mx.cpu(i)"),
)


def normalized(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `sklearn.preprocessing.normalize` does by default."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths))


def the_original(checkout: Path) -> ModuleType:
    """Its module, with the repairs."""
    path = checkout / "recognition" / "arcface_mxnet" / "triplet_image_iter.py"
    text = path.read_text(encoding="utf-8")
    for what, instead in REPAIRS:
        if what not in text:
            raise SystemExit(f"{path}: expected the text {what!r}; take a checkout of 2021 or later")
        text = text.replace(what, instead)
    module = ModuleType("triplet_image_iter")
    vars(module)["__file__"] = str(path)
    vars(module)["sklearn"] = SimpleNamespace(preprocessing=SimpleNamespace(normalize=normalized))
    exec(compile(text, str(path), "exec"), vars(module))
    return module


def network(settings: Settings, seed: int) -> Any:
    """A module with weights; for a seed always the same ones."""
    mx = import_mxnet()
    size = settings.batch_size
    module = mx.mod.Module(triplet_loss(small_convnet(), settings.margin, size), context=mx.cpu())
    with quiet():
        module.bind([("data", (size, 3, SIDE, SIDE))], [("softmax_label", (size,))])
    mx.random.seed(seed)
    module.init_params(mx.init.Uniform(0.01))  # MXNet's default
    options = {
        "learning_rate": settings.learning_rate,
        "momentum": settings.momentum,
        "wd": settings.weight_decay,
    }
    module.init_optimizer(optimizer="sgd", optimizer_params=options)
    return module


@dataclass(frozen=True, slots=True)
class Judge:
    """Tells how well a module knows characters that it was not trained on."""

    pixels: NDArray[np.uint8]
    rows: Any  # of the index
    first: NDArray[np.int64]  # of all pairs
    second: NDArray[np.int64]
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, rec: Path) -> Judge:
        """The images of a `.rec`."""
        rows = ft.index_rec(rec, cache=False)
        labels = rows["label"].to_numpy()
        first, second = np.triu_indices(len(labels), 1)
        pixels = ft.decode_rows([ft.RecordFile(rec)], rows).pixels
        return cls(pixels, rows, first, second, labels[first] == labels[second])

    def __call__(self, module: Any) -> dict[str, float]:
        """AUC, recall@1 and TAR at FAR 1e-3."""
        unit = normalized(ModuleEmbedder(module).embed(self.rows, self.pixels).astype(np.float64))
        squared = np.maximum(2 - 2 * unit @ unit.T, 0)
        found = ft.verify_distances(squared[self.first, self.second], self.same)
        np.fill_diagonal(squared, np.inf)
        labels = self.rows["label"].to_numpy()
        right = labels[squared.argmin(axis=1)] == labels
        assert found.auc is not None
        return {"AUC": found.auc, "recall@1": float(right.mean()), "TAR": found.tar[1e-3]}


def train(module: Any, batches: Any, settings: Settings, judge: Judge) -> list[dict[str, float]]:
    """Train for the seconds that were asked for; what the judge says, each with steps and seconds."""
    mx = import_mxnet()
    steps, seconds, curve = 0, 0.0, [{"steps": 0, "seconds": 0.0} | judge(module)]
    while seconds < arguments.seconds:
        started = time.perf_counter()
        try:
            batch = batches.next()
        except StopIteration:
            batches.reset()
        else:
            if settings.decay:
                # per step, as a scheduler would, but by the clock
                module._optimizer.lr = settings.learning_rate * (1 - seconds / arguments.seconds)
            module.forward_backward(batch)
            module.update()
            # Without waiting, MXNet's steps run into each other. The original is no slower for it: it waits
            # for each image that it decodes.
            mx.nd.waitall()
            steps += 1
        seconds += time.perf_counter() - started
        if seconds >= min(arguments.every * len(curve), arguments.seconds):
            curve.append({"steps": steps, "seconds": seconds} | judge(module))
            print(curve[-1], file=sys.stderr)
    return curve


def original(rec: Path, judge: Judge, checkout: Path) -> list[dict[str, float]]:
    """The curve of a training from the original iterator."""
    settings = SAME
    module = network(settings, arguments.seed)
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)
    with redirect_stdout(io.StringIO()):  # it tells what it is doing
        batches = the_original(checkout).FaceImageIter(
            batch_size=settings.batch_size,
            data_shape=(3, SIDE, SIDE),
            path_imgrec=str(rec),
            shuffle=True,
            ctx_num=1,
            images_per_identity=settings.images_per_identity,
            triplet_params=(settings.bag_size, settings.margin, 0.0),
            mx_model=module,
        )
        return train(module, batches, settings, judge)


def ours(rec: Path, judge: Judge, settings: Settings) -> tuple[list[dict[str, float]], ft.Summary]:
    """The curve of a training from a `TripletIter`, and what it waited for."""
    module = network(settings, arguments.seed)
    batches = TripletIter(
        rec,
        module,
        data_shape=(3, SIDE, SIDE),
        batch_size=settings.batch_size,
        bag_size=settings.bag_size,
        images_per_identity=settings.images_per_identity,
        margin=settings.margin,
        seed=arguments.seed,
        **settings.mining,
    )
    try:
        return train(module, batches, settings, judge), batches.feed.summary
    finally:
        batches.close()
