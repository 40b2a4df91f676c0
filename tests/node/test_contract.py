"""What we rely on inside libp2p 0.8.1, piece by piece: each failure says what to look at before the pin moves."""

import inspect
import re
from importlib.metadata import version

import pytest
from libp2p.security.secure_session import SecureSession
from libp2p.security.tls.io import TLSReadWriter, TLSStreamReadWriter
from libp2p.security.tls.transport import TLSTransport
from multiaddr import Multiaddr

from peertunnel.host import AGENT, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.noise import MAX_PLAINTEXT, MAX_RECORD
from peertunnel.transport.identify import request
from peertunnel.transport.raw import RawSocket
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
            SecureSession._drain,
            "self.low_watermark",
            "transport/tls_security.py drains what the handshake read ahead with _drain(None): does it still empty all?",
        ),
        (TLSReadWriter.__init__, "self.stream_writer", "TlsSession finds the session under stream_writer"),
        (
            TLSStreamReadWriter.__init__,
            "self._read_buffer = bytearray()",
            "TlsSession takes what the handshake read ahead from _read_buffer",
        ),
        (
            TLSStreamReadWriter.handshake,
            "self._ssl_socket = ssl_obj\n        self._in_bio = in_bio\n        self._out_bio = out_bio",
            "TlsSession continues with _ssl_socket, _in_bio and _out_bio: where is the session now?",
        ),
        (
            TLSTransport.secure_inbound,
            "remote_peer=remote_peer_id",
            "TlsSession believes get_remote_peer(): is it still the peer that the certificate proves?",
        ),
        (
            TLSTransport.secure_outbound,
            "if remote_peer_id != peer_id:",
            "Tls.secure has the library check who is called: does it still?",
        ),
    ],
)
def test_an_internal_is_where_we_use_it(owner: object, text: str, advice: str) -> None:
    assert text in source(owner), advice


def test_the_handshake_asks_a_socket_for_nothing_else_than_it_has() -> None:
    for used in (TLSStreamReadWriter, TLSReadWriter, TLSTransport):
        asked = set(re.findall(r"(?:raw_connection|\bconn)\.(\w+)", source(used)))
        missing = {name for name in asked if not hasattr(RawSocket, name)}
        assert not missing, f"{used.__name__} asks for {missing}: see transport/raw.py"


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
        assert answer.agent == AGENT
        assert "/test/1.0.0" in answer.protocols
        expected = [address.partition("/p2p/")[0] for address in server.addresses]
        assert [str(Multiaddr(address)) for address in answer.addresses] == expected
        (seen,) = server.connections(client.peer_id)
        assert answer.observed == seen.get_transport_addresses()[0].to_bytes()
