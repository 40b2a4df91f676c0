"""`pt info`: who this machine is, and what pt runs on."""

from typing import TYPE_CHECKING

import click

from peertunnel import __version__
from peertunnel.cli import options

if TYPE_CHECKING:
    from peertunnel.config import Config

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
        dialable(_places(config)),
        str(config.identity),
        str(flags.config or config_path()),
        (*own, *(f"{part} {version(part)}" for part in PARTS)),
        "on" if (reason := why_not()) is None else f"off: {reason}",
    )
    reader(flags)(described)


def _places(config: "Config") -> list[str]:
    """Give the addresses that a node would listen on, as far as ways and transport let it."""
    if config.ways == "relayed":
        return []
    places = [place.split("/") for place in config.listen]
    if config.transport == "tcp":
        places = [place for place in places if "tcp" in place]
    if config.transport == "quic":
        places = [["", family, host, "udp", port, "quic-v1"] for _, family, host, _, port, *_ in places]
    return ["/".join(place) for place in places]
