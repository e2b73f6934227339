"""``fasttriplet completion``: what a shell needs to complete flags, choices and names of files."""

from __future__ import annotations

from typing import Literal

import click

VARIABLE = "_FASTTRIPLET_COMPLETE"  # a shell that wants to know how a line goes on sets it


@click.command(
    epilog="""Put the line for your shell into its start-up file, or run it in the shell itself:

    \b
    bash, ~/.bashrc:  eval "$(fasttriplet completion bash)"
    zsh, ~/.zshrc:    eval "$(fasttriplet completion zsh)"   # after compinit
    fish, ~/.config/fish/config.fish:  fasttriplet completion fish | source
    """
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script for shell completion.

    With it, Tab completes commands, flags, choices and names of files.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415  not for --help

    script = get_completion_class(shell)
    assert script is not None
    command = click.get_current_context().find_root().command
    click.echo(script(command, {}, "fasttriplet", VARIABLE).source())


def complete(command: click.Command, instruction: str) -> int:
    """Print the completions of a line that a shell describes in its variables; returns the exit code."""
    from click.shell_completion import shell_complete  # noqa: PLC0415

    return shell_complete(command, {}, "fasttriplet", VARIABLE, instruction)
