"""Messages of Python's functions in the words of the command line: flags for the names of arguments."""

from __future__ import annotations

import re

import click

from fasttriplet.errors import OptionError


def usage(error: OptionError, command: click.Command) -> str:
    """The message of an error, which begins with the flag."""
    named = {parameter.name: parameter for parameter in command.params}.get(error.argument)
    if isinstance(named, click.Option):
        return f"{named.opts[0]} {in_flags(error.reason, command)}"
    if named is not None:
        return f"{named.human_readable_name} {in_flags(error.reason, command)}"
    return in_flags(str(error), command)


def in_flags(text: str, command: click.Command) -> str:
    """Put flags in the place of ``bag_size``, ``band='hard'``, ``overwrite=True`` and a first ``memory:``.

    Other words without an underscore stay, and so do names that are a part of a word, such as of a path.
    """
    options = {str(one.name): one for one in command.params if isinstance(one, click.Option)}
    if not options:
        return text

    def flag(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        option = options[name]
        if value is None:
            known = "_" in name or (found["after"] == ":" and found.start() == 0)
            words = option.opts[0] if known else name
        elif value == "False":
            words = option.secondary_opts[0] if option.secondary_opts else f"no {option.opts[0]}"
        elif value == "True":
            words = option.opts[0]
        elif value == "None" and name == "bag_size":
            words = "--whole"
        else:
            option = options.get(f"{name}_dir", option)  # cache='FOLDER' is --cache-dir
            words = f"{option.opts[0]} {value.strip(chr(39))}"
        return f"{found['before']}{words}{found['after']}"

    names = "|".join(sorted(options, key=len, reverse=True))
    word = rf"(?<!\S)(?P<before>[(\[]*)(?P<name>{names})(?:=(?P<value>'[^']*'|[^\s,;:()']*[^\s,;:()'.]))?"
    return re.sub(rf"{word}(?P<after>[.,;:)\]]*)(?!\S)", flag, text)
