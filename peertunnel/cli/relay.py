"""`pt relay`: serve a team as its meeting point."""

from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, values
from peertunnel.cli.circuits import Circuits
from peertunnel.cli.circuits import options as circuit_options
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.endpoints import Endpoint

PORT = 4001  # as libp2p's public nodes


@click.command()
@click.option("--port", type=values.local_port, metavar="PORT", help=f"The TCP port to listen on.  [{PORT}]")
@click.option(
    "--listen",
    type=values.place,
    metavar="MULTIADDR",
    multiple=True,
    help="Or the addresses to listen on; repeatable.",
)
@click.option("--public-dht", is_flag=True, help="Join the DHT that all of libp2p shares.")
@options.METRICS
@circuit_options
@options.shared()
@click.pass_obj
def relay(
    flags: options.Flags,
    port: int | None,
    listen: tuple[str, ...],
    public_dht: bool,
    metrics: "Endpoint | None",
    circuits: Circuits,
) -> None:
    """Serve a team on a public machine: meeting point, DHT and relay.

    \b
    pt relay
    pt relay --port 4001 --metrics 127.0.0.1:9401
    pt relay --unlimited-for PEERID

    It prints the flag that the others add to their commands.
    """
    _check(flags)
    places = (*listen, *flags.p2p_listen)
    if port is not None or not places:
        number = PORT if port is None else port
        places += (f"/ip4/0.0.0.0/tcp/{number}", f"/ip6/::/tcp/{number}")

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        from peertunnel.config import PUBLIC_BOOTSTRAP
        from peertunnel.relay import RelayOptions, relay

        config = session.config
        joined = config.via + config.bootstrap + (PUBLIC_BOOTSTRAP if public_dht else ())
        settings = RelayOptions(
            identity=session.identity,
            listen=places,
            dht=config.dht,
            bootstrap=tuple(dict.fromkeys(joined)),
            dht_prefix=config.dht_prefix,
            metrics=metrics,
            circuits=circuits.settings(),
            transport=config.transport,
        )
        await relay(settings, session.emit, stop=session.stop)

    run(flags, story)


def _check(flags: options.Flags) -> None:
    """Raise UsageError for what is about tunnels of our own."""
    if flags.relay_only:
        raise UsageError(
            "A relay can't hide its addresses, since it is there to be reached.",
            hint="Leave out --relay-only.",
        )
    if flags.direct_only:
        raise UsageError(
            "A relay has no tunnels of its own that could be direct only.",
            hint="Leave out --direct-only; with --no-circuits it carries no tunnels of others.",
        )
