"""Pages agree with benches, their links lead somewhere, README and site lead to all, and their code runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from tests.auditing.findings import write_suspects
from tests.small_rec import identities, write_rec
from tests.test_commands import (
    MODELS,
    code_of,
    in_blocks,
    make_backbone,
    make_folder,
    make_network,
    make_own_module,
    own_module,
)
from tests.test_commands import run as run_command

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PYTHON = ROOT / "docs" / "python.md"
PAGES = [
    *ROOT.glob("*.md"),
    *(page for room in ("docs", "benches", "tests") for page in (ROOT / room).rglob("*.md")),
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_tables_and_chart_of_the_benches_are_those_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benches")
    tables, chart = importlib.import_module("tables"), importlib.import_module("chart")
    page = text_of(tables.PAGE)
    assert tables.filled(page) == page
    assert chart.is_current()


# Links


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def contents(page: Path) -> list[str]:
    """The pages that it lists for the site."""
    lists = re.findall(r"^```\{toctree\}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    return [f"{line}.md" for one in lists for line in one.splitlines() if line and not line.startswith(":")]


def links(page: Path) -> list[str]:
    named = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    return [to for to in named if not to.startswith("http")] + contents(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_readme_leads_to_every_page() -> None:
    reached, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        targets = {(page.parent / target.partition("#")[0]).resolve() for target in links(page)}
        ahead += [there for there in targets if there.suffix == ".md" and there not in reached]
    assert reached == set(PAGES)


def test_the_site_has_every_page_once_in_its_contents() -> None:
    listed = [(page.parent / name).resolve() for page in PAGES for name in contents(page)]
    assert sorted(listed) == sorted({*PAGES} - {README, ROOT / "docs" / "index.md"})


PUBLIC = ["fasttriplet", *(f"fasttriplet.{room}" for room in ("torch", "mxnet", "onnx", "training"))]


def test_the_reference_has_every_public_name() -> None:
    explained = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        text = text_of(page)
        module = re.search(r"currentmodule:: (\S+)", text)
        for name in re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)", text, re.MULTILINE):
            assert module is not None
            explained.add(name if name.startswith("fasttriplet.") else f"{module[1]}.{name}")
    public = {f"{module}.{name}" for module in PUBLIC for name in importlib.import_module(module).__all__}
    assert explained == public - {"fasttriplet.__version__"}


@pytest.mark.parametrize("picture", [*(ROOT / "docs").glob("*.png")], ids=lambda picture: picture.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 150_000
    with Image.open(picture) as opened:
        opened.load()


# Code


def run(
    page: Path,
    blocks: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int = 24,
    **names: Any,
) -> dict[str, Any]:
    """Run blocks of a page as one program, where `make demo` has left a dataset; return all names."""
    for folder in ("demo", "models"):
        (tmp_path / folder).mkdir(exist_ok=True)
    write_rec(tmp_path / "demo" / "train.rec", identities(12, 6), side=side)
    monkeypatch.chdir(tmp_path)
    found = code_of(page)
    exec(compile("".join(found[block] for block in blocks), page.name, "exec"), names)
    return names


def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = np.random.default_rng(0).standard_normal((40, 8), np.float32)
    names = run(README, [0], tmp_path, monkeypatch, embeddings=embeddings, labels=np.arange(40) // 4)
    assert 0 < len(names["anchor"]) <= 10 * 6
    assert len(names["hardest"]) == 40
    assert names["triplets"].collect().height > 0


def test_stage_by_stage_and_in_one_call_the_triplets_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(PYTHON, [0], tmp_path, monkeypatch)
    assert "MiningStats" in capsys.readouterr().out
    loop = names["triplets"].to_frame()  # of the only bag
    one_call = names["result"].triplets.collect()
    assert loop.rows() == one_call.select("anchor_key", "positive_key", "negative_key", "d_ap", "d_an").rows()
    assert loop.height == names["result"].summary.triplets > 0


def test_the_page_on_python_with_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(PYTHON, [1], tmp_path, monkeypatch)
    assert names["pixels"].shape == (3, 24, 24, 3)
    assert ft.RecordFile("demo/ten.rec").read(1) == (names["header"], names["encoded"])
    assert names["header"].id == 1


@pytest.mark.torch
def test_the_page_on_python_with_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    names = run(PYTHON, [2], tmp_path, monkeypatch)
    assert names["images"].shape[1:] == (3, 24, 24)
    assert names["loss"] > 0


def test_the_page_on_feeding_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "feed.md"
    names = run(page, [*range(len(code_of(page)))], tmp_path, monkeypatch, side=112)
    assert names["batch"].images.shape[1:] == (3, 112, 112)
    assert len(names["state"]["triplets"]) == 0
    assert names["feed"].summary.epochs == 2
    assert "batches; waited most for" in capsys.readouterr().out


def test_the_page_on_similar_bags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "similar-bags.md"
    network = run(ROOT / "docs" / "feed.md", [0], tmp_path, monkeypatch, side=112)["network"]
    capsys.readouterr()
    names = run(page, [*range(len(code_of(page)))], tmp_path, monkeypatch, side=112, network=network)
    assert "".join(f"    {line}\n" for line in capsys.readouterr().out.splitlines()) in text_of(page)
    assert names["similar"].summary.images == 60  # of 12 identities of 5 images
    assert names["running"].summary.images == 3 * 60
    assert len(names["running"].state_dict()["means"]) == 12


def test_the_faq_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "faq.md"
    names = run(page, [0, 1], tmp_path, monkeypatch)
    rounded, anew, distance = capsys.readouterr().out.splitlines()
    assert f"# {rounded}: two identities" in text_of(page)
    assert f"# {anew}: numbered anew" in text_of(page)
    assert 1.8 < float(distance) < 2.2
    assert names["good"].shape == (60, 16)


@pytest.mark.parametrize("name", ["exactness.md", "reproducibility.md", "from-sentence-transformers.md"])
def test_a_page_shows_what_its_code_prints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / name
    run(page, [*range(len(code_of(page)))], tmp_path, monkeypatch)
    assert "".join(f"    {line}\n" for line in capsys.readouterr().out.splitlines()) in text_of(page)


def test_the_page_on_mining_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "mining.md"
    names = run(page, [*range(len(code_of(page)))], tmp_path, monkeypatch)
    made = {name: value for name, value in names.items() if isinstance(value, ft.Triplets)}
    assert all(len(triplets) for triplets in made.values())
    assert (made["close"].d_an < 0.9).all()
    assert len(made["three_nearest"]) == 3 * 300
    assert len(made["with_fallback"]) == len(made["farthest"]) == 300
    assert (made["farthest"].d_an >= made["without_the_nearest"].d_an).all()
    assert len(made["batch_hard"]) == 200
    assert np.bincount(made["two_nearest"].anchor).max() == 2
    assert np.bincount(made["few"].anchor).max() == 5
    assert len(made["negatives"]) == 50 * 3 * 5
    assert (names["everyone"].distances <= names["nearest"].distances).all()
    assert names["graph"].height == 50 * 5
    assert names["hundred"].height == 100
    assert names["second_to_fourth"].height == 200 * 2  # of three positives


def test_the_page_on_what_an_audit_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "pictures")
    ft.pack("pictures", "train.rec")
    (tmp_path / "audit").mkdir()
    suspects = tmp_path / "audit" / "suspects.parquet"
    write_suspects(suspects, tmp_path / "train.rec", {"kind": "outlier", "key": 7})
    ft.clean("train.rec", suspects=suspects, out="clean.rec")
    names = run(ROOT / "docs" / "clean.md", [0, 1, 2, 3], tmp_path, monkeypatch)
    assert names["changed"].select("key", "kind", "action").rows() == [(7, "outlier", "drop")]
    [(key, path)] = names["suspects"].join(names["paths"], on="key").select("key", "path").rows()
    assert ft.RecordFile("train.rec").read(key)[1] == (tmp_path / "pictures" / path).read_bytes()
    triplets = names["triplets"]
    for role in ("anchor", "positive", "negative"):
        for key, path in triplets.select(f"{role}_key", f"{role}_path").head(20).iter_rows():
            assert ft.RecordFile("packed.rec").read(key)[1] == (tmp_path / "pictures" / path).read_bytes()
    assert names["about"]["dataset"] == ft.Dataset("packed.rec").fingerprint
    assert capsys.readouterr().out.splitlines()[-1] == f"0 {names['about']['model']} any"


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("verify.md", 0),
        ("report.md", 0),
        ("gallery.md", 0),
        ("models.md", 6),
        pytest.param("mxnet.md", 1, marks=pytest.mark.mxnet),
    ],
)
def test_the_code_of_a_page_runs(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "mxnet.md":
        request.getfixturevalue("mx")
    run(ROOT / "docs" / name, [block], tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["audit.md", "whole.md", pytest.param("cluster.md", marks=pytest.mark.ray)])
def test_the_code_of_a_page_about_a_dataset_of_yours_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "cluster.md":
        pytest.importorskip("ray")
    write_rec(tmp_path / "train.rec", identities(12, 6))
    np.save(tmp_path / "embeddings.npy", np.random.default_rng(0).standard_normal((72, 8), np.float32))
    run(ROOT / "docs" / name, [0], tmp_path, monkeypatch, __name__="__main__")


def test_every_page_with_code_is_run_by_a_test() -> None:
    tests = "".join(text_of(path) for path in (ROOT / "tests").rglob("*.py"))
    assert not [page for page in PAGES if code_of(page) and f'"{page.name}"' not in tests]


@pytest.mark.torch
def test_the_page_on_images_for_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    names = run(ROOT / "docs" / "torch-data.md", [0], tmp_path, monkeypatch)
    assert names["image"].shape == (3, 24, 24)
    assert (names["sampler"].epoch, names["label"]) == (2, 0)


def test_the_pick_triplets_of_the_page_on_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the rule of `triplet_image_iter.py`, "FaceNet selection", on all distances."""
    pick_triplets = run(ROOT / "docs" / "migration.md", [1], tmp_path, monkeypatch)["pick_triplets"]
    counts = [5, 3, 1, 5, 4] * 8
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(counts), 16))[labels] + rng.normal(size=(len(labels), 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    d = np.square(rows[:, None].astype(np.float64) - rows).sum(axis=2)
    for alpha, max_ap in ((0.3, 0.0), (0.1, 0.8)):
        qualify = {
            (a, p): {*np.flatnonzero((labels != labels[a]) & (d[a] - d[a, p] < alpha) & (d[a, p] < d[a]))}
            for a, p in np.argwhere(np.triu(labels[:, None] == labels, 1)).tolist()
            if not max_ap or d[a, p] <= max_ap
        }
        found = pick_triplets(rows, counts, alpha, max_ap)
        assert sorted((a, p) for a, p, _ in found) == [pair for pair in qualify if qualify[pair]]
        assert all(n in qualify[a, p] for a, p, n in found)
        assert found != sorted(found)


@pytest.mark.torch
def test_the_load_bin_for_arcface_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    names = run(ROOT / "docs" / "from-arcface-torch.md", [0], tmp_path, monkeypatch)
    file = ft.RecordFile("demo/train.rec")
    ft.write_pairs("pairs.bin", [file.read(key)[1] for key in (1, 2, 3, 7)], [True, False])
    images, same = names["load_bin"]("pairs.bin", (24, 24))
    assert np.array_equal(images[0], file.decode([1, 2, 3, 7], layout="NCHW"))
    assert np.array_equal(images[1], images[0].flip(3))
    assert same == [True, False]


@pytest.mark.torch
def test_the_page_for_users_of_arcface_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    page = ROOT / "docs" / "from-arcface-torch.md"
    monkeypatch.chdir(tmp_path)
    make_own_module()
    weights = Path("work_dirs") / "ms1mv3_r50" / "model.pt"
    make_backbone(weights)
    [training] = [words for words in in_blocks(text_of(page)) if words[1] == "train"]
    run_command(training, set())
    with own_module():
        names = run(page, [1, 2, 3], tmp_path, monkeypatch)
    assert names["loss"] > 0
    before, after = (torch.load(path, weights_only=True) for path in (weights, "work_dirs/tuned/model.pt"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["0.weight"], after["0.weight"])


@pytest.mark.mxnet
@pytest.mark.torch
@pytest.mark.onnx
@pytest.mark.usefixtures("mx")
@pytest.mark.filterwarnings("ignore")  # what PyTorch warns of while it exports
def test_the_page_on_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    make_own_module()
    make_network(tmp_path / "models" / "model")
    with own_module():
        names = run(MODELS, [0, 2, 3, 4, 5], tmp_path, monkeypatch, side=112)
        assert "default            AUC 0." in capsys.readouterr().out
        index = ft.index_rec("demo/train.rec")
        images = ft.Dataset("demo/train.rec").decode(index).pixels

        def embed(model: str | ft.Embedder) -> NDArray[np.float32]:
            embedder = ft.load_embedder(model) if isinstance(model, str) else model
            embedder.prepare(index)
            return embedder.embed(index, images)

        expected = embed(names["embedder"])  # the converted network after its training
        for spec in ("torch:mxnet:models/tuned,0", "mxnet:models/tuned,0", "onnx:models/tuned.onnx"):
            assert np.allclose(embed(spec), expected, rtol=0, atol=1e-4 * np.abs(expected).max()), spec
        assert not np.allclose(embed("mxnet:models/model,0"), expected, atol=1e-3)
        expected = embed("torch:mynet:small,weights=small-weights.pt")
        for spec in ("torch:small.pt2", "onnx:small.onnx"):
            assert np.allclose(embed(spec), expected, rtol=0, atol=1e-5), spec
        assert embed("python:mynet:Thumbnails").shape == (72, 192)
