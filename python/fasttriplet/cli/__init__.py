"""The command ``fasttriplet``: one file for each subcommand.

Data goes to stdout, progress and notes to stderr. Exit codes: 0 done (or the reader of a pipe has seen
enough), 1 the data or the machine would not do it, 2 the command was not understood, 130 stopped by
Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, NoReturn

import click

from fasttriplet._words import naming_file
from fasttriplet.cli._completion import VARIABLE, complete
from fasttriplet.cli._words import in_flags, usage
from fasttriplet.errors import OptionError

_COMMANDS = (
    "audit",
    "clean",
    "completion",
    "demo",
    "embed",
    "export",
    "index",
    "mine",
    "neighbors",
    "pack",
    "pack-pairs",
    "report",
    "train",
    "verify",
)


class _Commands(click.Group):
    """The command ``name`` is in the module ``fasttriplet.cli.name``, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"{__name__}._{name}"), name)
        return command


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:  # noqa: ARG001
    if asked:
        from fasttriplet import __version__  # noqa: PLC0415  the extension is not for --help

        click.echo(f"fasttriplet, version {__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Turn MXNet .rec image datasets into exact triplets for metric learning."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_missing_streams()
    if instruction := os.environ.get(VARIABLE):  # of a shell, at each Tab
        return complete(cli, instruction)
    context: click.Context | None = None
    try:
        # Not cli.main(): it makes an error (exit code 1) of a closed pipe.
        with _plain_warnings(lambda: context), _signals_clean_up(), redirect_stdout(_StandardOutput()):
            try:
                with _no_panic(), cli.make_context("fasttriplet", list(arguments)) as context:
                    cli.invoke(context)
            finally:
                sys.stdout.flush()
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stopped:
        _say_notes(stopped, _command(context))
        click.echo("fasttriplet: stopped", err=True)
        return 130
    except SystemExit as stopped:  # by a signal
        _say_notes(stopped, _command(context))
        raise
    except BrokenPipeError:  # the reader has seen enough: `fasttriplet ... | head`
        with open(os.devnull, "wb") as devnull:  # noqa: PTH123  for the flush at the interpreter's end
            os.dup2(devnull.fileno(), sys.stdout.fileno())
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        return _failed(error, _command(context))
    return 0


@contextmanager
def _no_panic() -> Iterator[None]:
    """Say what to do where Python or Polars, which panics, cannot start a thread."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException" and (
            "spawn" in str(error) or "code: 11" in str(error)
        )
        if not panic and not (type(error) is RuntimeError and "can't start new thread" in str(error)):
            raise
        limits = "raise the limit on processes (ulimit -u), or on memory if there is one (ulimit -v)"
        raise RuntimeError(f"{error}; {limits}") from error


class _StandardOutput:
    """Standard output with errors that name it, as those of files name the file.

    It is for results, which the thread of the command prints. What other threads print, such as Ray's, which
    tells there of a machine that died, goes to stderr.
    """

    def __init__(self) -> None:
        self._stream, self._thread = sys.stdout, threading.current_thread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if threading.current_thread() is not self._thread:
            return sys.stderr.write(text)
        with naming_file("standard output"):
            return self._stream.write(text)

    def flush(self) -> None:
        with naming_file("standard output"):
            self._stream.flush()


def _failed(error: BaseException, context: click.Context) -> int:
    """Say what is wrong in one message; returns the exit code."""
    if isinstance(error, OptionError):
        misunderstood = click.UsageError(usage(error, context.command), context)
        misunderstood.show()
        return misunderstood.exit_code
    click.echo(f"fasttriplet: {_message(error, context.command)}", err=True)
    _say_notes(error, context)
    return 1


def _say_notes(error: BaseException, context: click.Context) -> None:
    for note in getattr(error, "__notes__", ()):
        click.echo(f"fasttriplet: {in_flags(note, context.command)}", err=True)


def _open_missing_streams() -> None:
    """Daemons and cron jobs may run without streams; their numbers must not go to the next file opened."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _command(context: click.Context | None) -> click.Context:
    """The context of the command that runs."""
    context = context or click.Context(cli, info_name="fasttriplet")
    name = context.invoked_subcommand
    command = None if name is None else cli.get_command(context, name)
    return context if command is None else click.Context(command, context, info_name=name)


def _message(error: BaseException, command: click.Command) -> str:
    if isinstance(error, MemoryError) and not str(error):  # Python's own
        return "not enough memory"
    if isinstance(error, OSError) and error.errno is not None:
        reason = in_flags(str(error.strerror), command)
        return f"{error.filename}: {reason}" if error.filename else reason
    return in_flags(str(error), command) or type(error).__name__


@contextmanager
def _plain_warnings(context: Callable[[], click.Context | None]) -> Iterator[None]:
    """Show warnings meant for users as lines: what, not where in the code."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        if issubclass(category, UserWarning):
            click.echo(f"fasttriplet: {in_flags(str(message), _command(context()).command)}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def _signals_clean_up() -> Iterator[None]:
    """Let SIGTERM (batch systems end jobs by it) and SIGHUP (a closed terminal) unwind as Ctrl-C does."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # nohup
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
