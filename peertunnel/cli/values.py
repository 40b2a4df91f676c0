"""What a command is given, read: each function takes text and raises UsageError, one sentence, when it can't."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from peertunnel.errors import UsageError
from peertunnel.protocols.errors import LocalProtocolError

if TYPE_CHECKING:
    from peertunnel.endpoints import Endpoint
    from peertunnel.protocols.link import Link
    from peertunnel.protocols.service import Service

P = ParamSpec("P")
T = TypeVar("T")
MAX_PORT = 65535
UNPRIVILEGED = 1024  # the first port that anybody may open; IPPORT_RESERVED of Berkeley sockets
PRIVILEGED_MOVE = 2000  # so 22 becomes 2022


def port(text: str) -> int:
    """Read the port of a target: 1 to 65535."""
    number = local_port(text)
    if number == 0:
        raise UsageError(
            "Nothing can be reached at port 0.", hint="Give the port that the service listens on."
        )
    return number


def local_port(text: str) -> int:
    """Read a port to listen on: 0 to 65535, where 0 picks a free one."""
    try:
        number = int(text) if text.isascii() and text.isdigit() else -1
    except ValueError:  # int() takes 4300 digits
        number = -1
    if not 0 <= number <= MAX_PORT:
        raise UsageError(f"{text!r} is not a port.", hint=f"A port is a number from 0 to {MAX_PORT}.")
    return number


def free_choice(port: int | None) -> int:
    """Suggest a port for the other side: the same one, if anybody may open it; 0 when there is none to copy."""
    return port + PRIVILEGED_MOVE if port and port < UNPRIVILEGED else port or 0


def seconds(text: str) -> float:
    """Read a time in seconds, 0 or more; "inf" is for ever."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:  # NaN is no time either
        raise UsageError(f"{text!r} is not a time.", hint="A time is a number of seconds, 0 or more.")
    return value


def target(text: str) -> "Endpoint":
    """Read what a provider dials."""
    from peertunnel.endpoints import parse_target

    return parse_target(text)


def local(text: str) -> "Endpoint":
    """Read where a consumer listens."""
    from peertunnel.endpoints import parse_local

    return parse_local(text)


def place(text: str) -> str:
    """Read a multiaddr to listen on."""
    from peertunnel.protocols.address import is_for_listening, split_address

    hint = "Write a multiaddr such as /ip4/0.0.0.0/tcp/4001."
    with _as_usage(hint):
        address, _ = split_address(text)
    if not is_for_listening(address):
        raise UsageError(f"{text} is no address that peers are reached at, by TCP or QUIC.", hint=hint)
    return address


def peer_place(text: str) -> str:
    """Read a multiaddr of a peer, which ends in /p2p/ and the peer id."""
    from peertunnel.protocols.address import split_address

    hint = "Write it as the other side shows it with -v: /ip4/192.0.2.1/tcp/4001/p2p/PEERID."
    with _as_usage(hint):
        if split_address(text)[1] is None:
            raise UsageError(f"{text} does not say which peer is there.", hint=hint)
    return text


def peer_id(text: str) -> str:
    """Read a peer id."""
    from peertunnel.protocols.peerid import parse_peer_id

    with _as_usage("Copy the one that pt info shows on the other machine."):
        return parse_peer_id(text)


def entry(text: str) -> str:
    """Read a multiaddr of a peer, or a /dnsaddr that leads to some."""
    from peertunnel.protocols.address import split_address

    if not text.startswith("/dnsaddr/"):
        return peer_place(text)
    with _as_usage("Write it as /dnsaddr/bootstrap.example.org."):
        split_address(text)
    return text


def link(text: str) -> "Link":
    """Read a pk:// link or a bare peer id."""
    from peertunnel.protocols.link import parse_link

    with _as_usage("Copy the whole line that pt share printed; quote it, because of the & in it."):
        found = parse_link(text)
        _check_readable((*found.addresses, *found.relays))
    return found


def service(tunnel_id: str | None, peers: Sequence[str] = (), is_public: bool = False) -> "Service":
    """Give the service that a tunnel id, addresses of its peer, or both lead to. The id takes 0.2 s or so."""
    from peertunnel.protocols.service import Service

    with _as_usage("A tunnel id is any text, and all addresses are those of one peer."):
        _check_readable(peers)
        if tunnel_id is None:
            return Service.from_addresses(peers)
        if is_public:
            return Service.public(tunnel_id).with_addresses(peers)
        return Service.from_id(tunnel_id).with_addresses(peers)


def peer(text: str) -> "Service | None":
    """Read a multiaddr, a link or a peer id; None for any other text, which is a tunnel id."""
    from peertunnel.protocols.peerid import PeerIdError, parse_peer_id
    from peertunnel.protocols.service import Service

    if text.startswith("/"):
        return service(None, [peer_place(text)])
    try:
        parse_peer_id(text)
    except PeerIdError:
        if "://" not in text:
            return None
    return Service.from_link(link(text))


def soon(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Read something slow while the caller goes on, to load libp2p, say; the result waits for it, or raises."""
    from concurrent.futures import Future
    from threading import Thread

    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(read(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  the caller's, when it asks
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # a pool's thread would hold up our end
    return future.result


def _check_readable(addresses: Sequence[str]) -> None:
    if addresses:
        from peertunnel.multiaddrs import check_readable  # its library takes a while to load

        check_readable(addresses)


@contextmanager
def _as_usage(hint: str) -> Iterator[None]:
    """Turn what a parser says, which starts small and has no full stop, into the sentence that users read."""
    try:
        yield
    except LocalProtocolError as error:
        text = str(error)
        full_stop = "" if text.endswith("?") else "."
        raise UsageError(f"{text[:1].upper()}{text[1:]}{full_stop}", hint=hint) from None
