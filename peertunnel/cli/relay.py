"""`pt relay`: serve a team as its meeting point."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, tunnelid, values

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
@click.option("--metrics", type=values.local, metavar="[HOST:]PORT", help="Serve /metrics for Prometheus.")
@click.option("--no-circuits", is_flag=True, help="Carry nothing from peer to peer.")
@click.option(
    "--unlimited-for",
    type=values.peer_id,
    metavar="PEERID",
    multiple=True,
    help="No limits for the circuits of this peer; repeatable.",
)
@click.option(
    "--unlimited-peers",
    type=Path,
    metavar="FILE",
    help="The same for the peers in this file, one a line; changes count at once.",
)
@click.option("--unlimited-id-file", metavar="FILE", help="The same for both ends that know the id in it.")
@options.shared()
@click.pass_obj
def relay(
    flags: options.Flags,
    port: int | None,
    listen: tuple[str, ...],
    public_dht: bool,
    metrics: "Endpoint | None",
    no_circuits: bool,
    unlimited_for: tuple[str, ...],
    unlimited_peers: Path | None,
    unlimited_id_file: str | None,
) -> None:
    """Serve a team on a public machine: its meeting point, its DHT and its relay.

    \b
    pt relay
    pt relay --port 4001 --metrics 127.0.0.1:9401
    pt relay --unlimited-for PEERID

    It prints the flag that the others add to their commands.
    """
    places = (*listen, *flags.p2p_listen)
    if port is not None or not places:
        number = PORT if port is None else port
        places += (f"/ip4/0.0.0.0/tcp/{number}", f"/ip6/::/tcp/{number}")

    service = None
    if unlimited_id_file is not None:
        service = values.soon(values.service, tunnelid.from_file(unlimited_id_file).text)

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        from peertunnel.allowed import Allowed
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
            circuits=not no_circuits,
            unlimited=Allowed(unlimited_for, unlimited_peers),
            unlimited_root=service().root if service is not None else None,
        )
        await relay(settings, session.emit, stop=session.stop)

    run(flags, story)
