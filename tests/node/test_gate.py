"""Who gets through a provider's gate, and what the others see: real nodes, and attackers that speak the wire themselves."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError
from trio.testing import MockClock

from peertunnel.access import Access
from peertunnel.auth import MAX_ATTEMPTS, PROOF_TIMEOUT, Authenticator
from peertunnel.budget import BURST, FIRST_INTERVAL
from peertunnel.endpoints import TcpEndpoint
from peertunnel.errors import NotFound, Refused
from peertunnel.events import ProofsFailed, Ready, Warned
from peertunnel.expose import expose
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL, Node
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.protobuf import encode_message
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, Log, echo, node, target

BOTH = ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0")
HELLO = bytes.fromhex("080112214128cbb2cda03f6dcbd8b22dce641004cad02b4b6792b009b7b3706b600b7b0512")
GUESS = [encode_delimited(HELLO), encode_delimited(b"\x0a\x20" + bytes(32))]
ROOT, WRONG = b"r" * 32, b"w" * 32


@dataclass
class Peers:
    """A list of peers that a test changes."""

    ids: set[str] = field(default_factory=set)
    changed: bool = False

    def reload_if_changed(self) -> bool:
        """Tell once that the list has changed."""
        changed, self.changed = self.changed, False
        return changed

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self.ids


@dataclass
class Provider:
    """A running provider, and how often its target was dialled."""

    node: Node
    log: Log
    dialled: list[None]


@asynccontextmanager
async def provider(access: Access | None = None, root: bytes = ROOT) -> AsyncIterator[Provider]:
    """Run a provider whose target echoes."""
    dialled: list[None] = []

    async def count(stream: trio.SocketStream) -> None:
        dialled.append(None)
        await echo(stream)

    async with target(count) as port, node(BOTH) as running, trio.open_nursery() as nursery:
        log, service = Log(), Service("service", root)

        async def provide() -> None:
            rules = access or Access()
            await expose(
                running, service, TcpEndpoint(None, port), log, access=rules, grace=0, stop=trio.Event()
            )

        nursery.start_soon(provide)
        await log.wait(Ready)
        yield Provider(running, log, dialled)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def caller(
    there: Provider, root: bytes = ROOT
) -> AsyncIterator[tuple[MuxedConnection, Authenticator, Host]]:
    """Connect to a provider as somebody with this root secret."""
    async with open_host(Identity.ephemeral(), ()) as host:
        four = [address for address in there.node.addresses if address.startswith("/ip4/")]
        connection = await host.dial(there.node.peer_id, four, PATIENCE)
        yield connection, Authenticator(host, Role.CONSUMER, root, on_proven=lambda _: None), host


async def is_served(connection: MuxedConnection) -> bool:
    """Return whether a tunnel carries bytes there and back."""
    stream = await connection.open_tunnel(TUNNEL)
    try:
        with trio.fail_after(PATIENCE):
            await stream.write(b"hello")
            return await stream.read(5) == b"hello"
    except MuxedStreamError:
        return False


async def time_to_reset(connection: MuxedConnection, messages: Iterable[bytes]) -> float:
    """Send messages on an auth stream and return how many seconds it took until it was reset."""
    began = trio.current_time()
    stream = await connection.open_tunnel(AUTH)
    with pytest.raises(MuxedStreamError), trio.fail_after(PATIENCE):
        for message in messages:
            await stream.write(message)
        while True:
            await stream.read()
    return trio.current_time() - began


async def test_whoever_knows_the_secret_comes_in() -> None:
    async with provider() as there, caller(there) as (connection, authenticator, host):
        await authenticator.prove(connection)
        assert await is_served(connection)
        (theirs,) = there.node.host.connections(host.peer_id)
        assert connection.is_proven and theirs.is_proven


async def test_a_stranger_gets_nothing_and_the_target_is_not_dialled() -> None:
    async with provider() as there, caller(there) as (connection, _, _):
        assert not await is_served(connection)
        assert not there.dialled


async def test_a_wrong_secret_gets_nothing() -> None:
    async with provider() as there, caller(there, WRONG) as (connection, authenticator, _):
        with pytest.raises(Refused):
            await authenticator.prove(connection)
        assert not await is_served(connection)
        assert not there.dialled and not connection.is_proven
        assert not any(theirs.is_proven for theirs in there.node.host.all_connections())


async def test_the_proof_of_one_connection_does_not_count_for_another() -> None:
    async with provider() as there, caller(there) as (connection, authenticator, host):
        await authenticator.prove(connection)
        second = await host.dial(there.node.peer_id, there.node.addresses, PATIENCE)
        assert not await is_served(second)
        assert await is_served(connection)


async def test_a_failed_proof_is_told_once_a_second_at_most(mock_clock: MockClock) -> None:
    async with provider() as there, caller(there, WRONG) as (connection, authenticator, host):
        mock_clock.autojump_threshold = 0.02
        async with trio.open_nursery() as nursery:
            for _ in range(4):

                async def fail() -> None:
                    with pytest.raises(Refused):
                        await authenticator.prove(connection)

                nursery.start_soon(fail)

        told = await there.log.wait(ProofsFailed)
        while told[-1].count < 4:
            told = await there.log.wait(ProofsFailed, len(told) + 1)
        assert len(told) <= 2 and told[-1].peer_id == host.peer_id


async def test_a_known_peer_that_fails_is_told_with_its_address() -> None:
    async with provider() as there, caller(there) as (connection, authenticator, host):
        await authenticator.prove(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(time_to_reset, connection, GUESS)
            (told,) = await there.log.wait(ProofsFailed)
            nursery.cancel_scope.cancel()
        assert (told.peer_id, told.place) == (host.peer_id, "127.0.0.1")


async def test_every_refusal_looks_the_same_and_takes_the_same_time(mock_clock: MockClock) -> None:
    """Silence, bytes that make no sense, a truncated hello and a wrong secret: all end at the same moment."""
    took: list[float] = []

    async def call(whom: Provider, messages: list[bytes]) -> None:
        async with caller(whom) as (connection, _, _):
            took.append(await time_to_reset(connection, messages))

    async with provider(Access(allowed=Peers())) as unlisted, provider() as there:
        mock_clock.autojump_threshold = 0.02
        async with trio.open_nursery() as nursery:
            for messages in ([], [b"\xff" * 64], [encode_delimited(HELLO[:20])], GUESS):
                nursery.start_soon(call, there, messages)
            nursery.start_soon(call, unlisted, GUESS)
    assert took == pytest.approx([PROOF_TIMEOUT] * 5)


async def test_a_peer_that_is_not_on_the_list_fails_like_one_with_a_wrong_secret() -> None:
    async with provider(Access(allowed=Peers())) as there, caller(there) as (connection, authenticator, _):
        with pytest.raises(Refused):
            await authenticator.prove(connection)
        assert not await is_served(connection)


async def test_a_peer_on_the_list_comes_in_without_a_proof_until_it_is_taken_off() -> None:
    listed = Peers()
    async with provider(Access(allowed=listed)) as there, caller(there) as (connection, _, host):
        assert not await is_served(connection)
        listed.ids.add(host.peer_id)
        assert await is_served(connection)
        listed.ids.clear()
        listed.changed = True
        assert not await is_served(connection)


async def test_revoking_closes_tunnels_that_run() -> None:
    listed = Peers()
    async with provider(Access(allowed=listed)) as there, caller(there) as (connection, authenticator, host):
        listed.ids.add(host.peer_id)
        await authenticator.prove(connection)
        stream = await connection.open_tunnel(TUNNEL)
        await stream.write(b"a")
        assert await stream.read() == b"a"

        class Revoked(Peers):
            def reload_if_changed(self) -> bool:
                if self.changed:
                    self.ids.clear()
                return super().reload_if_changed()

        listed.__class__ = Revoked
        listed.changed = True
        with pytest.raises(MuxedStreamError), trio.fail_after(PATIENCE):
            await stream.read()
        await there.log.wait(Warned)


async def test_the_owner_is_asked_about_each_peer_that_has_proven_itself() -> None:
    asked: list[str] = []

    async def ask(peer_id: str) -> bool:
        asked.append(peer_id)
        return len(asked) > 1

    async with provider(Access(ask=ask)) as there:
        async with caller(there, WRONG) as (connection, authenticator, _):
            with pytest.raises(Refused):
                await authenticator.prove(connection)
        assert not asked
        async with caller(there) as (connection, authenticator, host):
            with pytest.raises(Refused):
                await authenticator.prove(connection)
            assert not await is_served(connection)
            await authenticator.prove(connection)
            assert asked == [host.peer_id] * 2
            assert await is_served(connection)


async def test_a_man_in_the_middle_gets_nothing() -> None:
    """Mallory is provider to one and consumer to the other, and passes every byte of the proof on."""
    async with provider() as there, open_host(Identity.ephemeral(), LOOPBACK) as mallory:
        outward = await mallory.dial(there.node.peer_id, there.node.addresses, PATIENCE)

        def pass_on(stream: object) -> None:
            mallory.nursery.start_soon(_join, stream, outward)

        mallory.serve(AUTH, pass_on)
        async with open_host(Identity.ephemeral(), ()) as victim:
            connection = await victim.dial(mallory.peer_id, mallory.addresses, PATIENCE)
            authenticator = Authenticator(victim, Role.CONSUMER, ROOT, on_proven=lambda _: None)
            with pytest.raises(Refused), trio.fail_after(PATIENCE):
                await authenticator.prove(connection)
        assert not await is_served(outward)
        assert not there.dialled


async def _join(inward: object, outward: MuxedConnection) -> None:
    other = await outward.open_tunnel(AUTH)

    async def pump(source: object, sink: object) -> None:
        try:
            while True:
                await sink.write(await source.read())  # type: ignore[attr-defined]
        except MuxedStreamError:
            sink.abort()  # type: ignore[attr-defined]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, inward, other)
        nursery.start_soon(pump, other, inward)


async def test_a_flood_of_proofs_does_not_keep_an_honest_peer_out() -> None:
    """Strangers try as fast as they can; whoever comes from elsewhere is served meanwhile, and so is who came before."""
    async with provider() as there, caller(there) as (before, known, _):
        await known.prove(before)
        async with caller(there) as (attacking, _, _), trio.open_nursery() as nursery:

            async def flood() -> None:
                """Guess again as soon as the last guess is refused; a hello that is made up costs nothing."""
                while True:
                    await time_to_reset(attacking, GUESS)

            for _ in range(2 * MAX_ATTEMPTS):
                nursery.start_soon(flood)
            with trio.fail_after(PATIENCE):
                await there.log.wait(ProofsFailed)
                async with open_host(Identity.ephemeral(), ()) as host:
                    six = [address for address in there.node.addresses if address.startswith("/ip6/")]
                    connection = await host.dial(there.node.peer_id, six, PATIENCE)
                    honest = Authenticator(host, Role.CONSUMER, ROOT, on_proven=lambda _: None)
                    await honest.prove(connection)
                    assert await is_served(connection)
                assert await is_served(before)
            nursery.cancel_scope.cancel()


async def test_strangers_that_stay_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        provider() as there,
        caller(there) as (stranger, _, _),
        caller(there) as (friend, authenticator, _),
    ):
        await authenticator.prove(friend)
        monkeypatch.setattr("peertunnel.gate.UNPROVEN_TIME", 0.5)
        with trio.fail_after(PATIENCE):
            await stranger.event_closed.wait()
        assert await is_served(friend)


async def test_too_many_strangers_push_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.gate.MAX_UNPROVEN", 3)
    async with provider() as there, caller(there) as (friend, authenticator, _), AsyncExitStack() as stack:
        await authenticator.prove(friend)
        strangers = []
        for _ in range(5):
            connection, _, _ = await stack.enter_async_context(caller(there))
            await connection.open_tunnel(AUTH)  # in use, and still a stranger
            strangers.append(connection)
        with trio.fail_after(PATIENCE):
            await strangers[0].event_closed.wait()
            await strangers[1].event_closed.wait()
        assert not any(connection.is_closed for connection in strangers[2:])
        assert await is_served(friend)


async def test_one_place_cannot_have_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.transport.swarm.MAX_PER_PLACE", 3)
    async with provider() as there, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(caller(there))
        async with open_host(Identity.ephemeral(), ()) as host:
            four, six = (
                [address for address in there.node.addresses if address.startswith(kind)]
                for kind in ("/ip4/", "/ip6/")
            )
            with pytest.raises(NotFound):
                await host.dial(there.node.peer_id, four, PATIENCE)
            await host.dial(there.node.peer_id, six, PATIENCE)


async def test_a_crowd_that_comes_at_once_is_let_in() -> None:
    """All from one address, as when a server restarts that many have been connected to."""
    async with provider() as there, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(caller(there)) for _ in range(3 * BURST)]
        async with trio.open_nursery() as nursery:
            for connection, authenticator, _ in callers:
                nursery.start_soon(authenticator.prove, connection)


async def test_a_peer_that_we_call_has_no_more_guesses_than_one_that_calls_us() -> None:
    """A stranger that lets itself be called gets one guess each time; after a few, the calls wait."""

    async def guess(stream: MuxedStream) -> None:
        await stream.read()
        await stream.write(encode_delimited(encode_message([(1, b"A" + HELLO[5:37]), (2, bytes(32))])))

    async with (
        open_host(Identity.ephemeral(), ()) as host,
        open_host(Identity.ephemeral(), LOOPBACK) as stranger,
    ):
        stranger.serve(AUTH, lambda stream: stranger.nursery.start_soon(guess, stream))
        authenticator = Authenticator(host, Role.PROVIDER, ROOT, on_proven=lambda _: None)
        connection = await host.dial(stranger.peer_id, stranger.addresses, PATIENCE)
        began = trio.current_time()
        for _ in range(BURST + 3):
            with pytest.raises(Refused):
                await authenticator.prove(connection)
        assert trio.current_time() - began >= 3 * FIRST_INTERVAL
