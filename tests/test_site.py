"""The site that `make docs` made, in Chromium: on a phone, in the dark, and without the internet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reporting import chromium

SITE = Path(__file__).parents[1] / "build" / "site"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not SITE.exists(), reason="`make docs` makes the site"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as page:
        yield page


def pages() -> list[str]:
    found = [path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html")]
    return sorted(name for name in found if name != "index.html")  # which leads to docs/index.html


@pytest.mark.parametrize("name", pages())
def test_a_page_fits_a_phone_and_asks_nobody_else(browser: chromium.Page, name: str) -> None:
    browser.forget()
    for width, dark in ((400, False), (400, True), (1400, False), (1400, True)):
        browser.look(width, dark=dark)
        browser.open(SITE / name)
        assert browser.run("document.documentElement.scrollWidth") <= width
        broken = "[...document.images].filter(one => one.complete && !one.naturalWidth).map(one => one.src)"
        assert browser.run(broken) == []
    assert not [one for one in browser.requests if not one.startswith(SITE.as_uri())]
    assert browser.problems == []


@pytest.mark.parametrize(
    ("words", "page"),
    [("margin", "docs/mining.html"), ("TripletMiner", "docs/api/torch.html"), ("bag-size", "docs/cli.html")],
)
def test_the_search_needs_no_internet(browser: chromium.Page, words: str, page: str) -> None:
    browser.forget()
    browser.open(SITE / "search.html")
    browser.run(f"location.search = '?q={words}'")
    browser.wait_for("Page.loadEventFired", 2)
    found: list[str] = browser.run("""new Promise(found => {
        const look = () => [...document.querySelectorAll('#search-results a')].map(one => one.href)
        const again = () => look().length ? setTimeout(() => found(look()), 500) : setTimeout(again, 50)
        again()
    })""")
    assert any(one.startswith((SITE / page).as_uri()) for one in found), found
    assert not [one for one in browser.requests if not one.startswith(SITE.as_uri())]
