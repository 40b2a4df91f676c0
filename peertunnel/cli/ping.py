"""`pt ping`: find a peer and measure the round trip."""

import click

from peertunnel.cli import options, tunnelid, values
from peertunnel.errors import UsageError

HINT = "Give a multiaddr, a link, a peer id or a tunnel id."


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
    if peer is not None:
        service = values.soon(values.anything, peer)
    elif tunnel_id is not None:
        service = values.soon(values.service, tunnel_id.text)
    else:
        raise UsageError("There is nobody to ping.", hint=HINT)

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        wanted = service()
        async with session.node() as node:
            from peertunnel.ping import ping

            await ping(node, wanted, count, session.config.wait, session.emit)

    tunnelid.warn(tunnel_id, flags)
    run(flags, story, graceful=False)
