"""Somebody who does not know the id, in a process of its own: `python -m tests.attacks.attacker MODE [ARGUMENT...]`.

Speaks the wire itself, over real connections, and prints JSON lines: `ready` with its addresses where it listens, `hello`
for what it was told by a victim, `result` with what it got.
"""

import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from peertunnel.auth import Authenticator
from peertunnel.discovery.dht_contacts import contact_at
from peertunnel.discovery.rendezvous_point import Point, Refusal
from peertunnel.errors import NotFound, Refused
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.node import TUNNEL
from peertunnel.peers import Caller, RequestError
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.kademlia.messages import MAX_REQUEST, Contact, Message, Type, decode, encode
from peertunnel.protocols.peerid import multihash_of
from peertunnel.protocols.protobuf import encode_message
from peertunnel.protocols.record import PeerRecord
from peertunnel.protocols.topic import cid, dht_key
from peertunnel.protocols.varint import encode_varint
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

HERE = ("/ip4/127.0.0.1/tcp/0",)
KAD = "/private/kad/1.0.0"
MANY = 9000  # records in one answer; more don't fit into what is read
RECORDS = 300  # more than a node keeps for a key
PATIENCE = 15.0  # seconds for what an honest peer would answer in one
BROKEN = (MuxedConnError, MuxedStreamError, NotFound, Refused)


def tell(kind: str, **fields: object) -> None:
    """Print a line for the test."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def dial(host: Host, address: str) -> MuxedConnection:
    """Connect to a victim."""
    return await host.dial(address.rpartition("/p2p/")[2], [address], PATIENCE)


async def loot(connection: MuxedConnection, streams: int = 4) -> int:
    """Open tunnels and count the bytes that come out of them."""
    got = 0
    for _ in range(streams):
        with trio.move_on_after(PATIENCE):
            try:
                stream = await connection.open_tunnel(TUNNEL)
                await stream.write(b"let me in")
                got += len(await stream.read())
            except (MuxedConnError, MuxedStreamError):
                pass
    return got


async def tunnel(host: Host, address: str) -> None:
    """Open tunnels without any proof."""
    tell("result", bytes=await loot(await dial(host, address)))


async def guess(host: Host, address: str) -> None:
    """Prove a wrong id once, and go on as if that had been enough."""
    connection = await dial(host, address)
    authenticator = Authenticator(host, Role.CONSUMER, secrets.token_bytes(32), on_proven=lambda _: None)
    try:
        await authenticator.prove(connection)
        tell("proven")
    except Refused:
        pass
    tell("result", bytes=await loot(connection))


async def flood(host: Host, address: str) -> None:
    """Guess on many streams of many connections, again as soon as each guess is refused, for ever."""
    hello = encode_delimited(encode_message([(1, 1), (2, b"A" + secrets.token_bytes(32))]))

    async def try_on(connection: MuxedConnection) -> None:
        while not connection.is_closed:
            try:
                stream = await connection.open_tunnel(AUTH)
                await stream.write(hello)
                await stream.read()
            except (MuxedConnError, MuxedStreamError):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            connection = await dial(host, address)
            for _ in range(20):
                nursery.start_soon(try_on, connection)
        tell("ready", addresses=[])


async def silence(host: Host, address: str) -> None:
    """Hold as many connections and streams as one gets, and say nothing on them, for ever."""
    held = 0
    for _ in range(300):
        try:
            connection = await dial(host, address)
            for protocol in (AUTH, TUNNEL, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"):
                await connection.open_tunnel(protocol)
            held += 1
        except BROKEN:
            break
    tell("ready", addresses=[], held=held)
    await trio.sleep_forever()


async def replay(host: Host, address: str, *hellos: str) -> None:
    """Say again what a victim has said to us, and try to go on from there."""
    connection = await dial(host, address)
    for hello in hellos:
        try:
            stream = await connection.open_tunnel(AUTH)
            await stream.write(bytes.fromhex(hello))
            reply = await stream.read()
            await stream.write(encode_delimited(encode_message([(1, reply[-32:])])))
            await stream.read()
        except (MuxedConnError, MuxedStreamError):
            pass
    tell("result", bytes=await loot(connection))


async def squat(host: Host) -> None:
    """Listen as if we were the provider, note what consumers say, and never answer."""

    async def listen(stream: MuxedStream) -> None:
        try:
            tell("hello", hello=(await stream.read()).hex())
        except MuxedStreamError:
            pass

    host.serve(AUTH, lambda stream: host.nursery.start_soon(listen, stream))
    tell("ready", addresses=host.addresses)
    await trio.sleep_forever()


async def middle(host: Host, address: str) -> None:
    """Be provider to one and consumer to the other, and pass on every byte of their proof."""
    outward = await dial(host, address)

    async def pump(source: MuxedStream, sink: MuxedStream) -> None:
        try:
            while True:
                await sink.write(await source.read())
        except MuxedStreamError:
            sink.abort()

    async def join(inward: MuxedStream) -> None:
        other = await outward.open_tunnel(AUTH)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, inward, other)
            nursery.start_soon(pump, other, inward)
        tell("result", bytes=await loot(outward))

    host.serve(AUTH, lambda stream: host.nursery.start_soon(join, stream))
    tell("ready", addresses=host.addresses)
    await trio.sleep_forever()


async def garbage(host: Host, address: str, *protocols: str) -> None:
    """Send lengths without end, frames that are cut short, noise, and single bytes, on every protocol."""
    frames = (encode_varint(1 << 40), b"\xff" * 64, encode_delimited(secrets.token_bytes(100)), b"\x7f", b"")
    slow = []
    for protocol in protocols:
        for frame in frames:
            try:
                connection = await dial(host, address)
                stream = await connection.open_tunnel(protocol)
                await stream.write(frame)
                slow.append(stream)  # and nothing more
                big = await connection.open_tunnel(protocol)
                with trio.move_on_after(1):
                    await big.write(secrets.token_bytes(1 << 20))
            except BROKEN:
                continue
    tell("result", bytes=await loot(await dial(host, address)))


async def records(_: Host, via: str, *topics: str) -> None:
    """Announce providers that are not there, under topics that were overheard, from many identities."""
    point_id = via.rpartition("/p2p/")[2]
    turns, taken = trio.Semaphore(10), [0, 0]

    async def announce(number: int) -> None:
        identity, place = Identity.ephemeral(), Multiaddr(f"/ip4/127.0.0.1/tcp/{1 + number}").to_bytes()
        async with turns, open_host(identity, ()) as host:
            point, contact = Point(host, point_id, [via]), Contact(multihash_of(identity.peer_id), (place,))
            for topic in map(bytes.fromhex, topics):
                record = PeerRecord(identity.peer_id, time.time_ns(), (place,))
                with suppress(RequestError, Refusal):
                    await point.register(cid(topic), record)
                    taken[0] += 1
                message = encode(Message(Type.ADD_PROVIDER, dht_key(topic), providers=(contact,)))
                with suppress(RequestError):
                    await host.tell(point_id, [via], KAD, message, within=PATIENCE)
                    taken[1] += 1

    async with trio.open_nursery() as nursery:
        for number in range(RECORDS):
            nursery.start_soon(announce, number)
    tell("result", registered=taken[0], provided=taken[1])


async def node(host: Host, honest: str) -> None:
    """Be a DHT node that knows thousands of providers of whatever it is asked for, others each time.

    The honest node is named beside the second thousands, and the later ones: who finds it has met more than ten.
    """
    place, lies = Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes(), count(1)
    other = contact_at(honest)
    assert other is not None

    def answer(_: Caller, data: bytes) -> bytes:
        question = decode(data)
        if question.type is not Type.GET_PROVIDERS:
            return encode(Message(question.type, question.key))
        ids = (b"\x12\x20" + secrets.token_bytes(32) for _ in range(MANY))
        found = tuple(Contact(peer_id, (place,)) for peer_id in ids)
        tell("lied", providers=MANY)
        closer = (other,) if next(lies) > 1 else ()
        return encode(Message(question.type, question.key, closer=closer, providers=found))

    host.answer(KAD, answer, limit=MAX_REQUEST)
    tell("ready", addresses=host.addresses)
    await trio.sleep_forever()


MODES: dict[str, Callable[..., Awaitable[None]]] = {
    mode.__name__: mode
    for mode in (flood, garbage, guess, middle, node, records, replay, silence, squat, tunnel)
}


async def main(mode: str, *arguments: str) -> None:
    """Run an attack."""
    async with open_host(Identity.ephemeral(), HERE) as host:
        await MODES[mode](host, *arguments)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
