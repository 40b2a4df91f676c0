"""`pt share`: offer a local port to whoever has the link."""

from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, values
from peertunnel.cli.admission import Admission
from peertunnel.cli.admission import options as admission_options

if TYPE_CHECKING:
    from peertunnel.cli.run import Session


@click.command()
@click.argument("port", type=values.port)
@click.option("--qr", is_flag=True, help="Show the link as a QR code, too.")
@admission_options
@options.shared()
@click.pass_obj
def share(flags: options.Flags, port: int, qr: bool, admission: Admission) -> None:
    """Offer PORT of this machine, and print a link to it.

    The link holds the key and the addresses of this machine, so whoever has it finds the port. It stays
    good when you stop and share the same port again.
    """
    from peertunnel.cli.qrcode import drawer
    from peertunnel.cli.run import run
    from peertunnel.endpoints import TcpEndpoint
    from peertunnel.events import Shared
    from peertunnel.protocols.link import SECRET_BYTES, Link
    from peertunnel.protocols.service import Service

    show = drawer() if qr and not flags.json else None  # nothing stands beside JSON lines

    async def story(session: "Session") -> None:
        session.check_relays()
        label = b"%d" % port
        secret = session.identity.for_service(b"link/" + label).seed[:SECRET_BYTES]
        async with session.node(session.identity.for_service(b"share/" + label)) as node:
            known = None if admission.is_public else secret  # PortKey's links have none
            link = Link(node.peer_id, port, _elsewhere(node.addresses), session.config.relays, known)
            session.emit(Shared(link.format()))
            if show:
                show(link.format())
            await session.provide(node, Service.from_link(link), TcpEndpoint(None, port), admission)

    run(flags, story)


def _elsewhere(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the addresses that mean another machine over there, unless there are no others."""
    others = tuple(a for a in addresses if not a.startswith(("/ip4/127.", "/ip6/::1/")))
    return others or addresses
