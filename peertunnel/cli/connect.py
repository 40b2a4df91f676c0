"""`pt connect`: reach what a link leads to."""

from typing import TYPE_CHECKING

import click

from peertunnel.cli import options, values
from peertunnel.errors import LocalPortError

if TYPE_CHECKING:
    from peertunnel.protocols.link import Link

DEFAULT_PORT = 3000  # as PortKey does for a link that names no port


@click.command()
@click.argument("link", type=values.link)
@click.option(
    "-l", "--local-port", "port", type=values.local_port, metavar="PORT",
    help="The port to open here; 0 picks one.  [the link's, or 3000]",
)  # fmt: skip
@options.shared()
@click.pass_obj
def connect(flags: options.Flags, link: "Link", port: int | None) -> None:
    """Reach what `pt share` shares on another machine.

    LINK is pk://..., as `pt share` or PortKey prints it, or just a peer id.
    """
    from peertunnel.cli.run import Session, run
    from peertunnel.endpoints import TcpEndpoint
    from peertunnel.protocols.service import Service

    local = TcpEndpoint(None, port if port is not None else link.port or DEFAULT_PORT)

    async def story(session: Session) -> None:
        try:
            await session.consume(lambda: Service.from_link(link), local)
        except LocalPortError as error:  # the link has chosen the port, unless -l has
            raise LocalPortError(
                error.message, hint="Choose another port with -l PORT; 0 picks a free one."
            ) from error

    run(flags, story)
