"""How a relay does: is it there, how far away, and does it pass calls on to us?"""

from collections.abc import Iterable
from dataclasses import replace

from peertunnel.doctor.facts import Relay
from peertunnel.host import Host
from peertunnel.peers import RequestError
from peertunnel.protocols.circuit import HOP, CircuitRefused
from peertunnel.streams import Unavailable
from peertunnel.transport.identify import identified
from peertunnel.transport.reservations import reserve_at

VISIT = 5.0  # seconds for it to be reached


async def try_relay(host: Host, relay: Relay, places: Iterable[str]) -> Relay:
    """Call a relay and reserve there.

    Args:
        host: whose reservation it is.
        relay: which one.
        places: its multiaddrs.
    """
    try:
        async with host.visit(relay.peer_id, places, VISIT) as connection:
            relay = replace(relay, round_trip=await connection.ping())
            relay = replace(relay, is_relay=HOP in (await identified(connection)).protocols)
            if not relay.is_relay:
                return relay
            limit = (await reserve_at(connection, host.peer_id)).limit
            return replace(relay, is_reserved=True, limit=limit)
    except CircuitRefused as error:
        return replace(relay, refusal=str(error))
    except (RequestError, Unavailable):
        return relay
