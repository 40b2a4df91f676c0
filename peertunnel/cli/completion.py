"""`pt completion`: the shell script that completes commands and options."""

import click
from click.shell_completion import get_completion_class

from peertunnel.cli import options


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@options.shared()
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash   eval "$(pt completion bash)"           in ~/.bashrc
    zsh    eval "$(pt completion zsh)"            in ~/.zshrc
    fish   pt completion fish > ~/.config/fish/completions/pt.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "pt", "_PT_COMPLETE").source())
