"""Hosts that speak QUIC while the network changes under them."""

import os
import socket
from typing import Any

import pytest
import trio

from peertunnel.transport import quic
from peertunnel.transport.reactor import READ
from peertunnel.transport.stream import MuxedStream
from tests.clock import soon
from tests.node.hosts import hosts, streams
from tests.node.pair import PATIENCE, until
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from peertunnel.transport.quic import udp
from peertunnel.transport.quic.connection import QuicConnection
from peertunnel.transport.quic.endpoint import HUSH


def move(client: MuxedStream) -> None:
    """Give the client another socket, and so another port: nothing that is sent to the old one arrives."""
    connection = client.muxed_conn
    assert isinstance(connection, QuicConnection)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fresh:
        fresh.bind(("127.0.0.1", 0))
        fresh.setblocking(False)
        connection._endpoint._registration.wait_for(0)
        os.dup2(fresh.fileno(), connection._endpoint._udp.sock.fileno())
    connection._endpoint._registration.wait_for(READ)


async def test_streams_go_on_when_the_client_moves_to_another_port() -> None:
    """As when a laptop changes networks: the socket is another one, the connection the same."""
    async with streams() as (client, server):
        await client.write(b"before")
        assert await server.read() == b"before"
        connection, before = client.muxed_conn, server.muxed_conn.get_remote_address()
        assert isinstance(connection, QuicConnection)
        move(client)
        connection._endpoint.rebound()
        async with soon(1):
            await client.write(b"after")
            assert await server.read() == b"after"
            await server.write(b"answer")
            assert await client.read() == b"answer"
        assert server.muxed_conn.get_remote_address() != before


async def test_who_only_receives_is_found_at_its_new_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a router forgets: the client does not know, and the server hears of it by the client's next packet alone."""
    async with streams() as (client, server):
        connection, sent, send = client.muxed_conn, [trio.current_time()], udp.UdpSocket.send
        assert isinstance(connection, QuicConnection)

        def record(self: udp.UdpSocket, *datagrams: Any) -> None:
            if self is connection._endpoint._udp:
                sent.append(trio.current_time())
            send(self, *datagrams)

        monkeypatch.setattr(udp.UdpSocket, "send", record)
        await until(lambda: trio.current_time() > sent[-1] + 2 * HUSH)  # it knows how large datagrams may be
        await server.write(b"before")
        assert await client.read() == b"before"
        count = len(sent)
        await until(lambda: len(sent) > count)  # the acknowledgement
        move(client)
        async with soon(1):
            await server.write(b"after")
            assert await client.read() == b"after"


async def test_peers_are_told_when_the_network_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a connection id that nobody has seen at the old address (RFC 9000, section 9.5)."""
    async with hosts() as (_, client, connection):
        assert isinstance(connection, QuicConnection)
        await connection.ping()
        sent, send = list[bytes](), udp.UdpSocket.send

        def record(self: udp.UdpSocket, data: bytes, *rest: Any) -> None:
            if self is connection._endpoint._udp:
                sent.append(data[1:9])
            send(self, data, *rest)

        monkeypatch.setattr(udp.UdpSocket, "send", record)
        await connection.ping()
        before = set(sent)
        sent.clear()
        with trio.fail_after(PATIENCE):
            await client.note_changed_network()
            await until(lambda: set(sent) - before)
        assert not connection.is_closed
