"""`pt bind`: reach a service through a local port."""

from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, tunnelid, values
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.endpoints import Endpoint


@click.command()
@click.option("--port", type=values.local_port, metavar="PORT", help="The port to open here; 0 picks one.")
@click.option(
    "--listen", "local", type=values.local, metavar="[HOST:]PORT|unix:/PATH", help="Or where to listen."
)
@click.option(
    "--stdio", is_flag=True, help="Or carry one connection on stdin and stdout, as ssh's ProxyCommand."
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=values.peer_place,
    metavar="MULTIADDR",
    help="Where the other side is; repeatable.",
)
@click.option("--public", is_flag=True, help="The service is public: nobody proves anything.")
@click.option("--accept-new-key", is_flag=True, help="Take a provider that has another key than before.")
@tunnelid.option
@options.shared()
@click.pass_obj
def bind(
    flags: options.Flags,
    port: int | None,
    local: "Endpoint | None",
    stdio: bool,
    peers: tuple[str, ...],
    public: bool,
    accept_new_key: bool,
    tunnel_id: tunnelid.TunnelId | None,
) -> None:
    """Reach a service that another machine offers with `pt tcp`.

    \b
    pt bind --port 2022 --id NAME
    pt bind --listen unix:/tmp/db.sock --id-file secret.txt
    ssh -o ProxyCommand='pt bind --stdio --id NAME' there
    """
    if [port is not None, local is not None, stdio].count(True) != 1:
        raise UsageError(
            "Say where to listen, once.", hint="Give --port PORT, --listen [HOST:]PORT or --stdio."
        )
    flags.stdout_is_data = stdio
    if not peers:
        tunnel_id = tunnelid.required(tunnel_id, may_ask=not stdio)
    if peers:
        values.service(None, peers)  # whether they are one peer is told before the port is opened
    service = values.soon(values.service, tunnel_id.text if tunnel_id else None, peers, public)

    from peertunnel.cli.run import Session, run
    from peertunnel.endpoints import TcpEndpoint

    async def story(session: Session) -> None:
        await session.consume(service, local if port is None else TcpEndpoint(None, port))

    tunnelid.warn(tunnel_id, flags, public)
    run(flags, story, accept_new_key=accept_new_key)
