"""The command ``fasttriplet``: one file for each subcommand.

Data goes to stdout, progress and notes to stderr. Exit codes: 0 done, 1 the data or the machine would
not do it, 2 the command was not understood, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from fasttriplet._core import __version__
from fasttriplet.cli.index import index
from fasttriplet.cli.mine import mine


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fasttriplet")
def cli() -> None:
    """Turn MXNet .rec image datasets into exact triplets for metric learning."""


cli.add_command(index)
cli.add_command(mine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("default", UserWarning)
    try:
        code = cli.main(arguments, prog_name="fasttriplet", standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:  # Ctrl-C
        click.echo("fasttriplet: stopped", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # the reader has seen enough: `fasttriplet ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, MemoryError) as error:
        click.echo(f"fasttriplet: {_message(error)}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory {error}".rstrip()
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    del category, filename, lineno, file, line  # a user wants to know what, not where in the code
    click.echo(f"fasttriplet: {message}", err=True)
