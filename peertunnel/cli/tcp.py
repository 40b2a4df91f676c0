"""`pt tcp`: offer a TCP port, or whatever listens, under a tunnel id."""

from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, tunnelid, values
from peertunnel.cli.admission import Admission
from peertunnel.cli.admission import options as admission_options
from peertunnel.errors import UsageError

if TYPE_CHECKING:
    from peertunnel.endpoints import Endpoint


@click.command()
@click.option("--port", type=values.port, metavar="PORT", help="The service's port on this machine.")
@click.option(
    "--target", type=values.target, metavar="HOST:PORT|unix:/PATH", help="Or the service's address."
)
@admission_options
@tunnelid.option
@options.shared()
@click.pass_obj
def tcp(
    flags: options.Flags,
    port: int | None,
    target: "Endpoint | None",
    tunnel_id: tunnelid.TunnelId | None,
    admission: Admission,
) -> None:
    """Offer a service of this machine, or one that it reaches.

    \b
    pt tcp --port 22 --id NAME
    pt tcp --target 192.0.2.7:5432 --id-file secret.txt
    pt tcp --target unix:/run/app.sock --id NAME
    """
    if (port is None) == (target is None):
        raise UsageError("Say what to offer, once.", hint="Give --port PORT or --target HOST:PORT.")
    given = tunnelid.required(tunnel_id)
    service = values.soon(values.service, given.text, (), admission.is_public)

    from peertunnel.cli.run import Session, run
    from peertunnel.endpoints import TcpEndpoint

    async def story(session: Session) -> None:
        session.check_relays()
        offered = service()
        secret = offered.root or offered.public_topic
        assert secret is not None
        async with session.node(session.identity.for_service(secret)) as node:
            await session.provide(node, offered, target or TcpEndpoint(None, port or 0), admission)

    tunnelid.warn(given, flags, admission.is_public)
    again, public = tunnelid.again(given, admission.is_public), " --public" if admission.is_public else ""
    run(flags, story, advice=f"pt bind --port {values.free_choice(port)} {again}{public}{flags.meeting}")
