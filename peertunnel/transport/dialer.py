"""Dialling: every address of a peer that some transport knows, in one race."""

from collections.abc import Sequence
from typing import Protocol

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.race import Attempt, Race, in_turn

MAX_ADDRESSES = 32  # addresses of one peer that are tried; more than any honest peer has


class Transport(Protocol):
    """One way to dial."""

    def can_dial(self, address: Multiaddr) -> bool:
        """Return whether an address is one for us."""
        ...

    async def plan(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> list[Attempt]:
        """Return attempts at the addresses, the most promising first; names are resolved here."""
        ...


class DialError(Exception):
    """No address led to the peer; `reasons` says why, address by address."""

    def __init__(self, reasons: Sequence[tuple[str, str]]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(
            "; ".join(f"{address}: {reason}" for address, reason in reasons) or "no usable address"
        )


def _is_name(address: Multiaddr) -> bool:
    return str(address.protocols()[0].name).startswith("dns")


async def dial(
    peer_id: ID, addresses: Sequence[Multiaddr], transports: Sequence[Transport], within: float
) -> MuxedConnection:
    """Connect to a peer by whichever address works first.

    Args:
        peer_id: who must answer.
        addresses: where it may be; those that no transport can dial are passed over.
        transports: the ways to dial.
        within: seconds for all of it.

    Raises:
        DialError: no address led to the peer in time.
    """
    race = Race()
    usable = [place for place in addresses if any(t.can_dial(place) for t in transports)][:MAX_ADDRESSES]
    numbers = [place for place in usable if not _is_name(place)]
    groups = [numbers, *([place] for place in usable if _is_name(place))]  # a name server may take its time

    async def try_all(group: Sequence[Multiaddr]) -> None:
        plans = [
            await transport.plan(peer_id, [place for place in group if transport.can_dial(place)])
            for transport in transports
        ]
        await race.run(in_turn(plans))
        if race.winner is not None:
            nursery.cancel_scope.cancel()

    try:
        with trio.move_on_after(within):
            async with trio.open_nursery() as nursery:
                for group in groups:
                    nursery.start_soon(try_all, group)
    except BaseException:
        if race.winner is not None:  # cancelled before anybody has taken it
            await race.winner.close()
        raise
    if race.winner is None:
        raise DialError(race.reasons or [(str(address), "timed out") for address in usable])
    return race.winner
