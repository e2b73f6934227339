"""How Sphinx makes the documentation site: ``make docs``.

The source folder is the checkout, so that a page's link to a file outside of ``docs/`` means the same on the
site and where the page is read as plain Markdown.
"""

from importlib import metadata

import click

from fasttriplet.cli import cli

project = "fasttriplet"
author = "the fasttriplet developers"
version = release = metadata.version(project)
root_doc = "docs/index"
include_patterns = ["docs/**.md", "benches/*.md", "tests/faults/README.md", "[AC]*.md"]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_click",
]
nitpicky = True  # a reference that leads nowhere is a warning, and warnings are errors

# Markdown
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Docstrings. `x` in single backticks is a parameter, or another name that the docstring itself explains.
default_role = "literal"
autodoc_typehints = "none"  # docstrings have the types, with shapes
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False  # autodoc shows them

smartquotes = False  # "--rec" keeps its two hyphens

html_theme = "furo"
html_title = f"fasttriplet {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_front"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
templates_path: list[str] = []


def _show_defaults() -> None:
    """Have sphinx-click print the defaults that `--help` prints; it does not ask the group's settings."""
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and option.show_default is None:
                option.show_default = isinstance(option.default, str | float | int) and not option.is_flag


_show_defaults()
