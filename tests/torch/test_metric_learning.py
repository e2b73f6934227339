"""`fasttriplet.torch.TripletMiner` as a miner of pytorch-metric-learning (PML), and without PML."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import run_python
from tests.test_pages import run
from tests.torch.test_group import free_port
from tests.torch.test_torch import MARGIN, PAGE, batch, clear_of_edges, pml, same, tensors

torch = pytest.importorskip("torch")

from fasttriplet.torch import TripletMiner  # noqa: E402

__all__ = ["pml"]  # a fixture
pytestmark = pytest.mark.torch

SCRIPT = Path(__file__).with_name("pml_script.py")
HARDEST: dict[str, Any] = {"band": "any", "pick": "hardest", "pairs": "hardest"}


def test_is_one_of_its_miners(pml: Any) -> None:
    miner = TripletMiner(metric="euclidean")
    assert isinstance(miner, pml.miners.BaseMiner)
    for other in (copy.deepcopy(miner), pickle.loads(pickle.dumps(miner))):
        assert same(other(*batch()), miner(*batch()))


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("normalize", [True, False])
def test_its_distance_is_the_metric(pml: Any, metric: Any, normalize: bool) -> None:
    if metric == "cosine" and not normalize:
        pytest.skip("'cosine' compares directions")
    embeddings, labels = batch()
    miner = TripletMiner(metric=metric, normalize=normalize)
    assert isinstance(miner.distance, pml.distances.BaseDistance)
    theirs = pml.miners.TripletMarginMiner(0.2, distance=miner.distance)
    assert same(miner(embeddings, labels), theirs(embeddings, labels))


def test_counts_as_its_miners_do(pml: Any) -> None:
    from pytorch_metric_learning.utils import common_functions  # noqa: PLC0415

    embeddings, labels = batch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common_functions, "COLLECT_STATS", True)
        ours, theirs = TripletMiner(metric="euclidean"), pml.miners.TripletMarginMiner()
    assert ours._record_these_stats == ["num_pos_pairs", "num_neg_pairs", "num_triplets"]
    assert ours.num_triplets == 0
    for miner in (ours, theirs):
        miner(embeddings, labels)
    assert ours.num_triplets == theirs.num_triplets > 0


def test_what_its_base_class_calls(pml: Any) -> None:
    """`BaseMiner.forward` gives `mine` the batch as references where there are none."""
    embeddings, labels = batch()
    references, ref_labels = batch(count=24)
    miner = TripletMiner(metric="euclidean")
    call = pml.miners.BaseMiner.forward
    assert same(call(miner, embeddings, labels), miner(embeddings, labels))
    against = references + 0.1, ref_labels
    assert same(call(miner, embeddings, labels, *against), miner(embeddings, labels, *against))


class Descent:
    """SGD, without the 2 s that the first import of torch.optim takes."""

    def __init__(self, module: Any) -> None:
        self.parameters = [*module.parameters()]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.sub_(0.1 * parameter.grad)


def test_in_its_trainer(pml: Any) -> None:
    """The network is that of PML's own miner, to the last bit."""
    pytest.importorskip("pytorch_metric_learning.trainers")
    rows, labels = batch(count=120)
    weights = []
    for miner in (TripletMiner(metric="euclidean", **HARDEST), pml.miners.BatchHardMiner()):
        torch.manual_seed(0)
        network = torch.nn.Linear(8, 4)
        trainer = pml.trainers.MetricLossOnly(
            models={"trunk": network},
            optimizers={"trunk_optimizer": Descent(network)},
            batch_size=40,
            loss_funcs={"metric_loss": pml.losses.TripletMarginLoss(0.2)},
            mining_funcs={"tuple_miner": miner},
            dataset=torch.utils.data.TensorDataset(rows, labels),
            dataloader_num_workers=0,
        )
        before = network.weight.detach().clone()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PML shows a tensor as a number
            trainer.train(num_epochs=2)
        assert not torch.equal(network.weight, before)
        weights.append(network.weight.detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize("filled", [False, True])
def test_in_a_memory(pml: Any, filled: bool) -> None:
    """With the loss that PML's miner has there; the queue goes round, too."""
    losses = []
    for miner in (TripletMiner(metric="euclidean"), pml.miners.TripletMarginMiner()):
        loss = pml.losses.TripletMarginLoss(MARGIN)
        memory = pml.losses.CrossBatchMemory(loss, embedding_size=24, memory_size=300, miner=miner)
        for seed in range(5 if filled else 2):
            x, y, _, _ = clear_of_edges("clustered", "euclidean", seed=seed)
            losses.append(memory(*tensors(x, y)).item())
    half = len(losses) // 2
    assert losses[:half] == pytest.approx(losses[half:])
    assert all(losses)


@pytest.mark.heavy
def test_in_two_processes(pml: Any, tmp_path: Path) -> None:
    """What the two find together is what one finds in the whole batch."""
    given = clear_of_edges("clustered", "euclidean", references=150)
    given = tuple(values[: len(values) // 2 * 2] for values in given)  # type: ignore[assignment]
    n, m = len(given[0]), len(given[2])
    arrays = dict(zip(("rows", "labels", "others", "other_labels"), given, strict=True))
    np.savez(tmp_path / "batch.npz", **arrays)  # type: ignore[arg-type, unused-ignore]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    outputs = [
        tmp_path / f"{rank}.txt" for rank in range(2)
    ]  # a pipe would be full while the other one is read
    processes = []
    try:
        for rank, path in enumerate(outputs):
            environment = os.environ | shared | {"RANK": str(rank), "OMP_NUM_THREADS": "1"}
            with path.open("wb") as output:
                command = [sys.executable, str(SCRIPT), str(tmp_path / "batch.npz")]
                processes.append(subprocess.Popen(command, env=environment, stdout=output))
        assert [process.wait(timeout=100) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    answers = [[json.loads(line) for line in path.read_text().splitlines()] for path in outputs]
    kinds: dict[str, dict[str, Any]] = {"all": {}, "semihard": {"band": "semihard"}, "hardest": HARDEST}
    for of_ranks in zip(*answers, strict=True):
        question = of_ranks[0]["question"]
        efficient, references = "efficient=True" in question, "references=True" in question
        whole = tensors(*given) if references else tensors(*given[:2])
        found = TripletMiner(metric="euclidean", **kinds[question.partition(",")[0]])(*whole)
        expected = {*zip(*(role.tolist() for role in found), strict=True)}
        together = []
        for rank, answer in enumerate(of_ranks):
            assert answer["as PML's"], question
            # A process has its own rows first, and then those of the other.
            size = m if references else n
            triplets = [
                ((a + rank * n // 2) % n, (p + rank * size // 2) % size, (k + rank * size // 2) % size)
                for a, p, k in answer["triplets"]
            ]
            assert len({*triplets}) == len(triplets) > 0, question
            if efficient:
                assert {a // (n // 2) for a, _, _ in triplets} == {rank}, question
                together += triplets
            else:
                assert {*triplets} == expected, question
        if efficient and references:
            # PML takes row i of a process's references for row i of its batch, and leaves this pair out.
            expected = {
                (a, p, k) for a, p, k in expected
                if (a // (n // 2), a % (n // 2)) != (p // (m // 2), p % (m // 2))
            }  # fmt: skip
        if efficient:
            assert sorted(together) == sorted(expected), question
        if "loss" in of_ranks[0] and not efficient:
            loss = pml.losses.TripletMarginLoss(MARGIN)
            alone = loss(*whole[:2], found, *whole[2:]).item()
            assert [answer["loss"] for answer in of_ranks] == pytest.approx([2 * alone] * 2)
    assert len(answers[0]) == 12


@pytest.mark.parametrize(
    ("options", "labels", "refused"),
    [
        ({"margin": -0.1}, None, "margin must be a number >= 0, not -0.1"),
        ({}, torch.zeros(40), "labels must be integers, not torch.float32"),
    ],
)
def test_what_is_refused_is_on_the_page(options: dict[str, Any], labels: Any, refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        TripletMiner(**{"metric": "euclidean", **options})(batch()[0], labels)
    assert f"`{refused}`" in " ".join(PAGE.read_text(encoding="utf-8").split())


def test_the_page_for_its_users_prints_what_it_says(
    pml: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.with_name("from-pytorch-metric-learning.md")
    with torch.random.fork_rng():  # the page seeds it
        names = run(page, [0, 1, 2], tmp_path, monkeypatch)
    theirs = pml.miners.BatchEasyHardMiner(pos_strategy="semihard", neg_strategy="hard")
    anchor, positive, _, negative = (role.tolist() for role in theirs(names["embeddings"], names["labels"]))
    found = names["found"].select("anchor", "positive", "negative")
    assert {*found.iter_rows()} == {*zip(anchor, positive, negative, strict=True)}
    assert names["loss"] > 0
    said = "".join(f"    {line}\n" for line in capsys.readouterr().out.splitlines())
    assert said in page.read_text(encoding="utf-8")


# The first two lines make PML what it is in the test: missing, broken, noisy, or as it is.
USED = """
import sys
import torch
import fasttriplet.torch
print("pytorch_metric_learning" in sys.modules)
from fasttriplet.torch import TripletMiner, triplet_loss
miner = TripletMiner(metric="euclidean", band="any")
labels = torch.arange(12) // 3
print([base.__name__ for base in TripletMiner.__bases__], len(miner(torch.eye(12), labels)[0]))
"""


@pytest.mark.heavy
@pytest.mark.usefixtures("pml")
def test_is_imported_when_the_miner_is_asked_for() -> None:
    assert run_python(USED) == "False\n['BaseMiner'] 216\n"


@pytest.mark.heavy
@pytest.mark.parametrize(
    "package", [None, "raise ImportError('libfoo.so')", "import warnings; warnings.warn('old'); 1 / 0"]
)
def test_without_it(tmp_path: Path, package: str | None) -> None:
    """It is missing, or its import fails: the miner is a plain module, and nothing is said."""
    if package is None:
        code = f"import sys\nsys.modules['pytorch_metric_learning'] = None\n{USED}".replace("print(", "(", 1)
        assert run_python(code) == "['Module'] 216\n"
    else:
        (tmp_path / "pytorch_metric_learning.py").write_text(package)
        assert (
            run_python(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{USED}")
            == "False\n['Module'] 216\n"
        )
