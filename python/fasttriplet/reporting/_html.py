"""Elements of HTML and SVG. Text is escaped unless it was made here, so no name of a file can be code."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def printable(text: str) -> str:
    """Spell out characters that show nothing or change the direction of others, as in names of files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped(child: object) -> Markup:
    """Make HTML of any text; markup stays as it is."""
    return child if isinstance(child, Markup) else Markup(html.escape(printable(str(child))))


def joined(*children: object) -> Markup:
    """Put parts after each other; None is left out."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Make an element: ``element("td", 5, class_="number")``.

    An underscore in the name of an attribute is a hyphen, and one at its end only keeps Python's words free.
    None leaves an attribute out, and True gives one without a value.
    """
    written = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            attribute = key.rstrip("_").replace("_", "-")
            written.append(f" {attribute}" if value is True else f' {attribute}="{escaped(value)}"')
    start = f"<{name}{''.join(written)}>"
    return Markup(start if name in _EMPTY else f"{start}{joined(*children)}</{name}>")


_EMPTY = {"img", "input", "meta", "br"}


def code(text: str) -> Markup:
    """A command or a name of a file."""
    return element("code", text)


def sentences(*said: object) -> Markup:
    """Put sentences after each other, with a space between; None is left out."""
    return Markup(" ".join(escaped(one) for one in said if one is not None))


def facts(rows: dict[str, object]) -> Markup:
    """Names and values as a list; None leaves one out."""
    items = (
        element("div", element("dt", name), element("dd", value))
        for name, value in rows.items()
        if value is not None
    )
    return element("dl", *items, class_="facts")


def table(caption: str, headings: list[str], rows: list[list[object]]) -> Markup:
    """A table whose first column has names, and the others numbers."""
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    body = (
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in cells))
        for first, *cells in rows
    )
    made = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", made, class_="wide", tabindex="0", role="region", aria_label=caption)


def titled(title: str, *children: object, says: object = None) -> Markup:
    """A part of a section, with a title and a sentence on what it shows."""
    note = None if says is None else element("p", says, class_="note")
    return element("div", element("h3", title), note, *children, class_="part")
