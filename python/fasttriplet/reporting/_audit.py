"""The section on an audit: galleries of findings, each with its evidence and a box to untick it."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._contents import read_file
from fasttriplet._metadata import metadata_of
from fasttriplet._words import counted
from fasttriplet.auditing._findings import IDENTITIES, KINDS, SCHEMA, digest
from fasttriplet.dataset._tables import check_dataset
from fasttriplet.reporting._html import (
    Markup,
    code,
    element,
    escaped,
    facts,
    joined,
    sentences,
    table,
    titled,
)
from fasttriplet.reporting._page import Section
from fasttriplet.reporting._pictures import Album
from fasttriplet.reporting._tables import reading, typed

_SIDE = 4  # pictures of a finding, and as many of its evidence
_UNSEEN = 100  # findings of a kind that are listed where there are no pictures
_TITLES = {
    "mislabelled": (
        "Mislabelled images",
        "Their neighbours agree on another identity, and they do not fit their own.",
    ),
    "outlier": (
        "Outliers",
        "They fit neither their identity nor any other: another person, a bad crop, or no face.",
    ),
    "same-person": (
        "One person under several labels",
        "Images of two identities that are as near as those of one.",
    ),
    "two-people": (
        "Several people under one label",
        "Images of one identity that fall into separate groups.",
    ),
    "duplicate": ("Duplicates", "The same picture again: harmful across identities, harmless within one."),
    "bad-picture": ("Bad pictures", "They cannot be decoded, or show next to nothing."),
}
_WIDEST = 12  # identities in the table of those that are spread most


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit wrote to its folder.

    Attributes
    ----------
    path : Path
        The table of suspects.
    suspects : pl.DataFrame
    identities : pl.DataFrame or None
        None if its table is not there.
    said : dict
        What the table of suspects says about itself.
    """

    path: Path
    suspects: pl.DataFrame
    identities: pl.DataFrame | None
    said: Mapping[str, Any]

    def check(self, album: Album) -> None:
        """Raise a ValueError if this is an audit of another dataset than the album's."""
        check_dataset("audit", str(self.path), self.said, album.dataset)
        rows = album.rows(self.suspects["key"].to_numpy(), self.suspects["file"].to_numpy())
        for at in np.flatnonzero(rows < 0)[:1]:
            raise ValueError(
                f"{self.path} was made from another dataset than {', '.join(map(str, album.dataset.paths))}: "
                f"the key {self.suspects['key'][int(at)]} is not in it; give the .rec files that were audited"
            )


def read(folder: Path) -> Audited:
    """Read the tables of an audit; `folder` may also be that of suspects itself."""
    path = folder / "suspects.parquet" if folder.is_dir() else folder
    suspects, said = _table(path, SCHEMA, "a table of suspects")
    if unknown := set(suspects["kind"].unique()) - set(KINDS):
        raise ValueError(f"{path}: {unknown.pop()!r} is not a kind of finding; it has {', '.join(KINDS)}")
    beside = path.with_name("identities.parquet")
    identities = _table(beside, IDENTITIES, "a table of identities")[0] if beside.exists() else None
    return Audited(path, suspects, identities, said)


def _table(path: Path, schema: pl.Schema, what: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read a table, and what it says about itself."""
    with reading(path, what):
        content = io.BytesIO(read_file(path, what))  # Polars opens names in UTF-8 only
        return typed(pl.read_parquet(content).lazy(), schema, path, what).collect(), (
            metadata_of(content, str(path)) or {}
        )


def section(audited: Audited, album: Album | None, most: int) -> Section:
    """Draw the section, with at most this many pictures."""
    findings = (
        audited.suspects.group_by("finding")
        .agg(
            kind=pl.col("kind").first(),
            score=pl.col("score").max(),
            images=pl.len(),
            proposes=(pl.col("action") != "keep").any(),
            pictures=pl.min_horizontal(pl.len(), _SIDE)
            + pl.min_horizontal(pl.col("evidence_keys").list.len().sum(), _SIDE),
        )
        .sort("score", "finding", descending=[True, False])
    )
    by_kind = {kind: findings.filter(kind=kind) for kind in KINDS if kind in findings["kind"]}
    room = most if album is not None else None
    shown = _shares({kind: of["pictures"].to_list() for kind, of in by_kind.items()}, room)
    parts = [
        _gallery(kind, audited.suspects, of["finding"].head(shown[kind]).to_list(), of.height, album)
        for kind, of in by_kind.items()
    ]
    rows: dict[str, object] = {
        _TITLES[kind][0]: f"{counted(of.height, 'finding')}, {counted(int(of['images'].sum()), 'image')}"
        for kind, of in by_kind.items()
    }
    saving = _saving(audited, album) if by_kind else None
    body = joined(facts(rows), *parts, _widest(audited, album), _how(audited.said), saving)
    return Section("audit", "Audit", *_says(findings), body)


def _says(findings: pl.DataFrame) -> tuple[Markup, list[Markup]]:
    if findings.is_empty():
        return Markup("Nothing was found."), []
    said = f"{counted(findings.height, 'finding')} about {counted(int(findings['images'].sum()), 'image')}."
    proposed = int(findings["proposes"].sum())
    if not proposed:
        return sentences(said, "All of them are harmless."), []
    todo = Markup(
        "Untick what is wrong, save the decisions at the end of this part, and run the command there."
    )
    return sentences(said, f"{proposed:,} of them propose a change."), [todo]


def _how(said: Mapping[str, Any]) -> Markup | None:
    """What embedded the images, and from where on something is a finding."""
    decided = said.get("decided_by")
    if not isinstance(decided, list) or not decided:
        return None
    says = sentences(f"The embeddings are from {said['model']}.") if said.get("model") else None
    rows: list[list[object]] = [[what, threshold] for what, threshold in decided]
    return titled("What decided", table("Thresholds", ["finding", "threshold"], rows), says=says)


def _shares(pictures: Mapping[str, list[int]], room: int | None) -> dict[str, int]:
    """How many findings of each kind are shown, by how many pictures each of them takes.

    Kinds that need little room leave it to the rest. Without pictures (None) the first hundred are listed.
    """
    if room is None:
        return {kind: min(len(each), _UNSEEN) for kind, each in pictures.items()}
    shown = {}
    for place, (kind, each) in enumerate(sorted(pictures.items(), key=lambda item: sum(item[1]))):
        share = room // (len(pictures) - place)
        shown[kind] = int(np.searchsorted(np.cumsum(each), share, side="right"))
        room -= sum(each[: shown[kind]])
    return shown


def _action(finding: pl.DataFrame) -> str:
    """What is done about a finding unless decided otherwise."""
    return next((action for action in finding["action"] if action != "keep"), "keep")


def _evidence(finding: pl.DataFrame) -> tuple[list[int], list[int]]:
    """Keys and files of the first images to look at beside those of a finding."""
    keys, files = (
        finding[name].explode().drop_nulls().to_list() for name in ("evidence_keys", "evidence_files")
    )
    if len(files) < len(keys):
        files += [0] * (len(keys) - len(files))
    own = set(zip(finding["key"], finding["file"], strict=True))
    different = [image for image in dict.fromkeys(zip(keys, files, strict=False)) if image not in own][:_SIDE]
    return [key for key, _ in different], [file for _, file in different]


def _gallery(kind: str, suspects: pl.DataFrame, shown: list[int], in_all: int, album: Album | None) -> Markup:
    title, says = map(escaped, _TITLES[kind])
    rows = suspects.filter(pl.col("finding").is_in(shown)).sort("file", "key")
    of_finding = {finding: some for (finding,), some in rows.group_by("finding", maintain_order=True)}
    cards = [_card(kind, of_finding[finding], album) for finding in shown]
    count = f"{in_all:,}"
    if len(shown) < in_all:
        count = f"{len(shown):,} of {in_all:,}"
        says = sentences(says, "The surest are shown;", code("--pictures"), "has room for more.")
    buttons = element(
        "p",
        element("button", "Tick all", type="button", data_all=kind),
        element("button", "Untick all", type="button", data_none=kind),
        class_="buttons",
    )
    gallery = element("div", *cards, class_="findings")
    return titled(f"{title} ({count})", buttons if cards else None, gallery, says=says)


def _places(album: Album, keys: Sequence[int], files: Sequence[int]) -> NDArray[np.int64]:
    return album.rows(np.array(keys, np.int64), np.array(files, np.uint32))


def _card(kind: str, finding: pl.DataFrame, album: Album | None) -> Markup:
    first = finding.row(int(finding["score"].arg_max() or 0), named=True)
    number, action = int(first["finding"]), _action(finding)
    name = f"finding-{number}"
    box = element(
        "input",
        type="checkbox",
        id=name,
        data_finding=number,
        data_kind=kind,
        data_action=action,
        data_other="keep" if action != "keep" else "drop",
        checked=action != "keep",
    )
    label = element("label", box, element("span", _proposal(finding, action, album)), for_=name)
    parts: list[object] = [label]
    if album is not None:
        suspects = _places(album, finding["key"].to_list()[:_SIDE], finding["file"].to_list()[:_SIDE])
        evidence = _places(album, *_evidence(finding))
        album.look_up(np.concatenate([suspects, evidence]))
        parts.append(
            element(
                "div",
                _side("suspects", suspects, finding.height, album),
                _side("evidence", evidence, len(evidence), album) if len(evidence) else None,
                class_="beside",
            )
        )
    where = ", ".join(f"key {key}" for key in finding["key"].to_list()[:_SIDE])
    if finding.height > _SIDE:
        where += f" and {finding.height - _SIDE:,} more"
    source = album and album.source(int(_places(album, [first["key"]], [first["file"]])[0]))
    caption = [
        element("span", first["reason"], class_="reason"),
        element("span", f"score {first['score']:.2f}, {where}", class_="where"),
        element("span", source, class_="where") if source else None,
    ]
    return element(
        "article",
        *parts,
        element("p", *caption, class_="caption"),
        class_="finding",
        aria_label=f"finding {number}",
    )


def _side(kind: str, places: NDArray[np.int64], of: int, album: Album) -> Markup:
    """Pictures of one side of a card, with a heading."""
    pictures = [
        album.show(place, kind) if place >= 0 else element("span", "not in the dataset", class_="broken")
        for place in places.tolist()
    ]
    people = list(dict.fromkeys(int(album.dataset.labels[place]) for place in places.tolist() if place >= 0))
    names = album.person(people[0]) if len(people) == 1 else counted(len(people), "identity")
    more = f", {len(places)} of {of:,} images" if of > len(places) else ""
    heading = f"{'found' if kind == 'suspects' else 'beside it'}: {names}{more}"
    return element(
        "div",
        element("span", heading, class_="side-name"),
        element("div", *pictures, class_="strip"),
        class_=f"side {kind}",
    )


def _proposal(finding: pl.DataFrame, action: str, album: Album | None) -> str:
    """What ticking the box does, in words."""
    images = "" if finding.height == 1 else f" {counted(finding.height, 'image')}"
    if action == "relabel":
        labels = finding["suggested_label"].drop_nulls().unique().to_list()
        if len(labels) == 1:
            person = f"identity {labels[0]}" if album is None else album.person(labels[0])
            return f"Relabel{images} to {person}"
        return f"Relabel{images}"
    return f"Drop{images}" + ("" if action == "drop" else " (harmless: kept unless you tick this)")


def _widest(audited: Audited, album: Album | None) -> Markup | None:
    """The identities whose images are farthest apart: where to look further."""
    if audited.identities is None or audited.identities.is_empty():
        return None
    widest = audited.identities.filter(pl.col("spread").is_finite()).sort(
        "spread", "label", descending=[True, False]
    )
    rows: list[list[object]] = [
        [
            f"identity {one['label']}" if album is None else album.person(one["label"]),
            f"{one['images']:,}",
            f"{one['spread']:.3f}",
            "" if one["nearest_label"] is None else one["nearest_label"],
            "" if one["nearest_distance"] is None else f"{one['nearest_distance']:.3f}",
            f"{one['findings']:,}",
        ]
        for one in widest.head(_WIDEST).iter_rows(named=True)
    ]
    headings = [
        "identity",
        "images",
        "spread (mean cosine distance)",
        "nearest",
        "distance to it (squared L2)",
        "findings",
    ]
    says = "The identities whose images are farthest from their centre."
    return titled("Widest identities", table("Identities by spread", headings, rows), says=says)


def _saving(audited: Audited, album: Album | None) -> Markup:
    """The button that saves decisions, and what to do with them."""
    decided: dict[str, object] = {
        "fasttriplet": "decisions",
        "version": 1,
        "dataset": audited.said.get("dataset") or (album and album.dataset.fingerprint),
        "suspects": digest(audited.suspects),
        "decisions": [],
    }
    files = [str(path) for path in (album.dataset.paths if album else audited.said.get("files") or [])]
    out = Path(files[0]).with_suffix("").name + "-clean.rec" if files else "clean.rec"
    lines = [
        "fasttriplet clean",
        *(shlex.join(["--rec", path]) for path in files or ["FILE.rec"]),
        *(["--labels separate"] if album and any(album.dataset.label_shifts) else []),
        shlex.join(["--suspects", str(audited.path)]),
        "--decisions decisions.json",
        shlex.join(["--out", out]),
    ]
    return element(
        "div",
        element("p", element("output", "", id="changed", aria_live="polite")),
        element("p", element("button", "Save decisions", type="button", id="save"), class_="buttons"),
        element("p", "The file decisions.json goes to your downloads. Move it beside the data, and run:"),
        element("pre", element("code", Markup(" \\\n    ".join(map(escaped, lines)))), tabindex="0"),
        id="decisions",
        class_="saving",
        data_decisions=json.dumps(decided),
    )
