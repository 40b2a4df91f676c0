"""How often those are dialled again who did not answer: whoever names candidates could have us flood a third party."""

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable

import trio

from peertunnel.budget import place_of

AGAIN = 16.0  # addresses a second that are dialled in one network; an honest peer has half a dozen, and is tried once
BURST = 64.0  # of them at once: two candidates' worth
MAX_PLACES = 1024  # networks that are counted


class Pace:
    """Counts what is dialled again, by network; this machine may be dialled at will."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many more, and when that was

    def admit(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Return those of some multiaddrs that may be dialled again now, and count them."""
        now = trio.current_time()
        return tuple(address for address in addresses if self._takes(_place(address), now))

    def _takes(self, place: str | None, now: float) -> bool:
        if place is None:
            return True
        left, then = self._left.pop(place, (BURST, now))
        left = min(BURST, left + (now - then) * AGAIN)
        self._left[place] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MAX_PLACES:
            self._left.popitem(last=False)
        return left >= 1


def _place(address: str) -> str | None:
    """Name the network that a multiaddr leads to first, or its host's name; None for this machine."""
    _, _, host, *_ = f"{address}//".split("/")
    try:
        return None if ipaddress.ip_address(host.partition("%")[0]).is_loopback else place_of((host, 0))
    except ValueError:
        return host
