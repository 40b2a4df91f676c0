"""`pt ping`: find a peer and measure the round trip."""

import click
from click.core import ParameterSource

from peertunnel.cli import options, tunnelid, values
from peertunnel.errors import UsageError

HINT = "Give a multiaddr, a link, a peer id or a tunnel id."


@click.command()
@click.argument("peer", required=False)
@click.option("-c", "--count", type=click.IntRange(min=1), default=4, metavar="N", help="How often.  [4]")
@click.option("--public", is_flag=True, help="The tunnel id is that of a public service.")
@tunnelid.option
@options.shared()
@click.pass_context
def ping(
    ctx: click.Context, peer: str | None, count: int, public: bool, tunnel_id: tunnelid.TunnelId | None
) -> None:
    """Find PEER, say on which path, and how long a round trip takes.

    PEER is a multiaddr, a pk:// link, a peer id, or a tunnel id.
    """
    flags = ctx.ensure_object(options.Flags)
    given = [ctx.get_parameter_source(name) for name in ("peer", "id_name", "id_file")]
    if given.count(ParameterSource.COMMANDLINE) > 1:
        raise UsageError("Say whom to ping, once.", hint=HINT)
    known = values.peer(peer) if peer else None
    if peer:
        tunnel_id = None if known else tunnelid.from_argument(peer)
    if peer == "" or not (known or tunnel_id):
        raise UsageError("There is nobody to ping.", hint=HINT)
    text = tunnel_id.text if tunnel_id else None
    service = values.soon(lambda: known or values.service(text, is_public=public))

    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        wanted = service()
        async with session.node() as node:
            from peertunnel.ping import ping

            await ping(node, wanted, count, session.config.wait, session.emit)

    tunnelid.warn(tunnel_id, flags, public)
    run(flags, story, graceful=False)
