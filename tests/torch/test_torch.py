"""`fasttriplet.torch.TripletMiner`, beside pytorch-metric-learning's miners and in its losses."""

from __future__ import annotations

import copy
import doctest
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.small_rec import identities, write_rec

torch = pytest.importorskip("torch")

from fasttriplet.torch import TripletMiner  # noqa: E402
from fasttriplet.torch import _miner as miner  # noqa: E402

pytestmark = pytest.mark.torch

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
MARGIN = 0.2
EDGE = 1e-5  # float32 distances of these rows are nearer to the truth than this
BANDS = {"all": "violating", "semihard": "semihard", "hard": "hard"}
METRICS = ("euclidean", "sqeuclidean", "cosine")


@pytest.fixture(scope="module")
def pml() -> Any:
    """pytorch-metric-learning; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of SciPy and scikit-learn, which it imports
        package = pytest.importorskip("pytorch_metric_learning")
        for name in ("distances", "losses", "miners"):
            pytest.importorskip(f"pytorch_metric_learning.{name}")
    return package


def pml_distance(pml: Any, metric: str) -> Any:
    if metric == "cosine":
        return pml.distances.CosineSimilarity()
    return pml.distances.LpDistance(power={"euclidean": 1, "sqeuclidean": 2}[metric])


def distances(x: NDArray[Any], y: NDArray[Any], metric: str) -> NDArray[np.float64]:
    x, y = (rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    squared = np.square(x[:, None] - y[None, :]).sum(axis=2)
    scaled: NDArray[np.float64] = {
        "sqeuclidean": squared,
        "euclidean": np.sqrt(squared),
        "cosine": squared / 2,
    }[metric]
    return scaled


def clear_of_edges(
    kind: str, metric: str, *, references: int = 0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings and references (the same without any) of which float32 decides every triplet rightly.

    Anchors with a triplet whose ``d_an - d_ap`` is within EDGE of 0 or the margin are left out.
    """
    rng = np.random.default_rng(seed)
    count, dim, identities = 96, 24, 17
    labels = rng.integers(0, identities, count + references)
    spread = {"random": 1.0, "clustered": 0.9}[kind]
    centres = rng.normal(size=(identities, dim)) * (kind == "clustered")
    rows = (centres[labels] + spread * rng.normal(size=(count + references, dim))).astype(np.float32)
    x, y, others, other_labels = rows[:count], labels[:count], rows[count:], labels[count:]
    while True:
        if not references:
            others, other_labels = x, y
        d = distances(x, others, metric)
        same = y[:, None] == other_labels[None, :]
        between = d[:, None, :] - d[:, :, None]  # anchor, positive, negative
        near = np.minimum(np.abs(between), np.abs(between - MARGIN)) < EDGE
        bad = (near & same[:, :, None] & ~same[:, None, :]).any(axis=(1, 2))
        if not bad.any():
            assert len(x) > count / 2
            return x, y, others, other_labels
        x, y = x[~bad], y[~bad]


def with_options(**options: Any) -> TripletMiner:
    return TripletMiner(**options)


def tensors(*arrays: NDArray[Any]) -> list[Any]:
    return [torch.from_numpy(array) for array in arrays]


def batch(count: int = 40, dim: int = 8, per_identity: int = 4) -> tuple[Any, Any]:
    rows = np.random.default_rng(5).normal(size=(count, dim)).astype(np.float32)
    embeddings, labels = tensors(rows, np.arange(count) // per_identity)
    return embeddings, labels


def same(found: Any, expected: Any) -> bool:
    return len(found) == len(expected) == 3 and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["random", "clustered"])
@pytest.mark.parametrize("type_of_triplets", BANDS)
def test_equals_the_triplet_margin_miner(pml: Any, type_of_triplets: str, kind: str, metric: str) -> None:
    """In its order, too. Both edges of the band are between the triplets, none on or near one."""
    x, y, _, _ = clear_of_edges(kind, metric)
    embeddings, labels = tensors(x, y)
    theirs = pml.miners.TripletMarginMiner(MARGIN, type_of_triplets, distance=pml_distance(pml, metric))(
        embeddings, labels
    )
    ours = with_options(metric=metric, band=BANDS[type_of_triplets])(embeddings, labels)
    assert same(ours, theirs)
    candidates = (len(y) - (y[:, None] == y).sum(axis=1)) @ ((y[:, None] == y).sum(axis=1) - 1)
    assert 0 < len(ours[0]) < candidates


def test_defaults_are_those_of_the_triplet_margin_miner(pml: Any) -> None:
    x, y, _, _ = clear_of_edges("clustered", "euclidean", seed=1)
    embeddings, labels = tensors(x, y)
    assert same(
        TripletMiner(metric="euclidean")(embeddings, labels),
        pml.miners.TripletMarginMiner()(embeddings, labels),
    )


@pytest.mark.parametrize("type_of_triplets", BANDS)
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_equals_the_triplet_margin_miner_with_references(pml: Any, kind: str, type_of_triplets: str) -> None:
    given = tensors(*clear_of_edges(kind, "euclidean", references=150))
    theirs = pml.miners.TripletMarginMiner(MARGIN, type_of_triplets)(*given)
    ours = with_options(metric="euclidean", band=BANDS[type_of_triplets])(*given)
    assert same(ours, theirs)
    assert len(ours[0]) > 0
    assert int(ours[1].max()) >= len(given[0])
    assert int(ours[2].max()) >= len(given[0])


def test_equals_the_batch_hard_miner(pml: Any) -> None:
    embeddings, labels = batch(count=90, per_identity=5)
    theirs = pml.miners.BatchHardMiner()(embeddings, labels)
    ours = TripletMiner(metric="euclidean", band="any", pick="hardest", pairs="hardest")(embeddings, labels)
    assert same(ours, theirs)


def test_the_anchor_among_the_references_is_its_id() -> None:
    """Told by ids alone: neither the same object nor equal rows make a reference the anchor."""
    embeddings, labels = batch()
    mine = TripletMiner(metric="euclidean", margin=2.0)
    alone = mine(embeddings, labels)
    a, p, _ = mine(embeddings, labels, embeddings, labels)
    assert bool((a == p).any())
    ids = torch.arange(40) * 7 + 3
    assert same(mine(embeddings, labels, embeddings, labels, ids=ids, ref_ids=ids), alone)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    a, p, n = mine(embeddings, labels, embeddings[order], labels[order], ids=ids, ref_ids=ids[order])
    moved = sorted(zip(a.tolist(), order[p].tolist(), order[n].tolist(), strict=True))
    assert moved == sorted(zip(*(t.tolist() for t in alone), strict=True))


def test_ids_decide_random_picks_and_results_are_positions() -> None:
    embeddings, labels = batch()
    ids = torch.arange(40) * 5 + 100
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"metric": "euclidean", "band": "any", "pick": "random"}
    a, p, n = TripletMiner(**options)(embeddings, labels, ids=ids)
    b, q, m = TripletMiner(**options)(embeddings[order], labels[order], ids=ids[order])
    moved = sorted(zip(order[b].tolist(), order[q].tolist(), order[m].tolist(), strict=True))
    assert moved == sorted(zip(a.tolist(), p.tolist(), n.tolist(), strict=True))
    assert bool((labels[a] == labels[p]).all())
    assert bool((labels[a] != labels[n]).all())


def test_is_what_mine_returns() -> None:
    embeddings, labels = batch()
    options: dict[str, Any] = {
        "metric": "cosine", "margin": 0.3, "band": "semihard", "pick": "hardest", "negatives_per_pair": 2,
        "pairs": "unordered", "max_ap": 0.9, "threads": 1,
    }  # fmt: skip
    expected = tensors(*ft.mine(embeddings.numpy(), labels.numpy(), **options))
    assert len(expected[0]) > 0
    assert same(TripletMiner(**options)(embeddings, labels), expected)


def test_random_picks_vary_from_call_to_call_and_repeat_with_the_run() -> None:
    embeddings, labels = batch()
    options: dict[str, Any] = {"metric": "euclidean", "band": "any", "pick": "random"}
    run = TripletMiner(**options, seed=3)
    results = [run(embeddings, labels) for _ in range(3)]
    assert run.calls == 3
    assert not same(results[0], results[1])
    assert not same(results[1], results[2])
    again = TripletMiner(**options, seed=3)
    assert all(same(again(embeddings, labels), result) for result in results)
    assert not same(TripletMiner(**options, seed=4)(embeddings, labels), results[0])
    resumed = TripletMiner(**options, seed=3)
    resumed.calls = 2
    assert same(resumed(embeddings, labels), results[2])
    assert same(copy.deepcopy(run)(embeddings, labels), again(embeddings, labels))


def test_the_other_picks_are_the_same_at_every_call() -> None:
    embeddings, labels = batch()
    duplicates = embeddings.repeat(3, 1)  # every nearest negative is one of three
    options: dict[str, Any] = {"metric": "euclidean", "band": "any", "pick": "hardest"}
    mine = TripletMiner(**options)
    results = [mine(duplicates, labels.repeat(3)) for _ in range(3)]
    assert same(results[1], results[0])
    assert same(results[2], results[0])
    assert not same(TripletMiner(**options, seed=1)(duplicates, labels.repeat(3)), results[0])


def test_a_call_that_fails_is_not_counted() -> None:
    embeddings, labels = batch()
    counted = TripletMiner(metric="euclidean")
    with pytest.raises(ValueError, match="labels"):
        counted(embeddings, labels[1:])
    assert counted.calls == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floats_of_all_widths(dtype: str) -> None:
    embeddings, labels = batch()
    mine = TripletMiner(metric="euclidean")
    given = embeddings.to(getattr(torch, dtype))
    found = mine(given, labels)
    assert [indices.dtype for indices in found] == [torch.int64] * 3
    assert all(indices.device == given.device and not indices.requires_grad for indices in found)
    assert same(found, mine(given.float(), labels))
    assert same(found, mine(given.clone().requires_grad_() * 1, labels))
    assert same(found, mine(given.T.contiguous().T, labels))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "bool"])
def test_labels_of_all_widths(dtype: str) -> None:
    embeddings, labels = batch()
    mine = TripletMiner(metric="euclidean")
    given = (labels % 2).to(getattr(torch, dtype))
    assert same(mine(embeddings, given), mine(embeddings, labels % 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_results_are_where_the_embeddings_are() -> None:
    embeddings, labels = batch()
    mine = TripletMiner(metric="euclidean")
    found = mine(embeddings.cuda(), labels, embeddings.cuda(), labels)
    assert all(indices.device == embeddings.cuda().device for indices in found)
    assert same([indices.cpu() for indices in found], mine(embeddings, labels, embeddings, labels))


@pytest.mark.parametrize("labels", [[], [3], [1, 1, 1], [1, 2, 3]], ids=str)
def test_nothing_to_mine(labels: list[int]) -> None:
    given = torch.ones(len(labels), 4), torch.tensor(labels, dtype=torch.int64)
    for found in (
        TripletMiner(metric="euclidean")(*given),
        TripletMiner(metric="euclidean")(*given, torch.ones(0, 4), torch.ones(0, dtype=torch.int64)),
    ):
        assert [(tuple(i.shape), i.dtype) for i in found] == [((0,), torch.int64)] * 3


def test_embeddings_that_are_all_but_equal_are_told_once() -> None:
    miner = TripletMiner(metric="euclidean")
    labels = torch.arange(12) // 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for number in range(4):
            miner(torch.ones(12, 5) + 1e-6 * number * torch.rand(12, 5), labels)
            miner(torch.rand(12, 5), labels)
            miner(torch.rand(12, 5), labels, torch.ones(12, 5), labels)
    told = [one.lineno for one in caught]
    assert {one.category for one in caught} == {ft.CollapseWarning}
    assert {one.filename for one in caught} == {__file__}
    assert len(told) == len(set(told)) == 2


def test_singletons_are_negatives_only() -> None:
    embeddings, _ = batch(count=5)
    a, p, n = TripletMiner(metric="euclidean", band="any")(embeddings, torch.tensor([0, 1, 0, 2, 3]))
    assert (a.tolist(), p.tolist(), n.tolist()) == (
        [0, 0, 0, 2, 2, 2],
        [2, 2, 2, 0, 0, 0],
        [1, 3, 4, 1, 3, 4],
    )


E4 = torch.eye(4)
Y4 = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"embeddings": np.eye(4)}, "embeddings must be a torch.Tensor, not ndarray"),
        ({"labels": [0, 0, 1, 1]}, "labels must be a torch.Tensor, not list"),
        ({"embeddings": torch.ones(4)}, r"embeddings must be 2-D .*not of the shape \(4,\)"),
        ({"embeddings": torch.ones(4, 4).long()}, "embeddings must be floating point, not torch.int64"),
        ({"embeddings": torch.ones(4, 0)}, "no columns"),
        ({"embeddings": E4 * float("nan")}, "row 0, column 0 is nan"),
        (
            {"labels": Y4[:3]},
            r"labels must have the shape \(4,\), one for each row of embeddings, not \(3,\)",
        ),
        ({"labels": Y4[:, None]}, r"labels must have the shape \(4,\).*, not \(4, 1\)"),
        ({"labels": Y4.float()}, "labels must be integers, not torch.float32"),
        ({"ref_emb": E4}, "ref_emb and ref_labels belong together"),
        ({"ref_labels": Y4}, "ref_emb and ref_labels belong together"),
        ({"ref_emb": E4[:, :3], "ref_labels": Y4}, "as many columns as embeddings, 4, not 3"),
        ({"ref_emb": E4, "ref_labels": Y4[1:]}, r"ref_labels must have .* each row of ref_emb, not \(3,\)"),
        ({"ref_emb": E4, "ref_labels": Y4, "ids": Y4}, "ids and ref_ids belong together"),
        ({"ref_emb": E4, "ref_labels": Y4, "ref_ids": Y4}, "ids and ref_ids belong together"),
        ({"ref_ids": Y4}, "ref_ids are given without ref_emb"),
        ({"ids": Y4}, "share the id 0"),
        ({"ids": Y4[1:]}, r"ids must have the shape \(4,\), one for each row of embeddings"),
        ({"ids": Y4.float()}, "ids must be integers, not torch.float32"),
    ],
)
def test_bad_input_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TripletMiner(metric="euclidean")(**({"embeddings": E4, "labels": Y4} | given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "l2"}, "metric must be one of"),
        ({"band": "all"}, "band 'all' is no band"),
        ({"margin": -0.1}, "margin must be a number >= 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"threads": 0}, "threads must be a whole number"),
    ],
)
def test_bad_options_are_named_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TripletMiner(**({"metric": "euclidean"} | options))


def test_the_metric_has_no_default() -> None:
    with pytest.raises(TypeError, match="metric"):
        TripletMiner()  # type: ignore[call-arg, unused-ignore]


def test_in_a_loss(pml: Any) -> None:
    """As `mining_func`: with and without references, in a memory and among several losses."""
    embeddings, labels = batch()
    mine = TripletMiner(metric="euclidean", band="semihard")
    loss = pml.losses.TripletMarginLoss(margin=MARGIN)
    references, ref_labels = batch(count=24)
    for against in ((), (references + 0.1, ref_labels)):
        given = embeddings.clone().requires_grad_()
        triplets = mine(given, labels, *against)
        assert len(triplets[0]) > 0
        loss(given, labels, triplets, *against).backward()
        assert bool(given.grad.abs().sum() > 0)
    nothing = loss(embeddings.clone().requires_grad_(), labels * 0, mine(embeddings, labels * 0))
    assert nothing.item() == 0
    nothing.backward()
    given = embeddings.clone().requires_grad_()
    several = pml.losses.MultipleLosses([loss, loss], miners=[mine, None])
    several(given, labels).backward()
    assert bool(given.grad.abs().sum() > 0)
    assert not several.state_dict()
    memory = pml.losses.CrossBatchMemory(loss, embedding_size=8, memory_size=100, miner=mine)
    alone = loss(embeddings, labels, mine(embeddings, labels))
    assert memory(embeddings, labels).item() == pytest.approx(alone.item())


@pytest.mark.usefixtures("pml")
def test_the_page_about_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    write_rec(Path("demo/train.rec"), identities(20, 6))
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    with torch.random.fork_rng():  # the page seeds it
        for part in code:
            exec(compile(part, str(PAGE), "exec"), names)
    assert len(code) == 3
    printed = capsys.readouterr().out
    assert re.search(r"^\d+ batches of [\d,]+ triplets, loss 0\.\d{4}$", printed, re.MULTILINE)
    assert "triplets against 1,800 rows" in printed
    assert len(names["triplets"][0]) > 0


def test_options_are_shown() -> None:
    shown = repr(TripletMiner(metric="cosine", margin=0.1, seed=5))
    assert "metric='cosine', margin=0.1, " in shown
    assert "seed=5" in shown


def test_examples_in_docstrings() -> None:
    failed, attempted = doctest.testmod(miner)
    assert failed == 0 < attempted
