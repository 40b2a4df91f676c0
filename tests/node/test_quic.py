"""Hosts that meet over QUIC: who is let in, and what becomes of streams."""

import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection as Stranger
from aioquic.quic.events import ConnectionTerminated
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

from peertunnel.errors import NotFound
from peertunnel.host import Host, HostError, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.certificate import issue
from peertunnel.protocols.multistream import Initiator
from peertunnel.streams import End
from peertunnel.transport import connection, quic
from peertunnel.transport.stream import MuxedStream
from tests.node.hosts import PROTOCOL, hosts, streams
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic import udp
from peertunnel.transport.quic.connection import BATCH, HELD, QuicConnection
from peertunnel.transport.quic.room import SEND_WINDOW
from peertunnel.transport.quic.transport import STREAM_WINDOW

SO_NO_CHECK = 11  # socket(7) of Linux; Python doesn't know it
IPV6 = ("/ip6/::1/tcp/0",)


async def test_bytes_and_ends_arrive() -> None:
    async with streams() as (client, server):
        await client.write(b"ping")
        assert await server.read() == b"ping"
        await client.close_write()
        with pytest.raises(MuxedStreamEOF):
            await server.read()
        await server.write(b"pong")
        await server.close()
        assert await client.read() == b"pong"
        with pytest.raises(MuxedStreamEOF):
            await client.read()
        assert isinstance(client.muxed_conn, QuicConnection)
        await until(lambda: not client.muxed_conn.has_streams)


async def carry(client: MuxedStream, server: MuxedStream, data: bytes) -> None:
    """Send bytes from one end to the other, where all of them arrive."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.write, data)
        received = bytearray()
        with trio.fail_after(PATIENCE):
            while len(received) < len(data):
                received += await server.read()
        assert received == data


async def test_without_the_systems_batches_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, and on Linux where a network driver knows none."""
    monkeypatch.setattr(udp, "_IS_LINUX", False)
    data = os.urandom(4 << 20)
    async with streams() as (client, server):
        await carry(client, server, data)


async def test_what_waits_is_read_before_anything_is_answered() -> None:
    """Datagrams of different sizes are no batch, and each of them answered by itself would cost the more."""
    async with hosts() as (_, _, connection):
        assert isinstance(connection, QuicConnection)
        receiving = connection._endpoint._udp
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for size in (1, 2, 3):
                stranger.sendto(bytes(size), ("127.0.0.1", receiving.name[1]))
        connection._endpoint._receive()
        with pytest.raises(BlockingIOError):
            receiving.receive()


async def test_where_the_system_refuses_batches_each_datagram_goes_by_itself() -> None:
    """Linux refuses them on a socket that sends no checksums, and network drivers for reasons of their own."""
    data = os.urandom(4 << 20)
    async with streams() as (client, server):
        assert isinstance(client.muxed_conn, QuicConnection)
        sender = client.muxed_conn._endpoint._udp
        assert sender.segments > 1
        sender.sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        await carry(client, server, data)
        assert sender.segments == 1


async def test_a_reset_is_never_taken_for_an_end() -> None:
    async with streams() as (client, server):
        await client.write(b"half")
        assert await server.read() == b"half"
        client.abort()
        with pytest.raises(MuxedStreamReset):
            await server.read()
        with pytest.raises(MuxedStreamReset):
            await server.write(b"more")


async def test_a_reader_that_stops_holds_its_writer_back_and_nobody_else() -> None:
    async with streams() as (client, server):
        sent = 0
        with trio.move_on_after(1) as waiting:
            while True:
                await client.write(bytes(BATCH))
                sent += BATCH
        assert waiting.cancelled_caught
        assert (
            sent <= STREAM_WINDOW[1] + HELD + 2 * BATCH + SEND_WINDOW
        )  # the peer's, and what we hold for it
        assert len(server._inbox) <= HELD
        with trio.fail_after(PATIENCE):
            assert await client.muxed_conn.ping() > 0
            received = 0
            while received < sent:
                received += len(await server.read())


async def test_many_readers_that_stop_hold_nobody_else_back() -> None:
    """What they don't read comes out of the window of the whole connection."""
    arrived = list[MuxedStream]()
    async with hosts() as (server, _, near):
        server.serve(PROTOCOL, arrived.append)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                stalled = await near.open_tunnel(PROTOCOL)
                nursery.start_soon(stalled.write, bytes(STREAM_WINDOW[1] + HELD + 4 * BATCH))
            await until(lambda: len(arrived) == 20)
            await trio.sleep(2)
            assert len(nursery.child_tasks) == 20, "who is not read from can write without end"
            nursery.cancel_scope.cancel()
        lively = await near.open_tunnel(PROTOCOL)
        with trio.fail_after(PATIENCE):
            await lively.write(b"?")
            await until(lambda: len(arrived) == 21)
            assert await arrived[-1].read() == b"?"


async def test_a_protocol_is_settled_piece_by_piece_although_nothing_can_be_sent() -> None:
    """Other streams have used up what the engine holds, and the peer's proposal came in two datagrams."""
    proposal, arrived = Initiator(PROTOCOL), list[MuxedStream]()
    hello = proposal.hello()
    async with hosts() as (server, client, near):
        server.serve(PROTOCOL, arrived.append)
        client.serve(PROTOCOL, lambda stream: None)
        await until(lambda: server.connections(client.peer_id))
        (far,) = server.connections(client.peer_id)
        bulk = [await far.open_tunnel(PROTOCOL) for _ in range(10)]
        proposing = await near._open(proposal)
        near.send(proposing.stream_id, hello[:5])
        await until(lambda: proposing.stream_id in far._streams)
        for stream in bulk:
            while far.send_window(stream.stream_id):
                far.send(stream.stream_id, bytes(BATCH))
        for piece in (hello[5:25], hello[25:]):
            far._streams[proposing.stream_id].on_data([memoryview(piece)], len(piece))
        assert far.send_window(proposing.stream_id) == 0
        assert [stream.protocol for stream in arrived] == [PROTOCOL]
        await until(lambda: proposal.agreed)


async def test_a_stream_whose_first_bytes_are_late_is_waited_for_and_is_no_use_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is open since a later one is; one on which half of a proposal has come is not waited for."""
    monkeypatch.setattr(connection, "NEGOTIATION_TIMEOUT", 0.1)
    late, slow, arrived = Initiator(PROTOCOL), Initiator(PROTOCOL), list[MuxedStream]()
    async with hosts() as (server, client, near):
        server.serve(PROTOCOL, arrived.append)
        await until(lambda: server.connections(client.peer_id))
        (far,) = server.connections(client.peer_id)
        await until(lambda: not far.has_streams)
        waiting, talking = await near._open(late), await near._open(slow)
        near.send(talking.stream_id, slow.hello()[:5])
        await until(lambda: talking.end is End.PEER_RESET)
        assert waiting.stream_id in far._streams and not far.is_used
        await trio.sleep(0.3)  # three times its time
        near.send(waiting.stream_id, late.hello())
        await until(lambda: arrived)
        assert far.is_used and not waiting.is_closed


async def test_what_was_sent_before_a_close_arrives() -> None:
    async with streams() as (client, server):
        await client.write(bytes(1 << 20))
        await client.close_write()
        await server.close_write()
        with pytest.raises(MuxedStreamEOF):  # else the stream would be open still, and be aborted
            await client.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.muxed_conn.close, PATIENCE)
            received = 0
            with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamEOF):
                while True:
                    received += len(await server.read())
        assert received == 1 << 20


async def test_a_slow_reader_gets_it_all_although_the_peer_is_gone() -> None:
    async with streams() as (client, server):
        await server.close_write()
        await client.write(bytes(4 * HELD))
        await client.close_write()
        await until(lambda: client.is_closed and not client.muxed_conn.is_delivering)
        await client.muxed_conn.close()
        await server.muxed_conn.event_closed.wait()
        received = 0
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamEOF):
            while True:
                received += len(await server.read())
        assert received == 4 * HELD


async def test_a_lost_connection_is_never_taken_for_an_end() -> None:
    async with streams() as (client, server):
        await client.write(b"half")
        assert await server.read() == b"half"
        client.muxed_conn._end("closed by us")
        with trio.fail_after(PATIENCE), pytest.raises(MuxedStreamReset):
            await server.read()
        assert server.end is End.LOST


async def test_another_peer_at_the_address_is_refused() -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "quic") as server,
        open_host(Identity.ephemeral(), (), "quic") as client,
    ):
        place = server.addresses[0].partition("/p2p/")[0]
        with pytest.raises(NotFound, match=server.peer_id):
            await client.dial(Identity.ephemeral().peer_id, [place], PATIENCE)
        await until(lambda: not server.all_connections())


async def test_where_nobody_listens_a_dial_fails_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_host(Identity.ephemeral(), (), "quic") as client:
        with trio.fail_after(PATIENCE / 2), pytest.raises(NotFound, match="refused"):
            await client.dial(Identity.ephemeral().peer_id, [f"/ip4/127.0.0.1/udp/{port}/quic-v1"], PATIENCE)


async def test_a_dial_that_fails_unforeseen_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "quic") as server,
        open_host(Identity.ephemeral(), (), "quic") as client,
    ):
        monkeypatch.setattr(QuicConnection, "__init__", fail)
        with trio.fail_after(PATIENCE / 2), pytest.raises(NotFound, match="internal error"):
            await client.dial(server.peer_id, server.addresses, PATIENCE)


@pytest.mark.parametrize("listen", [LOOPBACK, IPV6], ids=("IPv4", "IPv6"))
async def test_quic_listens_on_tcps_port_and_is_announced(listen: tuple[str, ...]) -> None:
    async with (
        open_host(Identity.ephemeral(), listen) as server,
        open_host(Identity.ephemeral(), (), "quic") as client,
    ):
        tcp, beside = (address.partition("/p2p/")[0] for address in server.addresses)
        assert beside == tcp.replace("/tcp/", "/udp/") + "/quic-v1"
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        assert str(connection.get_transport_addresses()[0]) == beside


async def test_a_wildcard_is_bound_in_both_families() -> None:
    both = ("/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1")
    async with open_host(Identity.ephemeral(), both) as server, open_host(Identity.ephemeral(), ()) as client:
        for host in ("/ip4/127.0.0.1/", "/ip6/::1/"):
            (address,) = [address for address in server.addresses if address.startswith(host)]
            connection = await client.dial(server.peer_id, [address], PATIENCE)
            assert await connection.ping() > 0


async def test_without_the_engine_tcp_goes_on_and_quic_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic, "why_not", lambda: "built without Rust")
    monkeypatch.setattr("peertunnel.host.why_not", lambda: "built without Rust")
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        assert ["/tcp/" in address for address in host.addresses] == [True]
    with pytest.raises(HostError, match="does not speak QUIC: built without Rust"):
        async with open_host(Identity.ephemeral(), LOOPBACK, "quic"):
            pass


def chain(folder: Path, count: int) -> tuple[Path, Path]:
    """Write so many certificates of one peer, each by itself in order, and the first one's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    identity = Identity.ephemeral()
    sign = Ed25519PrivateKey.from_private_bytes(identity.seed).sign
    made = [issue(key, identity.peer_id, sign, number + 1, datetime.now(UTC)) for number in range(count)]
    certificates, private = folder / "certificates", folder / "key"
    pem = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in made]
    certificates.write_bytes(b"".join(pem))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificates, private


async def knock(server: Host, alpn: str, files: tuple[Path, Path] | None) -> int | None:
    """Shake hands as a stranger; return the code that the server ends it with, None if it lets us in."""
    place = ("127.0.0.1", int(server.addresses[0].split("/")[4]))
    settings = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE)
    if files is not None:
        settings.load_cert_chain(*files)
    stranger = Stranger(configuration=settings)
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        stranger.connect(place, trio.current_time())
        with trio.fail_after(PATIENCE):
            while not server.all_connections():
                for data, to in stranger.datagrams_to_send(trio.current_time()):
                    await sock.sendto(data, to)
                with trio.move_on_after(0.2):
                    data, source = await sock.recvfrom(2048)
                    stranger.receive_datagram(data, source, trio.current_time())
                stranger.handle_timer(trio.current_time())
                while (event := stranger.next_event()) is not None:
                    if isinstance(event, ConnectionTerminated):
                        return event.error_code
    return None


@pytest.mark.parametrize(
    ("alpn", "count", "refused"),
    [("libp2p", 1, False), ("libp2p", 2, True), ("libp2p", 0, True), ("h3", 1, True)],
    ids=("one certificate", "two certificates", "no certificate", "another protocol"),
)
async def test_only_who_shows_one_certificate_comes_in(
    tmp_path: Path, alpn: str, count: int, refused: bool
) -> None:
    async with open_host(Identity.ephemeral(), ("/ip4/127.0.0.1/udp/0/quic-v1",)) as server:
        code = await knock(server, alpn, chain(tmp_path, count) if count else None)
        assert (code is not None) == refused
        assert bool(server.all_connections()) != refused


async def test_what_is_read_no_further_is_read_out_to_its_end() -> None:
    async with streams() as (near, far):
        await near.write(bytes(600_000))
        near.finish()
        connection = far.muxed_conn
        assert isinstance(connection, QuicConnection)
        with trio.fail_after(PATIENCE):
            await until(lambda: connection._flows[far.stream_id].is_paused)
            await far.close()
            await until(lambda: not connection.has_streams)
