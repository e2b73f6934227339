"""The page in Chromium: no request leaves it, no error is logged, and decisions can be saved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.auditing._findings import digest
from fasttriplet.cli import main
from tests.cli.command import commands
from tests.reporting import chromium
from tests.reporting.conftest import Made
from tests.reporting.test_page import HOSTILE
from tests.small_rec import identities, write_rec

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="Chromium is not installed")

TAB, SPACE = ("Tab", 9), (" ", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[chromium.Page]:
    with chromium.page(folder) as page:
        yield page


@pytest.fixture
def page(browser: chromium.Page, folder: Path, made: Made) -> chromium.Page:
    """The page of everything, opened anew."""
    path = ft.report(folder / "page.html", **made.given, overwrite=True)
    browser.look(1000)
    browser.open(path)
    browser.forget()
    browser.open(path)
    return browser


def checked(page: chromium.Page) -> dict[str, bool]:
    """Which findings are ticked, by their numbers."""
    found: dict[str, bool] = page.run(
        "Object.fromEntries([...document.querySelectorAll('input')].map(b => [b.dataset.finding, b.checked]))"
    )
    return found


def saved(folder: Path) -> dict[str, Any]:
    """The decisions that were downloaded."""
    path = folder / "decisions.json"
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return found


def test_no_request_leaves_it_and_no_error_is_logged(page: chromium.Page, folder: Path) -> None:
    page.run("[...document.querySelectorAll('nav a, button:not(#save)')].forEach(one => one.click())")
    page.run("[...document.querySelectorAll('input')].forEach(one => one.click())")
    broken = page.run("[...document.images].filter(one => !one.complete || !one.naturalWidth).length")
    assert broken == 0
    assert page.run("document.images.length") > 100
    assert page.requests == [(folder / "page.html").as_uri()]
    assert page.problems == []


def test_the_policy_stops_what_would_leave(page: chromium.Page) -> None:
    """What the test above relies on is noticed: the browser refuses it, and logs that."""
    load = "const image = new Image(); image.onerror = () => done(1); image.src = 'http://127.0.0.1:9/x.png';"
    page.run(f"new Promise(done => {{ {load} }})")
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_decisions_are_saved(page: chromium.Page, folder: Path, made: Made) -> None:
    before = checked(page)
    assert before == {"0": True, "1": True, "2": True, "3": True, "4": False, "5": True}
    assert "5 of 6 findings are ticked, 0 decided otherwise" in page.run("document.body.innerText")
    page.run("document.querySelector('label[for=finding-1]').click()")  # an outlier that is kept
    page.run("document.querySelector('#finding-4').click()")  # a duplicate that is dropped
    page.run("document.querySelector('[data-none=\"same-person\"]').click()")
    assert "4 of 6 findings are ticked, 3 decided otherwise" in page.run("document.body.innerText")
    page.run("document.querySelector('#save').click()")
    decisions = saved(folder)
    check_decisions(decisions, made, {1: "keep", 2: "keep", 4: "drop"})
    page.run("document.querySelector('[data-all=\"same-person\"]').click()")
    page.run("document.querySelector('#save').click()")
    check_decisions(saved(folder), made, {1: "keep", 4: "drop"})
    page.open(folder / "page.html")
    assert "Page.javascriptDialogOpening" not in page.done  # all of it was saved
    page.run("document.querySelector('#finding-1').click()")
    page.open(folder / "page.html")
    assert page.done["Page.javascriptDialogOpening"] == 1
    assert page.problems == []


@pytest.mark.skipif("clean" not in commands(), reason="there is no command that cleans")
def test_a_dataset_is_cleaned_by_what_was_saved(page: chromium.Page, folder: Path, made: Made) -> None:
    page.run("document.querySelector('#finding-1').click()")  # an outlier that is kept
    page.run("document.querySelector('#finding-4').click()")  # a duplicate that is dropped
    page.run("document.querySelector('#save').click()")
    (folder / "saved.json").write_text(json.dumps(saved(folder)))
    words = ["clean", "--rec", made.rec, "--suspects", made.given["audit"] / "suspects.parquet"]
    words += ["--decisions", folder / "saved.json", "--out", folder / "clean.rec"]
    assert main(list(map(str, words))) == 0
    assert len(ft.Dataset(folder / "clean.rec")) == 72 - 2  # with it, the bad picture


def check_decisions(decisions: dict[str, Any], made: Made, expected: dict[int, str]) -> None:
    """The file is what `fasttriplet clean --decisions` reads."""
    assert decisions == {
        "fasttriplet": "decisions",
        "version": 1,
        "dataset": made.dataset.fingerprint,
        "suspects": digest(pl.read_parquet(made.given["audit"] / "suspects.parquet")),
        "decisions": [{"finding": finding, "action": action} for finding, action in expected.items()],
    }


def test_the_keyboard_is_enough(page: chromium.Page, folder: Path, made: Made) -> None:
    def at() -> str:
        return str(page.run("document.activeElement.id || document.activeElement.textContent"))

    page.press(*TAB)
    assert at() == "Skip to the content"
    visited: list[str] = []
    while (here := at()) != "save":
        assert len(visited) < 100
        visited.append(here)
        if here in {"finding-0", "finding-4"}:
            page.press(*SPACE)
        page.press(*TAB)
    assert [name for name in visited if name.startswith("finding")] == [f"finding-{n}" for n in range(6)]
    assert "Audit" in visited
    page.press(*SPACE)
    check_decisions(saved(folder), made, {0: "keep", 4: "drop"})


@pytest.mark.parametrize("width", [320, 400, 1000, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_window_and_has_both_schemes(page: chromium.Page, width: int, dark: bool) -> None:
    page.look(width, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= width
    colours = "(one => [one.backgroundColor, one.color])(getComputedStyle(document.documentElement))"
    paper, ink = (sum(map(int, colour[4:-1].split(","))) for colour in page.run(colours))
    assert (paper < ink) == dark
    assert abs(paper - ink) > 400
    # No text is smaller than 9 pixels on the screen, not even in a drawing.
    smallest = page.run(
        "Math.min(...[...document.querySelectorAll('svg text')].map(one => "
        "parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a))"
    )
    assert smallest > (9 if width > 320 else 7)


def test_it_prints(page: chromium.Page) -> None:
    page.look(1000, dark=True)
    printed = page.call("Page.printToPDF", printBackground=True)["data"]
    assert printed.startswith("JVBERi")  # %PDF
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.call("Emulation.setEmulatedMedia", media="")


def test_hostile_names_do_nothing(browser: chromium.Page, folder: Path) -> None:
    rec = write_rec(folder / "<img src=x onerror=alert(3)>.rec", identities(3, 4))
    names = pl.DataFrame({"label": range(3), "folder": [f"{HOSTILE}{n}" for n in range(3)]})
    names.write_csv(rec.with_suffix(".identities.csv"))
    path = ft.report(folder / "hostile.html", rec=rec)
    browser.forget()
    browser.open(path)
    assert browser.requests == [path.as_uri()]
    assert browser.problems == []
    assert browser.run("document.scripts.length") == 1
    assert "alert(1)" in browser.run("document.body.innerText")
    assert browser.run("[...document.images].every(one => one.src.startsWith('data:'))")
