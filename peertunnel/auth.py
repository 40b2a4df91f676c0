"""The proof of a service's secret, over a stream: asked for, given, counted and remembered per connection.

1. Either end opens a stream of `/peertunnel/auth/1.0.0`, once per connection (`Authenticator.prove`).
2. The other end takes a token of the service's budget, answers, and checks (`Authenticator.accept`).
3. The provider decides and says so; from then on the connection is proven at both ends, until it ends.

An attempt that fails is reset when its time is over, and not before: a wrong secret, a peer that is not on the list, bad
bytes and silence look the same from outside.
"""

import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from peertunnel.budget import Budget, Origin
from peertunnel.errors import NotFound, Refused
from peertunnel.host import Host
from peertunnel.protocols.auth import (
    MAX_MESSAGE,
    PASSWORD_BYTES,
    PROTOCOL,
    Opener,
    Responder,
    Role,
    accepted,
    check_accepted,
    password_of,
)
from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

PROOF_TIMEOUT = 4.0  # seconds for an exchange, and until a failed one is reset
DECISION_TIMEOUT = 60.0  # seconds for the provider's owner to decide
MAX_ATTEMPTS = 256  # exchanges, and waits for one, at a time; beyond that one is dropped from where most are
MAX_KNOWN = 1024  # peers that have proven themselves since we started

Decide = Callable[[str], Awaitable[bool]]


async def _everybody(_: str) -> bool:
    return True


@dataclass(slots=True, eq=False)
class _Attempt:
    """One exchange that a peer has begun, or that is to be: where the peer is, and the scope that ends it early."""

    origin: Origin
    scope: trio.CancelScope


class Authenticator:
    """One end's side of a service's proofs.

    Args:
        host: whose connections they are.
        role: what this end is.
        root: the service's root secret, 32 bytes.
        decide: for a provider, whether a peer (by its id) that knows the secret may come in.
        may_prove: whether it helps a peer to know the secret; for others every proof fails.
        keeps: whether connections that have been proven are not closed for being idle.
        on_proven: called with each connection that has been proven; raises Refused for one that is not wanted, and NotFound
            where that can't be told now.
        on_failed: called with the peer id and the place of each attempt that has failed.

    Attributes:
        proven: the living connections that have been proven.
    """

    def __init__(
        self,
        host: Host,
        role: Role,
        root: bytes,
        *,
        on_proven: Callable[[MuxedConnection], None],
        on_failed: Callable[[str, str], None] = lambda peer_id, place: None,
        decide: Decide = _everybody,
        may_prove: Callable[[str], bool] = lambda peer_id: True,
        keeps: bool = True,
    ) -> None:
        self.proven: set[MuxedConnection] = set()
        self._host = host
        self._role = role
        self._password = password_of(root)
        self._decide = decide
        self._may_prove = may_prove
        self._on_proven = on_proven
        self._on_failed = on_failed
        self._keeps = keeps
        self._budget = Budget()
        self._attempts: list[_Attempt] = []
        self._known: OrderedDict[str, None] = OrderedDict()

    # -- the end that opens the stream ------------------------------------------------------------------------------

    async def prove(self, connection: MuxedConnection) -> None:
        """Prove ourselves to a peer, and have it prove itself: that is one guess for it, so it takes a token, too.

        Raises:
            Refused: it did not, or did not let us in, or too many peers of where it is wait for that.
            NotFound: the connection was lost first.
        """
        peer_id = str(connection.peer_id)
        origin = self._origin(connection)
        await self._take_turn(origin)
        party = Opener(self._role, self._password, self._host.peer_id, peer_id, secrets.token_bytes)
        is_proven = False
        try:
            deadline = trio.current_time() + 2 * PROOF_TIMEOUT  # the peer may have to wait for a token first
            with trio.fail_at(deadline):  # it may grant no stream at all
                stream = await connection.open_tunnel(PROTOCOL)
            try:
                talk = _Talk(stream)
                with trio.fail_at(deadline):
                    await talk.say(party.hello())
                    confirmation = party.receive(await talk.hear())
                    is_proven = True
                    self._budget.give_back(origin)
                    await talk.say(confirmation)
                await self._conclude(talk, connection)
            finally:
                stream.abort()
        except (MuxedConnError, MuxedStreamError, RemoteProtocolError, trio.TooSlowError) as error:
            if not is_proven:
                self._count_failure(origin, error)
            if connection.is_closed:
                raise NotFound(f"Peer {peer_id} was lost: {connection.reason}.") from error
            raise Refused(f"Peer {peer_id} did not prove that it knows the id, or refused ours.") from error

    async def _take_turn(self, origin: Origin) -> None:
        """Wait for a token; raises Refused where too many wait already."""
        attempt = self._begin(origin)
        try:
            with attempt.scope:
                await self._budget.take(origin)
                return
        finally:
            self._end(attempt)
        raise Refused(f"Too many peers wait to prove themselves, peer {origin.peer_id} among them.")

    async def _conclude(self, talk: "_Talk", connection: MuxedConnection) -> None:
        """Say or hear that the consumer is let in, and remember it."""
        if self._role is Role.CONSUMER:
            with trio.fail_after(DECISION_TIMEOUT + PROOF_TIMEOUT):
                check_accepted(await talk.hear())
            self._remember(connection)
        else:
            with trio.fail_after(DECISION_TIMEOUT):
                if not await self._decide(str(connection.peer_id)):
                    raise RemoteProtocolError("the peer is not let in")
            self._remember(connection)  # first: tunnels may follow at once
            with trio.fail_after(PROOF_TIMEOUT):
                await talk.say(accepted())
                await talk.stream.close_write()
                await talk.drained()

    # -- the end that takes it --------------------------------------------------------------------------------------

    def accept(self, stream: MuxedStream) -> None:
        """Take a stream on which a peer wants to prove itself."""
        self._host.start_soon(self._answer, stream, self._begin(self._origin(stream.muxed_conn)))

    async def _answer(self, stream: MuxedStream, attempt: _Attempt) -> None:
        began = trio.current_time()
        try:
            with attempt.scope:
                try:
                    with trio.fail_at(began + PROOF_TIMEOUT):
                        talk = await self._exchange(stream, attempt.origin)
                    await self._conclude(talk, stream.muxed_conn)
                except (MuxedStreamError, RemoteProtocolError, NotFound, Refused, trio.TooSlowError):
                    await trio.sleep_until(began + PROOF_TIMEOUT)
        finally:
            self._end(attempt)
            stream.abort()

    async def _exchange(self, stream: MuxedStream, origin: Origin) -> "_Talk":
        """Check the peer's proof; the token that it costs comes back if it is right."""
        peer_id = str(stream.muxed_conn.peer_id)
        await self._budget.take(origin)
        try:
            password = self._password if self._may_prove(peer_id) else secrets.token_bytes(PASSWORD_BYTES)
            party = Responder(self._role, password, self._host.peer_id, peer_id, secrets.token_bytes)
            talk = _Talk(stream)
            await talk.say(party.receive(await talk.hear()))
            party.confirm(await talk.hear())
            self._budget.give_back(origin)
            return talk
        except BaseException as error:
            # Cancelled, too: our reply may have told the peer already whether its guess was right.
            if self._count_failure(origin, error):
                self._on_failed(peer_id, stream.muxed_conn.place)
            raise

    # -- both -------------------------------------------------------------------------------------------------------

    def _count_failure(self, origin: Origin, error: BaseException) -> bool:
        """Return whether a failed proof counts: not of one who has hung up, as it has proven itself on another connection.

        Peers that dial each other at the same moment do that.
        """
        has_hung_up = isinstance(error, MuxedStreamError | MuxedConnError)
        is_in = any(str(connection.peer_id) == origin.peer_id for connection in self.proven)
        (self._budget.give_back if has_hung_up and is_in else self._budget.fail)(origin)
        return not (has_hung_up and is_in)

    def _begin(self, origin: Origin) -> _Attempt:
        """Note an attempt; where there are too many, the oldest ends of the peer and the place that have most."""
        attempt = _Attempt(origin, trio.CancelScope())
        self._attempts.append(attempt)
        if len(self._attempts) > MAX_ATTEMPTS:
            (place, _), *_ = Counter(other.origin.place for other in self._attempts).most_common(1)
            there = [other for other in self._attempts if other.origin.place == place]
            (crowded, _), *_ = Counter(other.origin for other in there).most_common(1)
            oldest = next(other for other in there if other.origin == crowded)
            self._end(oldest)  # now: more may come before its task runs
            oldest.scope.cancel()
        return attempt

    def _end(self, attempt: _Attempt) -> None:
        if attempt in self._attempts:
            self._attempts.remove(attempt)

    def _origin(self, connection: MuxedConnection) -> Origin:
        """Give where a peer is; who has proven itself before does not wait for others that are there."""
        peer_id = str(connection.peer_id)
        return Origin(peer_id if peer_id in self._known else connection.place, peer_id)

    def _remember(self, connection: MuxedConnection) -> None:
        if connection.is_closed:
            return
        self.proven.add(connection)
        connection.kept += self._keeps
        connection.is_proven = True
        peer_id = str(connection.peer_id)
        self._known[peer_id] = None
        self._known.move_to_end(peer_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._host.start_soon(self._forget_at_end, connection)
        self._on_proven(connection)

    async def _forget_at_end(self, connection: MuxedConnection) -> None:
        await connection.event_closed.wait()
        self.proven.discard(connection)


class _Talk:
    """Messages on a stream, one at a time."""

    def __init__(self, stream: MuxedStream) -> None:
        self.stream = stream
        self._delimited = Delimited(MAX_MESSAGE)
        self._heard: list[bytes] = []

    async def say(self, message: bytes) -> None:
        """Send a message."""
        await self.stream.write(encode_delimited(message))

    async def hear(self) -> bytes:
        """Return the peer's next message."""
        while not self._heard:
            self._heard = self._delimited.receive(await self.stream.read(MAX_MESSAGE))
        return self._heard.pop(0)

    async def drained(self) -> None:
        """Wait until the peer ends the stream: it has read all then."""
        try:
            await self.stream.read(1)
        except MuxedStreamError:
            pass
