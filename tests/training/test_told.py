"""What a training tells while it runs: how much is left, and how fast it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasttriplet import Feed, TripletBatch
from fasttriplet.training import TrainSettings, _loop, train_rec
from fasttriplet.training._pace import Pace
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import OPTIONS, write_pairs

pytestmark = pytest.mark.usefixtures("numpy_backend")


@pytest.fixture
def chosen(data: Path) -> TrainSettings:
    return TrainSettings(rec=(str(data / "train.rec"),), network="small", band="any", **OPTIONS)


@pytest.mark.parametrize(
    ("ends", "every", "files"),
    [([7], 3, 1), ([6], 3, 2), ([5], 100, 1), ([1], 1, 2), ([4, 7, 9], 3, 2), ([3, 3, 8], 4, 1), ([5], 2, 0)],
)
def test_all_that_is_left_counts(
    data: Path,
    chosen: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ends: list[int],
    every: int,
    files: int,
) -> None:
    """Batches, and what verifications will embed: pairs and their mirror images."""
    pairs = [data / "pairs.bin", tmp_path / "more.bin"][:files]
    write_pairs(data / "train.rec", tmp_path / "more.bin", 10, seed=1)
    monkeypatch.setattr("fasttriplet.verify._run.PART", 16)
    monkeypatch.setattr("fasttriplet.run._bag.PART", 16)
    embed, seconds_left = NumpyBackend.embed, Pace.seconds_left
    verified, asked = 0, (0, 0)
    told: list[tuple[Mapping[str, Any], int, int, int]] = []

    def tell(record: Mapping[str, Any]) -> None:
        told.append((record, *asked, verified))

    def counted(self: NumpyBackend, rows: Any, images: Any) -> Any:
        nonlocal verified
        verified += rows.height if (rows["label"] == -1).all() else 0
        return embed(self, rows, images)

    def noted(self: Pace, batches: int, images: int) -> float | None:
        nonlocal asked
        asked = batches, images
        return seconds_left(self, batches, images)

    monkeypatch.setattr(NumpyBackend, "embed", counted)
    monkeypatch.setattr(Pace, "seconds_left", noted)
    for number, end in enumerate(ends):
        told.clear()
        verified = 0
        train_rec(
            chosen, tmp_path / "a", batches=end, verify_on=pairs, verify_every=every, resume=number > 0,
            progress=tell,
        )  # fmt: skip
        kinds = [record["kind"] for record, *_ in told]
        assert kinds.count("verification") > 0 or not files or ends[number - 1] == end
        for record, batches, images, so_far in told:
            assert batches == end - record["batch"]
            of_bag = record["images"] if record["kind"] == "embedded" else 0
            assert images == verified - so_far - of_bag, record
        parts = [(record["images"], record["of"]) for record, *_ in told if record["kind"] == "embedded"]
        of_bags = [of for images, of in parts if images == 0]
        # The end of a part is the beginning of the next one, and each is told.
        once = [part for part, _ in groupby(parts)]
        assert once == [(min(images, of), of) for of in of_bags for images in range(0, of + 16, 16)]
    assert not files or told[-1][0]["kind"] != "verification" or told[-1][0]["seconds_left"] == 0


def test_times_are_those_of_the_parts(
    data: Path, chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clock that parts move: a bag 10 s, a batch 0.5 s and its step 2 s, a verification 100 s."""
    now = 7.0
    taken: list[tuple[Any, ...]] = []

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    embed, step, fetch = NumpyBackend.embed, NumpyBackend.step, Feed.__next__

    def embeds(self: NumpyBackend, rows: Any, images: Any) -> Any:
        passes(50 if (rows["label"] == -1).all() else 10)  # a verification embeds mirror images, too
        return embed(self, rows, images)

    def steps(self: NumpyBackend, *arguments: Any) -> None:
        passes(2)
        step(self, *arguments)

    def fetches(self: Any) -> TripletBatch:
        passes(0.5)
        return fetch(self)

    class Noted(Pace):
        def fetched(self, summary: Any, seconds: float) -> bool:
            taken.append(("fetched", seconds))
            return super().fetched(summary, seconds)

        def embedded(self, seconds: float, images: int) -> None:
            taken.append(("embedded", seconds, images))
            super().embedded(seconds, images)

        def stepped(self, seconds: float) -> None:
            taken.append(("stepped", seconds))
            super().stepped(seconds)

    monkeypatch.setattr(_loop, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(NumpyBackend, "embed", embeds)
    monkeypatch.setattr(NumpyBackend, "step", steps)
    monkeypatch.setattr(Feed, "__next__", fetches)
    monkeypatch.setattr(_loop, "Pace", Noted)
    bags: dict[int, int] = {}  # batches before each bag, and its images

    def told(record: Mapping[str, Any]) -> None:
        if record["kind"] == "embedded" and record["images"]:
            bags[record["batch"]] = record["images"]

    train_rec(
        chosen, tmp_path / "a", batches=60, verify_on=data / "pairs.bin", verify_every=25, log_every=4,
        progress=told,
    )  # fmt: skip
    assert 1 < len(bags) < 60
    expected: list[tuple[Any, ...]] = []
    for batch in range(61):
        if batch in (0, 25, 50, 60):
            expected.append(("embedded", 100, 2 * 120))
        if batch in bags:
            expected += [("fetched", 10.5), ("embedded", 10.5, bags[batch]), ("stepped", 2)]
        elif batch < 60:
            expected += [("fetched", 0.5), ("stepped", 2.5)]
    assert taken == expected
    log = [json.loads(line) for line in (tmp_path / "a-log.jsonl").read_text().splitlines()]
    assert [(line["batch"], line["images_per_second"]) for line in log if line["kind"] == "train"] == [
        (batch, pytest.approx(4 * 12 / (4 * 2.5 + 10 * sum(batch - 4 <= at < batch for at in bags))))
        for batch in range(4, 61, 4)
    ]
