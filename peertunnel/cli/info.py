"""`pt info`: who this machine is, and what pt runs on."""

import click

from peertunnel import __version__
from peertunnel.cli import options

PARTS = ("libp2p", "cryptography", "trio")


@click.command()
@options.shared()
@click.pass_obj
def info(flags: options.Flags) -> None:
    """Show this machine's peer id, addresses, files and versions."""
    import platform
    from importlib.metadata import version

    from peertunnel.cli.output import reader
    from peertunnel.cli.results import Described
    from peertunnel.identity import load_identity
    from peertunnel.store import config_path
    from peertunnel.transport.addresses import dialable
    from peertunnel.transport.quic import why_not

    config = flags.settings()
    own = [f"peertunnel {__version__}", f"Python {platform.python_version()}"]
    described = Described(
        load_identity(config.identity).peer_id,
        dialable(config.listen),
        str(config.identity),
        str(flags.config or config_path()),
        (*own, *(f"{part} {version(part)}" for part in PARTS)),
        "on" if (reason := why_not()) is None else f"off: {reason}",
    )
    reader(flags)(described)
