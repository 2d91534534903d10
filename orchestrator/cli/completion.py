"""`orchestrator completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and file names.

    \b
    Example: orchestrator completion bash > ~/.orchestrator-complete.sh
    then add to ~/.bashrc (zsh: ~/.zshrc): source ~/.orchestrator-complete.sh
    fish: orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # one of the three that click brings
    tool = context.find_root()
    script = kind(tool.command, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE")
    click.echo(script.source())
