"""What `ft.audit` finds of known noise, beside cleanlab.

Two datasets: 2,375 faces of LFW with the embeddings of InsightFace's MobileFaceNet (model-y1), and the 106
characters of Omniglot that its network was not trained on (`--model`, or one that is trained first, as
`bench_training.py` does it last). Into a copy of each, for several seeds: 5 % of the images are moved to
another identity; 5 identities are split under two labels; 5 pairs of identities are put together; 20
pictures are copied to another identity, shifted by a pixel and encoded again at quality 70; 5 uniform and 5
undecodable pictures are added. All kinds of noise are there at once.

What an audit finds in a dataset as it is was looked at, and counts as neither right nor wrong: see
`LOOKED_AT` for the faces. A finding about them that is not in that list is false. Characters that the network
cannot tell apart are listed by each run.

cleanlab gets the same embeddings of all images but the added ones, and probabilities as it recommends: of a
classifier that has not seen the image, by cross-validation. Four setups are tried, two classifiers and two
scores, and all are shown. First its images in the order of its scores are taken until as many moved ones are
found as the audit found, which needs the truth; then what it decides by itself (`find_label_issues`). To
compare: `pip install cleanlab`. Without it only the audit runs.

Last, time and memory of what embeddings say, for rows of 512 numbers that were drawn and are mapped from a
file: 10 images of each identity, 5 % of them with the label of another. Memory is without the mapped file.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
from data import FACES, SHARED, identities, separated_rows
from fasttriplet.auditing._audit import audit
from fasttriplet.auditing._examine import examine
from fasttriplet.embedders import Embedder
from harness import Bench
from omniglot import BATCHES, trained, write_plain, write_varied
from planted import Planted, Remembering, Score, plant, scores
from process import Way
from tables import Cell, Table

Y1 = f"torch:mxnet:{SHARED / 'model-y1' / 'model'},0"
SIDE = 64
EACH = 10  # drawn images of an identity
# What the audit finds in the faces as they are, by key, and what one sees.
LOOKED_AT = {
    1716: "mislabelled: the face of identity 90",
    1903: "mislabelled: the face of identity 0",
    340: "outlier: cut out between two faces",
    1657: "outlier: another man, in a headdress",
    2220: "outlier: a profile, turned away",
}
bench = Bench(__file__, __doc__, packages=["torch", "cleanlab", "scikit-learn"])
bench.option("--seeds", 5, "of the noise, each in both datasets", quick=1)
bench.option("--first-seed", 100, "the first of them; thresholds were chosen on seeds below 100")
bench.option("--faces", True, "the faces")
bench.option(
    "--shares", [0.01, 0.1, 0.2, 0.4], "of the faces that are moved, without other noise", quick=[0.1]
)
bench.option("--characters", True, "the characters, too", quick=False)
bench.option("--model", None, "spec of a network for the characters, such as torch:PREFIX", kind=str)
bench.option("--batches", BATCHES, "of its training, if no model is given", quick=20)
bench.option("--variants", 8, "of each image that it is trained on", quick=1)
bench.option("--cleanlab", True, "compare with cleanlab, if it is installed", quick=False)
bench.option("--sizes", [20_000, 100_000, 300_000], "images that are drawn", quick=[1000])

STEPS = ("dividing identities", "comparing identities", "comparing images", "gathering evidence")


@dataclass
class Trial:
    """One seed: what was found of the noise, by the audit and by each setup of cleanlab."""

    score: dict[str, Score]
    peers: dict[str, tuple[float, Score]]
    seconds: float


def trials(
    source: Path, embedder: Embedder, known: pl.DataFrame, options: Namespace, folder: Path
) -> Iterator[Trial]:
    """Plant, audit, count."""
    spare = set(
        known.filter(pl.col("kind").is_in(["mislabelled", "outlier", "bad-picture"]))["key"].to_list()
    )
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        noisy = plant(source, folder / f"{seed}.rec", seed, spare=spare)
        began = time.perf_counter()
        found = audit(noisy.rec, model=embedder, out=folder / str(seed))
        seconds = time.perf_counter() - began
        score = scores(noisy, found.suspects, known)
        peers = {}
        if options.cleanlab and find_spec("cleanlab"):
            peers = of_trial(noisy, folder / str(seed), spare, score["moved"].found)
        yield Trial(score, peers, seconds)


def as_it_is(source: Path, embedder: Embedder, folder: Path) -> pl.DataFrame:
    """What an audit finds without noise."""
    return audit(source, model=embedder, out=folder / "as-it-is").suspects


def table(title: str, done: list[Trial]) -> Table:
    """What was found of each kind, over all seeds."""
    found = Table(title)
    for kind in done[0].score:
        of_kind = [trial.score[kind] for trial in done]
        all_seeds = Score(
            *(sum(getattr(one, name) for one in of_kind) for name in ("planted", "found", "false"))
        )
        found.rows[NAMES[kind]] = {
            "planted": all_seeds.planted,
            "found": all_seeds.found,
            "false": all_seeds.false,
            "recall": all_seeds.recall,
            "precision": all_seeds.precision,
            "lowest recall": min(one.recall for one in of_kind),
            "lowest precision": min(one.precision for one in of_kind),
            "most false": max(one.false for one in of_kind),
        }
    return found


NAMES = {
    "moved": "images moved",
    "suggested": "their true label suggested",
    "same person": "identities split",
    "two people": "pairs put together",
    "copies": "pictures copied",
    "bad pictures": "bad pictures",
}


def peer_table(done: list[Trial]) -> Table:
    """The audit beside cleanlab's setups, the best first."""
    found = Table("Images moved, beside cleanlab")
    ours = [trial.score["moved"] for trial in done]
    found.rows["`ft.audit`"] = row_of([(one.precision, one) for one in ours])
    if not done[0].peers:
        found.rows["cleanlab"] = {AT_RECALL: "not installed"}
        return found
    rows = {f"cleanlab, {name}": row_of([trial.peers[name] for trial in done]) for name in done[0].peers}
    order = sorted(rows, key=lambda name: (rows[name][AT_RECALL], rows[name]["own precision"]), reverse=True)
    found.rows |= {name: rows[name] for name in order}
    return found


AT_RECALL = "precision at the audit's recall"


def row_of(of_seeds: list[tuple[float, Score]]) -> dict[str, Cell]:
    """Means over the seeds."""
    ranked, decided = zip(*of_seeds, strict=True)
    return {
        AT_RECALL: float(np.mean(ranked)),
        "lowest": min(ranked),
        "own recall": float(np.mean([one.recall for one in decided])),
        "own precision": float(np.mean([one.precision for one in decided])),
    }


def of_trial(noisy: Planted, out: Path, spare: set[int], enough: int) -> dict[str, tuple[float, Score]]:
    """What cleanlab finds in a dataset with noise, without the images that were added."""
    index = ft.index_rec(noisy.rec, cache=False).sort("key")
    keys = index["key"].to_numpy()
    given = ~np.isin(keys, [*noisy.copied, *noisy.bad])
    rows, labels, keys = np.load(out / "embeddings.npy")[given], index["label"].to_numpy()[given], keys[given]
    counts = ~np.isin(keys, [*spare, *noisy.copied.values()])
    return beside_cleanlab(rows, labels, np.isin(keys, [*noisy.moved]), counts, enough)


def beside_cleanlab(
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    moved: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    enough: int,
) -> dict[str, tuple[float, Score]]:
    """For each setup its precision where it has found `enough` moved images, and what it decides by itself.

    `counts` has the images that are either right or wrong.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415
    from cleanlab.rank import get_label_quality_scores  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, labels = np.unique(labels, return_inverse=True)
    classifiers: dict[str, Any] = {
        "logistic regression": LogisticRegression(C=10, max_iter=300),
        "10 nearest neighbours": KNeighborsClassifier(10, metric="cosine", weights="distance"),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    found = {}
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels with fewer images than folds, and of iterations
            probabilities = cross_val_predict(classifier, rows, labels, cv=folds, method="predict_proba")
            issues = find_label_issues(labels, probabilities, n_jobs=1) & counts
        decided = Score(int(moved.sum()), int((issues & moved).sum()), int((issues & ~moved).sum()))
        for method in ("self_confidence", "normalized_margin"):
            score = get_label_quality_scores(labels, probabilities, method=method)
            order = np.argsort(score, kind="stable")
            hits = moved[order][counts[order]]
            taken = np.flatnonzero(np.cumsum(hits) >= enough)[0] + 1
            found[f"{name}, {method.replace('_', ' ')}"] = (enough / float(taken), decided)
    return found


def shares(options: Namespace) -> Iterator[Table]:
    """More and fewer of the faces moved, and no other noise: what embeddings say, beside cleanlab."""
    index = ft.index_rec(FACES, cache=False).sort("key")
    keys, true, rows = (
        index["key"].to_numpy(),
        index["label"].to_numpy(),
        np.load(FACES.with_name("emb_a.npy")),
    )
    free = np.flatnonzero(~np.isin(keys, [*LOOKED_AT]))
    found = Table("Faces, of which other shares are moved")
    for share in options.shares:
        rng = np.random.default_rng(options.first_seed)
        moved = np.zeros(len(keys), bool)
        moved[rng.permutation(free)[: round(share * len(keys))]] = True
        labels = np.where(moved, (true + rng.integers(1, true.max() + 1, len(true))) % (true.max() + 1), true)
        suspects = examine(rows, labels, keys).suspects.filter(pl.col("kind") == "mislabelled")
        wrong = np.isin(keys, suspects["key"].to_numpy()) & ~np.isin(keys, [*LOOKED_AT])
        ours = Score(int(moved.sum()), int((wrong & moved).sum()), int((wrong & ~moved).sum()))
        cells = found.rows.setdefault(f"{share:.0%}", {"recall": ours.recall, "precision": ours.precision})
        if options.cleanlab and find_spec("cleanlab"):
            counts = np.isin(np.arange(len(keys)), free)
            peers = beside_cleanlab(rows, labels, moved, counts, ours.found)
            best = max(peers.values(), key=lambda peer: peer[0])
            decided = max((peer for _, peer in peers.values()), key=lambda one: one.recall + one.precision)
            cells |= {
                "cleanlab's best precision at that recall": best[0],
                "cleanlab's own recall": decided.recall,
                "own precision": decided.precision,
            }
    yield found


def findings(title: str, known: pl.DataFrame, seen: Callable[[dict[str, Any]], str]) -> Table:
    """What an audit finds without noise, one line per finding."""
    found = Table(title)
    for row in known.unique("finding", keep="first").sort("finding").iter_rows(named=True):
        suggested = row["suggested_label"]
        cells: dict[str, Cell] = {"identity": row["label"], "suggested": suggested, "score": row["score"]}
        found.rows[f"{row['kind']}, key {row['key']}"] = cells | {"looked at": seen(row)}
    return found


def faces(options: Namespace, folder: Path) -> Iterator[Table]:
    if not FACES.is_file():
        raise SystemExit(f"no file {FACES}; leave out --faces")
    keys = ft.index_rec(FACES, cache=False).sort("key")["key"].to_list()
    vectors = np.load(FACES.with_name("emb_a.npy"))
    embedder = Remembering(ft.load_embedder(Y1, devices="cpu"), dict(zip(keys, vectors, strict=True)))
    known = as_it_is(FACES, embedder, folder)
    harmful = known.filter(pl.col("action") != "keep")
    yield findings(
        "Faces as they are", harmful, lambda row: LOOKED_AT.get(row["key"], "not in the list: false")
    )
    looked_at = known.filter(pl.col("key").is_in([*LOOKED_AT]) | (pl.col("action") == "keep"))
    done = list(trials(FACES, embedder, looked_at, options, folder))
    yield table(f"Faces, {options.seeds} seeds", done)
    yield peer_table(done)
    yield from shares(options)
    yield seconds(done)


def characters(options: Namespace, folder: Path) -> Iterator[Table]:
    _, unseen = write_plain(folder, SIDE)
    spec = options.model
    if spec is None:
        rec = write_varied(folder, SIDE, options.variants)
        spec, _ = trained(rec, folder / "network", options.batches, seed=0)
    network = ft.load_embedder(spec, devices="cpu")
    index = ft.index_rec(unseen, cache=False).sort("key")
    vectors = network.embed(index, ft.RecordFile(unseen).decode(index["key"].to_numpy()))
    embedder = Remembering(network, dict(zip(index["key"].to_list(), vectors, strict=True)))
    known = as_it_is(unseen, embedder, folder)
    harmful = known.filter(pl.col("action") != "keep")
    yield findings("Characters as they are", harmful, lambda _: "neither")
    done = list(trials(unseen, embedder, known, options, folder))
    yield table(f"Characters, {options.seeds} seeds", done)
    yield peer_table(done)
    yield seconds(done)


def seconds(done: list[Trial]) -> Table:
    each = [trial.seconds for trial in done]
    return Table(
        "An audit, embeddings known", {"seconds": {"median": float(np.median(each)), "most": max(each)}}
    )


def ways_of_size(images: int, rows: str) -> dict[str, Way]:
    """Examine drawn embeddings, and say how long each step took."""
    embeddings = np.load(rows, mmap_mode="r")[:images]
    labels = identities(images, EACH)
    wrong = np.random.default_rng(0).permutation(images)[: images // 20]
    labels[wrong] = labels[np.roll(wrong, 1)]
    ends = dict.fromkeys(STEPS, 0.0)

    def call() -> float:
        began = time.perf_counter()
        examine(
            embeddings,
            labels,
            np.arange(images),
            progress=lambda step, *_: ends.__setitem__(step, time.perf_counter() - began),
        )
        return began

    def facts(_: float) -> dict[str, float]:
        starts = [0.0, *ends.values()]
        return {step: end - start for (step, end), start in zip(ends.items(), starts, strict=False)}

    return {"examine": Way(call, facts=facts)}


def sizes(options: Namespace, folder: Path) -> Iterator[Table]:
    found = Table("What embeddings of 512 numbers say: seconds, and megabytes")
    path = folder / "rows.npy"
    np.save(path, separated_rows(max(options.sizes), 512, EACH))
    for images in options.sizes:
        title = f"{images:,} images"
        took = bench.measure(
            ways_of_size,
            title,
            rounds=1,
            warm_up=False,
            fresh=True,
            anonymous=True,
            images=images,
            rows=str(path),
        )["examine"]
        found.rows[title] = {"seconds": took.best, "MB": took.added} | took.facts
    yield found


def tables(options: Namespace) -> Iterator[Table]:
    sys.path.insert(0, str(Path(__file__).parent))  # where the characters' network is
    for wanted, of in (
        (options.faces, faces),
        (options.characters, characters),
        (options.sizes, sizes),
    ):
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                yield from of(options, Path(folder))


if __name__ == "__main__":
    bench.main(tables)
