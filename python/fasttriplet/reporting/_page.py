"""The document: one file, from which no request leaves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from fasttriplet._core import __version__
from fasttriplet.reporting._html import Markup, element, joined


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    name : str
        Its anchor.
    title : str
    says : Markup
        What the part says, in a sentence or two.
    todo : sequence of Markup
        What to do next, each in a sentence that begins with a verb.
    body : Markup
    """

    name: str
    title: str
    says: Markup
    todo: Sequence[Markup]
    body: Markup

    def markup(self) -> Markup:
        """The section in HTML."""
        lines = [element("p", self.says)]
        if self.todo:
            items = (element("li", one) for one in self.todo)
            lines.append(element("div", element("strong", "Next"), element("ul", *items), class_="todo"))
        return element(
            "section",
            element("h2", self.title, id=f"{self.name}-title"),
            element("div", *lines, class_="says"),
            self.body,
            id=self.name,
            aria_labelledby=f"{self.name}-title",
        )


def document(title: str, lead: object, sections: Sequence[Section], made_from: Sequence[str]) -> str:
    """Write the page."""
    style, script = (
        files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", "script.js")
    )
    # What is written here may be used, pictures may be in the page, and nothing may be fetched or sent.
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title}: fasttriplet report"),
        element("style", Markup(style)),
    )
    links = (element("a", section.title, href=f"#{section.name}") for section in sections)
    sources = joined(*(element("li", element("code", source)) for source in made_from))
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), element("p", lead, class_="lead")),
        element("nav", *links, aria_label="Sections") if len(sections) > 1 else None,
        element("main", *(section.markup() for section in sections), id="content"),
        element("footer", f"Made by fasttriplet {__version__} from", element("ul", sources)),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
