"""`pt relay` as a circuit relay: within limits for strangers, without for those whom the command line names."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from peertunnel.auth import Authenticator
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.protocols.auth import Role
from peertunnel.protocols.circuit.book import STRANGERS_LIMIT
from peertunnel.protocols.topic import derive_root
from tests.cli.commands import POLL, SECONDS, Started
from tests.cli.servers import ask, connect, echo_server, receive
from tests.cli.test_relay import page, until_page_has, via
from tests.node.circuits import Peer
from tests.node.pair import PATIENCE

ID = "an id that a team shares"


@asynccontextmanager
async def peer_of(relay: Started, identity: Identity) -> AsyncIterator[Peer]:
    """Connect to a relay."""
    address = await trio.to_thread.run_sync(via, relay)
    relay_id = address.rpartition("/")[2]
    async with open_host(identity, ()) as host:
        yield Peer(host, relay_id, await host.dial(relay_id, [address], PATIENCE))


async def test_strangers_have_limits_and_those_who_are_named_have_none(tmp_path: Path) -> None:
    friend = Identity.ephemeral()
    with Started(tmp_path, "relay", "--unlimited-for", friend.peer_id) as relay:
        async with peer_of(relay, Identity.ephemeral()) as stranger, peer_of(relay, friend) as named:
            assert (await stranger.reserve()).limit == STRANGERS_LIMIT
            assert (await named.reserve()).limit is None


async def test_the_file_with_names_counts_as_soon_as_it_changes(tmp_path: Path) -> None:
    names = tmp_path / "friends"
    names.write_text("# nobody yet\n")
    with Started(tmp_path, "relay", "--unlimited-peers", str(names)) as relay:
        async with peer_of(relay, Identity.ephemeral()) as peer:
            assert (await peer.reserve()).limit == STRANGERS_LIMIT
            names.write_text(f"{peer.peer_id} a friend\n")
            with trio.fail_after(SECONDS):
                while (await peer.reserve()).limit is not None:  # noqa: ASYNC110  the relay tells nobody
                    await trio.sleep(POLL)


async def test_who_proves_the_id_has_no_limits(tmp_path: Path) -> None:
    secret = tmp_path / "id"
    secret.write_text(ID + "\n")
    with Started(tmp_path, "relay", "--unlimited-id-file", str(secret)) as relay:
        async with peer_of(relay, Identity.ephemeral()) as peer:
            assert (await peer.reserve()).limit == STRANGERS_LIMIT
            root = await trio.to_thread.run_sync(derive_root, ID)
            prover = Authenticator(peer.host, Role.CONSUMER, root, on_proven=lambda connection: None)
            await prover.prove(peer.connection)
            assert (await peer.reserve()).limit is None


async def test_circuits_are_counted(tmp_path: Path) -> None:
    with Started(tmp_path, "relay", "--metrics", "0") as relay:
        async with (
            peer_of(relay, Identity.ephemeral()) as caller,
            peer_of(relay, Identity.ephemeral()) as called,
        ):
            await called.reserve()
            one, other = await caller.connect(called)
            await one.write(bytes(1000))
            received = 0
            while received < 1000:
                received += len(await other.read())
            await trio.to_thread.run_sync(until_page_has, relay, "peertunnel_circuit_bytes_total 1000.0")
            text = await trio.to_thread.run_sync(page, relay)
            one.abort()
            await trio.to_thread.run_sync(until_page_has, relay, "peertunnel_circuits 0.0")
    assert "\npeertunnel_circuits 1.0\n" in text
    assert "\npeertunnel_circuit_reservations 1.0\n" in text
    for request in ("reserve", "connect"):
        assert f'\npeertunnel_circuit_requests_total{{request="{request}",status="ok"}} 1.0\n' in text


async def test_it_may_carry_nothing(tmp_path: Path) -> None:
    with Started(tmp_path, "relay", "--no-circuits", "--metrics", "0") as relay:
        async with peer_of(relay, Identity.ephemeral()) as peer:
            with pytest.raises(MuxedStreamReset):
                await peer.reserve()
            assert "peertunnel_circuit" not in await trio.to_thread.run_sync(page, relay)


@contextmanager
def consumer_behind(relay: Started, folder: Path, target: int) -> Iterator[Started]:
    """Run a provider and a consumer that reach each other through a relay only; yield the consumer."""
    shared = ("--relay-only", "--via", via(relay), "--json")
    with (
        Started(folder / "a", *shared, "tcp", "--port", str(target), PT_ID=ID),
        Started(folder / "b", *shared, "bind", "--port", "0", PT_ID=ID) as consumer,
    ):
        yield consumer


@pytest.mark.parametrize("known", [ID, "the id of another team"])
def test_a_service_has_no_limits_at_a_relay_that_knows_its_id(known: str, tmp_path: Path) -> None:
    secret = tmp_path / "id"
    secret.write_text(known + "\n")
    size = 2 * STRANGERS_LIMIT.bytes
    with (
        echo_server() as target,
        Started(tmp_path / "r", "relay", "--unlimited-id-file", str(secret)) as relay,
        consumer_behind(relay, tmp_path, target) as consumer,
    ):
        path = json.loads(consumer.until(r"^.*\"kind\": ?\"path\".*$")[0])
        assert path["path"] == "relayed"
        if known == ID:
            assert path["limit_bytes"] is path["limit_seconds"] is None
            with connect(consumer.port()) as client:
                assert ask(client, bytes(size)) == bytes(size)
        else:
            assert (
                0 < path["limit_bytes"] <= STRANGERS_LIMIT.bytes
                and 0 < path["limit_seconds"] <= STRANGERS_LIMIT.seconds
            )
            with connect(consumer.port()) as client, pytest.raises(ConnectionError):
                client.sendall(bytes(size))
                receive(client, size)
