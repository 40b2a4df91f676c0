"""`pt relay`: serve a team as its meeting point."""

import re
from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, values
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.endpoints import Endpoint

PORT = 4001  # as libp2p's public nodes


def prefix(text: str) -> str:
    """Read what a DHT's protocol begins with."""
    if not re.fullmatch(r"(/[\w.-]{1,64}){1,4}", text, re.ASCII):
        raise UsageError(f"{text!r} is no prefix of a DHT.", hint="Write one such as /ipfs or /my-team.")
    return text


@click.command()
@click.option("--port", type=values.local_port, metavar="PORT", help=f"The TCP port to listen on.  [{PORT}]")
@click.option(
    "--listen",
    type=values.place,
    metavar="MULTIADDR",
    multiple=True,
    help="Or the addresses to listen on; repeatable.",
)
@click.option("--dht-prefix", type=prefix, metavar="/NAME", help="Serve a DHT of this name.  [/ipfs]")
@click.option(
    "--bootstrap",
    type=values.peer_place,
    metavar="MULTIADDR",
    multiple=True,
    help="A node of the DHT to join; repeatable.  [none: begin a new DHT]",
)
@click.option("--public-dht", is_flag=True, help="Join the DHT that all of libp2p shares.")
@click.option("--metrics", type=values.local, metavar="[HOST:]PORT", help="Serve /metrics for Prometheus.")
@options.shared()
@click.pass_obj
def relay(
    flags: options.Flags,
    port: int | None,
    listen: tuple[str, ...],
    dht_prefix: str | None,
    bootstrap: tuple[str, ...],
    public_dht: bool,
    metrics: "Endpoint | None",
) -> None:
    """Serve a team on a public machine: its meeting point and its DHT.

    \b
    pt relay
    pt relay --port 4001 --metrics 127.0.0.1:9401

    It prints the flag that the others add to their commands.
    """
    if public_dht and dht_prefix not in (None, "/ipfs"):
        raise UsageError("The public DHT's prefix is /ipfs.", hint="Leave out --dht-prefix or --public-dht.")
    places = (*listen, *flags.p2p_listen)
    if port is not None or not places:
        number = PORT if port is None else port
        places += (f"/ip4/0.0.0.0/tcp/{number}", f"/ip6/::/tcp/{number}")

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        from peertunnel.discovery.dht import PUBLIC_BOOTSTRAP
        from peertunnel.relay import DHT_PREFIX, RelayOptions, relay

        joined = bootstrap + (PUBLIC_BOOTSTRAP if public_dht else ())
        settings = RelayOptions(
            identity=session.identity,
            listen=places,
            bootstrap=joined,
            prefix=dht_prefix or DHT_PREFIX,
            metrics=metrics,
        )
        await relay(settings, session.emit, stop=session.stop)

    run(flags, story)
