"""The settings of a training: what is refused, and what they mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasttriplet.run._options import FeedOptions, ResourceOptions
from fasttriplet.training import TrainSettings
from tests.training.small import settings, train

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


def test_the_learning_rate_falls(data: Path) -> None:
    chosen = settings(data, learning_rate=0.5, lr_steps=(10, 20), lr_factor=0.1)
    rates = [chosen.learning_rate_after(batches) for batches in (0, 9, 10, 19, 20, 1000)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "large"}, "large"),
        ({"network": None}, "either network or symbol"),
        ({"symbol": "x.json"}, "either network or symbol"),
        ({"rec": "train.rec"}, "rec must be one path or more"),
        ({"batch_size": 20}, "batch_size must be a multiple of 3 .*, not 20"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number >= 0"),
        ({"momentum": 1.5}, "momentum must be a number from 0 to 1"),
        ({"lr_steps": (5, 5)}, "lr_steps must ascend"),
        ({"lr_steps": (0, 5)}, "each of lr_steps"),
        ({"loss": "cubed"}, "loss must be one of"),
        ({"color_jitter": 2.0}, "color_jitter must be a number from 0 to 1"),
        ({"lr_steps": 5}, "lr_steps must be numbers of batches, in a tuple, not 5"),
        ({"rec": (5,)}, "rec must be paths, in a tuple, not"),
        ({"network": 5}, "network must be a text, not 5"),
        ({"bag_size": 1}, "bag_size"),
        ({"margin": -1.0}, "margin"),
        ({"margin": float("inf")}, "margin must be a number >= 0, not inf"),
        ({"loss_margin": -1.0}, "loss_margin must be a number >= 0, not -1.0"),
        ({"loss_margin": float("nan")}, "loss_margin"),
        ({"band": "soft"}, "band .* is no band"),
        ({"metric": "cosine", "normalize": False}, "normalize=True"),
        ({"on_error": "stop"}, "on_error must be one of"),
        ({"seed": -1}, "seed"),
        ({"labels": "own"}, "labels must be one of"),
        ({"cache": 1}, "cache must be True, False or the path of a folder"),
    ],
)
def test_wrong_settings_are_named(data: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(replace(settings(data), **options), tmp_path / "a", batches=1)
    assert not list(tmp_path.glob("*.npz"))


def test_settings_take_paths_and_numbers_of_numpy(data: Path, tmp_path: Path) -> None:
    plain = settings(data)
    numpy: dict[str, Any] = {
        "rec": (data / "train.rec",),
        "lr_steps": [np.int64(25), 50],
        "seed": np.int64(0),
    }
    other = replace(plain, **numpy)
    assert other == plain
    train(other, tmp_path / "a", batches=1)


def test_the_loss_has_a_margin_of_its_own(data: Path) -> None:
    assert settings(data).margin_of_loss == 0.3
    assert settings(data, margin=0.2).margin_of_loss == 0.2
    cosine = settings(data, metric="cosine", margin=0.15, loss_margin=0.3)
    assert (cosine.margin, cosine.margin_of_loss) == (0.15, 0.3)
    assert settings(data, margin=float("inf"), loss_margin=0.3).margin_of_loss == 0.3


def test_a_training_has_no_tail(data: Path) -> None:
    chosen = settings(data)
    with pytest.raises(TypeError, match="unexpected keyword argument 'tail'"):
        settings(data, tail="drop")
    assert chosen.feed()["tail"] == "keep"
    assert "tail" not in chosen.to_dict()


def test_all_that_decides_the_batches_reaches_the_feed(data: Path) -> None:
    chosen = settings(data, metric="euclidean", normalize=False, pairs="hardest", boundary="split")
    options = chosen.feed()
    names = {*FeedOptions.names()} - {*ResourceOptions.names()} | {"augment", "batch_size"}
    assert options.keys() == names
    assert all(options[name] == getattr(chosen, name) for name in names - {"augment"})


def test_labels_decide_the_outcome_and_the_cache_does_not(data: Path, tmp_path: Path) -> None:
    plain, separate = settings(data), settings(data, labels="separate")
    assert plain.differences(replace(plain, labels="shared", cache=tmp_path)) == []
    assert separate.differences(replace(separate, cache=False)) == []
    assert plain.differences(separate) == ["labels 'shared' (now 'separate')"]
    assert TrainSettings.from_dict(json.loads(json.dumps(replace(separate, cache=tmp_path).to_dict()))) == (
        replace(separate, cache=str(tmp_path))
    )
