"""`pt id`: a new tunnel id, or how good one is."""

import click

from peertunnel.cli import options, tunnelid


@click.group(no_args_is_help=False)  # that would be the whole help as an error
@options.shared()
def id() -> None:
    """Make a strong tunnel id, or judge one."""


@id.command()
@click.option(
    "--words", type=click.IntRange(min=4, max=24), default=6, metavar="N", help="How many words.  [6]"
)
@options.shared()
@click.pass_obj
def new(flags: options.Flags, words: int) -> None:
    """Make a tunnel id of random words, which can be read out and typed."""
    from peertunnel.cli.output import reader
    from peertunnel.cli.results import Judged
    from peertunnel.strength import bits_of_words, new_id

    bits = bits_of_words(words)
    reader(flags)(Judged(bits, new_id(words)))
    if not (flags.json or flags.quiet):
        click.echo(f"{bits} bits. Give it to the other side in person, or encrypted.", err=True)


@id.command(short_help="Estimate how hard a tunnel id is to guess.")
@tunnelid.option
@options.shared()
@click.pass_obj
def check(flags: options.Flags, tunnel_id: tunnelid.TunnelId | None) -> None:
    """Estimate how hard a tunnel id is to guess; it is asked for unless it is given."""
    from peertunnel.cli.output import reader
    from peertunnel.cli.results import Judged
    from peertunnel.errors import UsageError
    from peertunnel.strength import estimate, weakness

    given = tunnelid.required(tunnel_id)
    reader(flags)(Judged(int(estimate(given.text)), None))
    if given.is_strict and (why := weakness(given.text)):
        raise UsageError(why, hint=tunnelid.BETTER)
