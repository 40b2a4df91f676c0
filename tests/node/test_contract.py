"""What we rely on inside libp2p 0.8.1, piece by piece: each failure says what to look at before the pin moves."""

import inspect
import re
from importlib.metadata import version

import pytest
from libp2p.abc import IMuxedConn, IMuxedStream, IRawConnection
from libp2p.host.basic_host import BasicHost
from libp2p.io.msgio import BaseMsgReadWriter
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.security.noise.io import BaseNoiseMsgReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.security.tls.io import TLSReadWriter, TLSStreamReadWriter
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr
from noise.connection import NoiseConnection
from noise.state import CipherState

from peertunnel.host import AGENT, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.noise import MAX_PLAINTEXT, MAX_RECORD
from peertunnel.transport.identify import request
from peertunnel.transport.swarm import Network
from tests.node.pair import LOOPBACK, PATIENCE


def source(thing: object) -> str:
    return inspect.getsource(thing)  # type: ignore[arg-type]


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("libp2p") == "0.8.1", (
        "read every test in this file against the new sources, then move the pin"
    )


@pytest.mark.parametrize(
    ("owner", "text", "advice"),
    [
        (
            TransportUpgrader.upgrade_connection,
            "self.muxer_multistream.new_conn(conn, peer_id)",
            "transport/upgrade.py replaces muxer_multistream: is yamux still made there?",
        ),
        (
            MuxerMultistream.new_conn,
            "self._selector.select(",
            "transport/upgrade.py negotiates through _selector in Muxer.new_conn: follow its new shape",
        ),
        (
            SecureSession._drain,
            "self.low_watermark",
            "transport/upgrade.py drains what the handshake read ahead with _drain(None): does it still empty all?",
        ),
        (
            BaseNoiseMsgReadWriter.__init__,
            "self.noise_state = noise_state",
            "transport/upgrade.py takes the keys from conn.noise_state: where are they now?",
        ),
        (
            BaseNoiseMsgReadWriter.__init__,
            "self.read_writer = NoisePacketReadWriter(",
            "take_over() finds our socket under read_writer: follow the new path",
        ),
        (
            BaseMsgReadWriter.__init__,
            "self.read_write_closer",
            "take_over() finds our socket under read_write_closer: follow the new path",
        ),
        (
            CipherState.initialize_key,
            "self.k = key\n        self.n = 0",
            "take_over() continues with each cipher state's key k and nonce n",
        ),
        (
            MuxerMultistream.__init__,
            "self.negotiate_timeout = negotiate_timeout",
            "Muxer.new_conn negotiates for negotiate_timeout seconds",
        ),
        (
            MuxerMultistream.new_conn,
            "return self._annotate_connection(muxed_conn, conn, protocol)",
            "Muxer.new_conn ends as this one does: what is done with a new connection now?",
        ),
        (TLSReadWriter.__init__, "self.stream_writer", "take_over() finds our socket under stream_writer"),
        (TLSStreamReadWriter.__init__, "self.raw_connection = conn", "take_over() looks for raw_connection"),
        (
            TLSStreamReadWriter.__init__,
            "self._read_buffer = bytearray()",
            "take_over() takes what the handshake read ahead from _read_buffer",
        ),
        (
            TLSStreamReadWriter.handshake,
            "self._ssl_socket = ssl_obj\n        self._in_bio = in_bio\n        self._out_bio = out_bio",
            "take_over() continues with _ssl_socket, _in_bio and _out_bio: where is the session now?",
        ),
        (
            Swarm.new_stream,
            "connections = await self.dial_peer(peer_id)",
            "transport/swarm.py overrides dial_peer, so that the library dials through us",
        ),
        (
            Swarm.run,
            "self.auto_connector.",
            "transport/swarm.py replaces auto_connector by one that dials nobody",
        ),
        (
            SwarmConn.__init__,
            "self.muxed_conn = muxed_conn",
            "host.py finds our connections as muxed_conn of the swarm's",
        ),
        (
            BasicHost.get_addrs,
            "self._addrs_factory(",
            "host.py tells our addresses through addrs_factory",
        ),
        (
            Swarm.add_conn,
            "self.manager.run_task(muxed_conn.start)",
            "MuxedConnection.start runs as the swarm's task: who starts it now?",
        ),
        (
            Swarm.add_conn,
            "await muxed_conn.event_started.wait()",
            "MuxedConnection sets event_started: what does the swarm wait for now?",
        ),
        (
            SwarmConn._handle_new_streams,
            "except MuxedConnUnavailable",
            "accept_stream raises it at the end of a connection: what ends a SwarmConn now?",
        ),
        (
            Swarm.run,
            "self.event_background_nursery_created.set()",
            "open_host waits for it before connections are added",
        ),
        (
            BasicHost.__init__,
            "self._network.set_stream_handler(self._swarm_stream_handler)",
            "host.py replaces the handler afterwards: is it still set once, in __init__?",
        ),
        (
            AutoConnector.maybe_connect,
            "initiating %s new dials",
            "transport/swarm.py switches the auto-connector off by overriding maybe_connect",
        ),
    ],
)
def test_an_internal_is_where_we_use_it(owner: object, text: str, advice: str) -> None:
    assert text in source(owner), advice


def test_noise_keeps_keys_and_nonces_where_we_take_them() -> None:
    state = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    fields = {"cipher_state_encrypt", "cipher_state_decrypt"}
    assert fields <= set(vars(state.noise_protocol)), "transport/upgrade.py takes both cipher states over"


def test_the_interfaces_ask_for_what_we_implement() -> None:
    for interface, names in (
        (
            IMuxedConn,
            {"start", "close", "open_stream", "accept_stream", "is_closed", "is_established", "is_initiator"},
        ),
        (
            IMuxedStream,
            {"read", "write", "close", "reset", "set_deadline", "get_remote_address", "__aenter__"},
        ),
        (IRawConnection, {"read", "write", "close", "get_remote_address", "get_transport_addresses"}),
    ):
        missing = names - interface.__abstractmethods__
        assert not missing, f"{interface.__name__} no longer asks for {missing}: who calls them now?"


def test_the_names_that_are_read_exist() -> None:
    assert "muxed_stream" in NetStream.__annotations__, (
        "host.py reads the agreed protocol from stream.muxed_stream"
    )
    assert "handlers" in Multiselect.__annotations__, "host.py keeps its protocols in multiselect.handlers"
    assert {"min_connections", "low_watermark", "high_watermark", "max_connections_per_peer"} <= set(
        vars(ConnectionConfig())
    ), "transport/swarm.py sets these limits"


def test_our_swarm_takes_no_name_of_the_librarys_but_the_one_that_it_means_to() -> None:
    ours = {name for name in {*vars(Network), *Network.__annotations__} if not name.startswith("__")}
    taken = {name for name in ours if re.search(rf"\b(self\.|def ){name}\b", source(Swarm))}
    assert taken == {"dial_peer"}, "rename the others in transport/swarm.py"


def test_record_sizes_agree() -> None:
    from libp2p.security.noise import io

    assert (io.MAX_NOISE_MESSAGE_LEN, io.MAX_PLAINTEXT_LENGTH) == (MAX_RECORD, MAX_PLAINTEXT)


async def test_identify_tells_who_we_are_and_where() -> None:
    """Our agent, our protocols, our real addresses over both transports, and how we see the peer."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        server.serve("/test/1.0.0", lambda stream: stream.abort())
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        answer = await request(connection)
        assert answer.agent_version == AGENT
        assert "/test/1.0.0" in answer.protocols
        expected = [address.partition("/p2p/")[0] for address in server.addresses]
        assert [str(Multiaddr(address)) for address in answer.listen_addrs] == expected
        (seen,) = server.connections(client.peer_id)
        assert answer.observed_addr == seen.get_transport_addresses()[0].to_bytes()
