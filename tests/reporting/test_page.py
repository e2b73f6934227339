"""The page: what it shows of what is given, that nothing leaves it, and that no text in it can be code."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from fasttriplet.auditing._findings import SCHEMA, digest
from fasttriplet.errors import OptionError
from fasttriplet.reporting._pictures import MOST_BYTES
from tests.reporting.conftest import Made
from tests.reporting.made import finding, one_of_each, write_audit, write_log
from tests.small_rec import identities, picture, write_images, write_rec

SECTIONS = ("dataset", "triplets", "run", "training", "verification", "audit")
LARGEST = 5_000_000  # bytes


class Elements(HTMLParser):
    """All elements of a page, as (name, attributes), and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(folder: Path, **given: Any) -> Elements:
    path = ft.report(folder / "page.html", overwrite=True, **given)
    return Elements(path.read_text(encoding="utf-8"))


def section(page: Elements, name: str) -> str:
    """The text of the page from a section's heading on."""
    titles = {"run": "The run"}
    return page.text.split(titles.get(name, name.capitalize()), 2)[-1]


# What is there


def test_all_of_it(made: Made, tmp_path: Path) -> None:
    page = page_of(tmp_path, **made.given)
    assert [one["id"] for one in page.all("section")] == list(SECTIONS)
    assert [one["href"] for one in page.all("a") if one.get("class") != "skip"] == [
        f"#{name}" for name in SECTIONS
    ]
    for said in (
        "72 images of 12 identities, 6 each.",
        f"{made.mined.summary.triplets:,} triplets.",
        "40 batches.",
        "The best accuracy on lfw.bin is 90.00%, after 40 batches.",
        "of 100 pairs of train.rec are judged correctly.",
        "6 findings about 7 images. 5 of them propose a change.",
        "nearest 4 of 5 are identity 1 (cosine 0.71), own identity 0.08",
        "Relabel to identity 1",
        "Relabel 2 images to identity 2",
        "Relabel to a new identity (999)",
        "Drop (harmless: kept unless you tick this)",
        "Genuine pairs that are farthest apart",
        "Pairs without a negative",
        "Negatives that occur most often",
        "Identities most often confused",
        "Images per identity (how many identities)",
        "waited for",
        "Learning rate",
    ):
        assert said in page.text, said
    assert page.text.count("Next") >= 3  # what to do stands on top of the sections
    assert (tmp_path / "page.html").stat().st_size < LARGEST


def test_values_beyond_a_chart_are_said_to_be_in_its_last_step(tmp_path: Path) -> None:
    said = "images; the last step counts larger ones, too"
    alike = write_rec(tmp_path / "alike.rec", identities(12, 6))
    assert said not in page_of(tmp_path, rec=alike).text
    one_is_large = identities(12, 2) | dict.fromkeys(range(100, 140), 12)
    assert said in page_of(tmp_path, rec=write_rec(tmp_path / "large.rec", one_is_large)).text


def test_any_part_is_enough(made: Made, tmp_path: Path) -> None:
    for part, given in made.given.items():
        page = page_of(tmp_path, **{part: given})
        named = {"rec": "dataset", "log": "training", "verify": "verification"}
        assert [one["id"] for one in page.all("section")] == [named.get(part, part)]
        assert ("--rec" in page.text) == (part in {"triplets", "audit"})  # to see the images
        assert bool(page.all("img")) == (part in {"rec", "verify"})
    with pytest.raises(OptionError, match="rec must be given, or another part"):
        ft.report(tmp_path / "empty.html")
    with pytest.raises(OptionError, match=r"out must end in \.html, not"):
        ft.report(made.rec, rec=made.rec, overwrite=True)


def test_the_same_again_and_only_with_overwrite(made: Made, tmp_path: Path) -> None:
    first = ft.report(tmp_path / "new" / "a.html", **made.given)
    second = ft.report(tmp_path / "b.html", **made.given)
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(FileExistsError):
        ft.report(first, rec=made.rec)
    assert first.read_bytes() == second.read_bytes()
    assert [*tmp_path.rglob("*unfinished*")] == []


def test_nothing_outside_is_named_and_all_can_be_read_aloud(made: Made, tmp_path: Path) -> None:
    page = page_of(tmp_path, **made.given)
    policy = next(
        one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attributes in page.found:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag  # the policy lets no browser use it
            if name in {"src", "href"}:
                assert str(value).startswith(("data:image/", "#")), (tag, value)
    images = page.all("img")
    assert len(images) > 100
    assert all(image["alt"] for image in images)
    assert any(str(image["alt"]).startswith("anchor: identity ") for image in images)
    for drawing in page.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    labelled = {one["for"] for one in page.all("label")}
    assert {one["id"] for one in page.all("input")} == labelled
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


# Hostile text

HOSTILE = """<img src=x onerror="alert(1)">'</script><script>alert(2)</script>&amp;\u202e\n"""


def test_no_text_can_become_code(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "<img src=x onerror=alert(3)>.rec", identities(4, 4))
    names = pl.DataFrame({"label": range(4), "folder": [f"{HOSTILE}{n}" for n in range(4)]})
    names.write_csv(rec.with_suffix(".identities.csv"))
    pl.DataFrame({"key": range(1, 17), "path": [f"{HOSTILE}.jpg"] * 16}).write_parquet(
        rec.with_suffix(".sources.parquet")
    )
    dataset = ft.Dataset(rec)
    rows = [row | {"reason": HOSTILE} for row in one_of_each(dataset)]
    log = [
        {"kind": "start", "batch": 0, "batches": 9, "framework": HOSTILE, "images": 1, "identities": 1,
         "settings": {"network": HOSTILE}},
        {"kind": "train", "batch": 1, "epoch": 0, "loss": 1.0},
        {"kind": "verification", "batch": 1, "pairs": HOSTILE, "accuracy": 0.9},
    ]  # fmt: skip
    ft.mine_rec(rec, out=tmp_path / "<b>t.parquet", margin=5, band="violating")
    page = page_of(
        tmp_path,
        rec=rec,
        audit=write_audit(tmp_path / "audit", dataset, rows),
        log=write_log(tmp_path / "log.jsonl", log),
        triplets=tmp_path / "<b>t.parquet",
    )
    assert page.text.count("alert(1)") > 10
    assert len(page.all("script")) == 1
    assert {"b", "x"}.isdisjoint(tag for tag, _ in page.found)
    for tag, attributes in page.found:
        assert not any(name.startswith("on") for name in attributes), tag
    assert "\u202e" not in page.text  # it would turn the text after it round
    assert "\\u202e\\n" in page.text
    assert any("alert(1)" in str(image["title"]) for image in page.all("img"))  # the source


def test_a_band_of_ones_own_and_what_chooses(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(6, 4))
    out = tmp_path / "t.parquet"
    ft.mine_rec(rec, out=out, band="d_an < 3", ranks=(1, None), fallback="farthest", triplets_per_anchor=2)
    text = page_of(tmp_path, rec=rec, triplets=out).text
    assert "d_an < 3." in text
    assert "1 to the last" in text
    assert "farthest" in text
    ft.mine_rec(rec, out=out, band="easy", margin=0, overwrite=True)
    assert "d_an >= d_ap + margin: beyond the margin" in page_of(tmp_path, rec=rec, triplets=out).text


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    rec = write_rec(folder / "caf\udce9.rec", identities(4, 4))
    pl.DataFrame({"key": [1], "path": ["a.jpg"]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(rec.with_suffix(".sources.parquet"))
    made = write_audit(tmp_path / "audit", ft.Dataset(rec), one_of_each(ft.Dataset(rec)))
    (folder / "audit").mkdir()
    (made / "suspects.parquet").rename(folder / "audit" / "suspects.parquet")
    path = ft.report(folder / "page.html", rec=rec, audit=folder / "audit")
    assert "caf\\udce9.rec" in path.read_text(encoding="utf-8")


# Pictures


def encoded(kind: str, side: int, noise: int = 255) -> bytes:
    pixels = np.random.default_rng(side).integers(0, noise, (side, side, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def shown(page: Elements) -> list[tuple[str, bytes]]:
    """Kind and content of each picture."""
    found = (re.fullmatch(r"data:image/(\w+);base64,(.*)", str(one["src"])) for one in page.all("img"))
    return [(one[1], base64.b64decode(one[2])) for one in found if one is not None]


def test_pictures_are_the_records_own_bytes_or_thumbnails(tmp_path: Path) -> None:
    images = [
        picture(0),
        encoded("PNG", 20),
        encoded("JPEG", 300),
        encoded("PNG", 200),
        picture(1),
        picture(2),
    ]
    page = page_of(tmp_path, rec=write_images(tmp_path / "a.rec", images))
    found = shown(page)
    assert len(found) == len(images)
    contents = [content for _, content in found]
    assert {images[0], images[1], images[4], images[5]} <= set(contents)
    assert all(len(content) <= MOST_BYTES for content in contents)
    sizes = sorted(Image.open(io.BytesIO(content)).size for content in contents)
    assert sizes == [(20, 20), (24, 24), (24, 24), (24, 24), (160, 160), (160, 160)]
    assert "20 x 20 (1)" in page.text


def test_pictures_that_cannot_be_decoded_are_placeholders(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(3, 4), damaged=frozenset({2, 7}))
    dataset = ft.Dataset(rec)
    rows = [finding(0, "bad-picture", 2, 0, score=1.0, reason="cannot be decoded")]
    page = page_of(tmp_path, rec=rec, audit=write_audit(tmp_path / "audit", dataset, rows))
    broken = [one for one in page.all("span") if "broken" in str(one.get("class"))]
    assert [str(one["aria-label"])[:18] for one in broken] == [
        "identity 0, key 2:", "identity 1, key 7:", "identity 0, key 2:",
    ]  # fmt: skip
    assert len(page.all("img")) == 10
    assert "2 problems found, below." in page.text
    assert "key 2: not an image" in page.text


@pytest.mark.parametrize("most", [0, 1, 40, 150, 400])
def test_there_are_no_more_pictures_than_asked_for(made: Made, tmp_path: Path, most: int) -> None:
    page = page_of(tmp_path, **made.given, pictures=most)
    assert len(page.all("img")) <= most
    assert len(page.all("img")) > most / 3 - 1
    assert [one["id"] for one in page.all("section")] == list(SECTIONS)


def test_the_largest_pictures_leave_the_page_below_5_mb(tmp_path: Path) -> None:
    """400 pictures of noise, of which each record has 30 kB."""
    content = [encoded("JPEG", 150 + at) for at in range(4)]
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key in range(200):
            writer.write(key, ft.IRHeader(0, float(key // 10), key, 0), content[key % 4])
    dataset = ft.Dataset(tmp_path / "a.rec")
    rows = [
        finding(at, "outlier", at, at // 10, evidence_keys=[(at + n) % 200 for n in range(1, 5)])
        for at in range(150)
    ]
    page = page_of(tmp_path, rec=dataset, audit=write_audit(tmp_path / "audit", dataset, rows))
    assert len(page.all("img")) > 300
    assert (tmp_path / "page.html").stat().st_size < LARGEST
    assert "of 150" in page.text
    assert "--pictures has room for more." in page.text


def test_source_paths_are_joined(made: Made, tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(12, 6))
    sources = pl.DataFrame({"key": [1, 2], "path": ["people/ann/1.jpg", None]})
    sources.write_parquet(rec.with_suffix(".sources.parquet"))
    page = page_of(tmp_path, rec=rec, audit=made.folder / "audit")
    titles = [str(image["title"]) for image in page.all("img")]
    assert "identity 0, key 1, from people/ann/1.jpg" in titles
    assert "identity 0, key 2" in titles
    assert "people/ann/1.jpg" in page.text  # beside the finding
    rec.with_suffix(".sources.parquet").write_bytes(b"damaged")
    assert "identity 0, key 1" in [str(image["title"]) for image in page_of(tmp_path, rec=rec).all("img")]


# Several files


def test_several_files(tmp_path: Path) -> None:
    recs = [write_rec(tmp_path / f"{name}.rec", identities(5, 6)) for name in "ab"]
    ft.mine_rec(recs, labels="separate", out=tmp_path / "t.parquet", margin=0.2)
    dataset = ft.Dataset(recs, labels="separate")
    rows = [finding(0, "outlier", 3, 7, file=1, evidence_keys=[4], evidence_files=[0])]
    audit = write_audit(tmp_path / "audit", dataset, rows)
    page = page_of(tmp_path, rec=recs, labels="separate", triplets=tmp_path / "t.parquet", audit=audit)
    assert "60 images of 10 identities" in page.text
    alts = [str(image["alt"]) for image in page.all("img")]
    assert "identity 5, b.rec, key 3" in alts
    assert "identity 0, a.rec, key 4" in alts
    with pytest.raises(ValueError, match=r"triplets must be of this dataset, and .*t\.parquet is of another"):
        page_of(tmp_path, rec=recs[0], triplets=tmp_path / "t.parquet")


# Other datasets, damage


def test_files_of_another_dataset_are_refused(made: Made, tmp_path: Path) -> None:
    fewer = write_rec(tmp_path / "fewer.rec", identities(5, 6))
    moved = write_rec(tmp_path / "moved.rec", {key: label + 1 for key, label in identities(12, 6).items()})
    pl.read_parquet(made.given["triplets"]).write_csv(tmp_path / "t.csv")  # which has no fingerprint
    for rec, why in ((fewer, "is not in it"), (moved, "the label of key")):
        with pytest.raises(ValueError, match=rf"t\.csv was mined from another dataset than .*{why}"):
            ft.report(tmp_path / "page.html", rec=rec, triplets=tmp_path / "t.csv")
        for part in ("triplets", "audit"):
            with pytest.raises(ValueError, match=rf"^{part} must be of this dataset, and .* of another one"):
                ft.report(tmp_path / "page.html", rec=rec, **{part: made.given[part]})
    assert not (tmp_path / "page.html").exists()


def test_what_a_table_says_about_itself_is_shown(made: Made, tmp_path: Path) -> None:
    said = {
        "dataset": made.dataset.fingerprint, "seed": 7, "model": "torch:net.pt2",
        "options": {"band": "semihard", "margin": 0.2, "metric": "cosine", "pairs": "ordered"},
    }  # fmt: skip
    metadata = {"fasttriplet": json.dumps(said)}
    pl.read_parquet(made.given["triplets"]).write_parquet(tmp_path / "t.parquet", metadata=metadata)
    page = page_of(tmp_path, rec=made.rec, triplets=tmp_path / "t.parquet")
    for words in (
        "semihard:",
        "d_ap + 0.2",
        "margin 0.2",
        "1 - cosine",
        "torch:net.pt2",
        "ordered",
        "margin of 0.2",
    ):
        assert words in page.text, words
    assert "does not say by which rule" not in page.text


@pytest.mark.parametrize("ending", ["csv", "jsonl", "ndjson", "arrow", "feather"])
def test_all_formats_of_triplets_show_the_same(made: Made, tmp_path: Path, ending: str) -> None:
    found = ft.mine_rec(made.rec, out=tmp_path / f"t.{ending}", margin=0.2)
    assert found.summary.triplets == made.mined.summary.triplets
    pl.read_parquet(made.given["triplets"]).write_parquet(tmp_path / "t.parquet")  # without metadata
    pages = [page_of(tmp_path, rec=made.rec, triplets=tmp_path / f"t.{end}") for end in (ending, "parquet")]
    assert shown(pages[0]) == shown(pages[1])
    assert pages[0].text.replace(f"t.{ending}", "t.parquet") == pages[1].text


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


DAMAGED = [
    ("triplets", "t.parquet", b"", "t.parquet is empty, not a table of triplets"),
    ("triplets", "t.parquet", b"PAR1 or not", "t.parquet is not a table of triplets"),
    ("triplets", "t.parquet", b"\xff\xd8\xff", "t.parquet is a single JPEG, not a table of triplets"),
    (
        "triplets",
        "t.csv",
        b"a,b\n1,2\n",
        "t.csv: a table of triplets has the columns anchor_key, .* not found",
    ),
    ("triplets", "t.txt", b"x", "triplets must end in .parquet, .csv, .*t.txt"),
    ("triplets", "t.jsonl", b"{", "t.jsonl is not a table of triplets"),
    ("audit", "suspects.parquet", b"x", "suspects.parquet is not a table of suspects"),
    ("log", "a.jsonl", b"", "a.jsonl is empty, not the log of a training"),
    ("log", "a.jsonl", b"text\n", "a.jsonl is not the log of a training"),
    ("log", "a.jsonl", b'{"kind": "start"}\nx\n', "a.jsonl is not the log .*: line 2 is not JSON"),
    ("log", "a.jsonl", lines([1]), r"line 1 is \[1\]"),
    ("log", "a.jsonl", lines({"loss": 1}), "a.jsonl is not the log of a training .*'kind' is missing"),
    (
        "log",
        "a.jsonl",
        lines({"kind": "train", "batch": "x", "epoch": 0}, {"kind": "start"}),
        "a.jsonl is not the log",
    ),
    (
        "verify",
        "v.json",
        b"{}",
        "v.json is not what `fasttriplet verify --json` printed: 'results' is missing",
    ),
    ("verify", "v.json", b"[]", "v.json is not what `fasttriplet verify --json` printed"),
    ("verify", "v.json", lines({"results": [{}], "model": ""}), "v.json is not what .* is missing"),
    ("verify", "v.json", lines({"results": 3, "model": ""}), "v.json is not what"),
    ("verify", "v.json", b"[" * 200_000, "v.json is not what `fasttriplet verify --json` printed"),
    ("log", "a.jsonl", b"[" * 200_000, "a.jsonl is not the log of a training"),
    ("run", "r.json", b"\x80", "r.json is not what `fasttriplet mine --json` printed"),
    ("run", "r.json", lines({"seconds": {"total": "soon"}}), "r.json is not what .*could not convert"),
    ("run", "r.json", lines({"seconds": {}}), "r.json is not what .*'total' is missing"),
]


@pytest.mark.parametrize(("part", "name", "content", "message"), DAMAGED)
def test_damaged_files_are_one_sentence(
    part: str, name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ft.report(tmp_path / "page.html", **{part: tmp_path / name})  # type: ignore[arg-type]
    assert not (tmp_path / "page.html").exists()


def test_bytes_of_a_table_that_changed(made: Made, tmp_path: Path) -> None:
    """Whatever damage there is, the page is written or the file is named."""
    content = made.given["triplets"].read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "t.parquet"
    for _ in range(60):
        changed = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            ft.report(tmp_path / "page.html", triplets=path, overwrite=True)
        except (ValueError, OSError) as error:
            assert "t.parquet" in str(error)


def test_a_log_that_is_being_written(made: Made, tmp_path: Path) -> None:
    content = made.given["log"].read_bytes()
    (tmp_path / "a.jsonl").write_bytes(content + b'{"kind": "tra')
    assert "40 batches." in page_of(tmp_path, log=tmp_path / "a.jsonl").text
    (tmp_path / "b.jsonl").write_bytes(content.splitlines()[0] + b"\n")
    assert "No step has been logged yet." in page_of(tmp_path, log=tmp_path / "b.jsonl").text


def test_not_a_number(tmp_path: Path) -> None:
    records = [
        {"kind": "train", "batch": at, "epoch": 0, "loss": float("nan") if at % 2 else None, "norm": 1.0}
        for at in range(1, 5)
    ]
    assert "Norm" in page_of(tmp_path, log=write_log(tmp_path / "log.jsonl", records)).text


# Datasets that give little


def test_a_single_identity(tmp_path: Path) -> None:
    page = page_of(tmp_path, rec=write_rec(tmp_path / "a.rec", identities(1, 5)))
    assert "A single identity has no negatives." in page.text
    assert "Add other identities, or check the labels." in page.text


def test_ten_images(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(5, 2))
    ft.mine_rec(rec, band="any", out=tmp_path / "t.parquet")
    page = page_of(tmp_path, rec=rec, triplets=tmp_path / "t.parquet")
    assert "10 images of 5 identities, 2 each." in page.text
    assert "5 triplets." in page.text


def test_100_000_identities_of_one_image(tmp_path: Path) -> None:
    content = picture(1)
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key in range(100_000):
            writer.write(key, ft.IRHeader(0, float(key), key, 0), content)
    started = time.perf_counter()
    page = page_of(tmp_path, rec=tmp_path / "a.rec")
    assert time.perf_counter() - started < 30  # it takes one second
    assert "100,000 images of 100,000 identities, 1 each. Each identity has one image" in page.text


def test_no_triplets(made: Made, tmp_path: Path) -> None:
    pl.read_parquet(made.given["triplets"]).clear().write_parquet(tmp_path / "t.parquet")
    page = page_of(tmp_path, rec=made.rec, triplets=tmp_path / "t.parquet")
    assert "The table has no triplets." in page.text


def test_no_findings(made: Made, tmp_path: Path) -> None:
    page = page_of(tmp_path, rec=made.rec, audit=write_audit(tmp_path / "audit", made.dataset, []))
    assert "Nothing was found." in page.text
    assert not page.all("button")


def test_a_million_triplets_take_seconds(made: Made, tmp_path: Path) -> None:
    count = 1_000_000
    rng = np.random.default_rng(0)
    labels, keys = made.dataset.labels, made.dataset.keys
    anchor = rng.integers(0, 72, count)
    negative = (anchor + 6 + rng.integers(0, 60, count)) % 72
    positive = anchor // 6 * 6 + (anchor + rng.integers(1, 6, count)) % 6
    d_ap = rng.random(count)
    pl.DataFrame({
        "epoch": np.zeros(count, np.int32), "bag": np.zeros(count, np.int32), "anchor_key": keys[anchor],
        "positive_key": keys[positive], "negative_key": keys[negative], "anchor_label": labels[anchor],
        "negative_label": labels[negative], "d_ap": d_ap, "d_an": d_ap + rng.random(count) / 5,
    }).write_parquet(tmp_path / "t.parquet")  # fmt: skip
    started = time.perf_counter()
    page = page_of(tmp_path, rec=made.rec, triplets=tmp_path / "t.parquet")
    assert time.perf_counter() - started < 30  # it takes three seconds
    assert "1,000,000 triplets." in page.text


# Decisions


def test_what_the_page_saves_names_the_findings_and_the_dataset(made: Made, tmp_path: Path) -> None:
    page = page_of(tmp_path, rec=made.rec, audit=made.given["audit"])
    saving = next(one for one in page.all("div") if one.get("id") == "decisions")
    suspects = pl.read_parquet(made.given["audit"] / "suspects.parquet")
    assert suspects.schema == SCHEMA
    assert json.loads(str(saving["data-decisions"])) == {
        "fasttriplet": "decisions",
        "version": 1,
        "dataset": made.dataset.fingerprint,
        "suspects": digest(suspects),
        "decisions": [],
    }
    boxes = {int(str(one["data-finding"])): one for one in page.all("input")}
    assert boxes.keys() == set(suspects["finding"])
    default = dict(zip(suspects["finding"], suspects["action"], strict=True))
    assert {n: box["data-action"] for n, box in boxes.items()} == default
    assert {n for n, box in boxes.items() if "checked" in box} == {n for n in default if default[n] != "keep"}
    command = " ".join(page.text.replace("\\\n", " ").split())
    given = f"--rec {made.rec} --suspects {made.given['audit'] / 'suspects.parquet'}"
    assert f"fasttriplet clean {given} --decisions decisions.json --out train-clean.rec" in command
