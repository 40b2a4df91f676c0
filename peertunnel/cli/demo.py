"""`pt demo`: see a tunnel work, with nothing but this machine."""

import click

from peertunnel.cli import options


@click.command()
@options.shared()
@click.pass_obj
def demo(flags: options.Flags) -> None:
    """Send 64 MiB through a tunnel on this machine and check them.

    A web server, a provider and a consumer run as programs of their own, which find each other by a random
    name and go again at the end. Nothing of it can be reached from outside.
    """
    from peertunnel.cli.output import reader
    from peertunnel.cli.trial import run_trial

    run_trial(reader(flags), is_heard=flags.verbosity > 0)
