"""`pt ping`: find a peer and measure the round trip."""

import click

from peertunnel.cli import options, tunnelid, values
from peertunnel.errors import UsageError


@click.command()
@click.argument("peer", required=False)
@click.option("-c", "--count", type=click.IntRange(min=1), default=4, metavar="N", help="How often.  [4]")
@tunnelid.option
@options.shared()
@click.pass_obj
def ping(flags: options.Flags, peer: str | None, count: int, tunnel_id: tunnelid.TunnelId | None) -> None:
    """Find PEER, say on which path, and how long a round trip takes.

    PEER is a multiaddr, a pk:// link, a peer id, or a tunnel id.
    """
    if peer is None and tunnel_id is None:
        raise UsageError(
            "There is nobody to ping.", hint="Give a multiaddr, a link, a peer id or a tunnel id."
        )

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        service = (
            values.anything(peer) if peer is not None else values.service(tunnelid.required(tunnel_id).text)
        )
        async with session.node(session.identity) as node:
            async for pong in node.ping(service, count, session.config.wait):
                session.emit(pong)

    run(flags, story, graceful=False)
