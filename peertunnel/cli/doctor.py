"""`pt doctor`: what this network lets through, and what to do about it."""

import click

from peertunnel.cli import options


@click.command()
@options.shared()
@click.pass_obj
def doctor(flags: options.Flags) -> None:
    """Say what this network lets through, and what to do about it.

    \b
    pt doctor --via MULTIADDR --via MULTIADDR

    Two `pt relay` in different places tell the most. It takes up to --wait seconds.
    """
    from peertunnel.cli.run import Session, run

    async def story(session: Session) -> None:
        from peertunnel.doctor import doctor

        async with session.node() as node:
            await doctor(node, session.config, session.emit)

    run(flags, story, graceful=False)
