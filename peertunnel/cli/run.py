"""Where a command comes to life: trio, signals, the readers of its events, and a node for it."""

import gc
import logging
import math
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from peertunnel import sockets
from peertunnel.cli import output
from peertunnel.cli.admission import Admission
from peertunnel.cli.limits import raise_open_files
from peertunnel.cli.options import Flags
from peertunnel.cli.prompt import Prompt
from peertunnel.cli.totals import Totals
from peertunnel.cli.writer import HASTE, Outlet, Writer
from peertunnel.config import Config
from peertunnel.endpoints import Endpoint
from peertunnel.errors import Dismissed, Interrupted, PeerTunnelError, UsageError
from peertunnel.events import Events, LeftOut, Listening, Warned
from peertunnel.identity import Identity, load_identity
from peertunnel.known import KnownPeers
from peertunnel.protocols.service import Service
from peertunnel.store import known_peers_path

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from peertunnel.node import Node

LOGS, ALL_LOGS = 2, 3  # the verbosities that show logs: events tell everybody else what matters


@dataclass(frozen=True, slots=True)
class Session:
    """What a story works with; stop is set when it is to end in good order."""

    config: Config
    identity: Identity
    accept_new_key: bool = False
    emit: Events = field(default_factory=Events)
    prompt: Prompt = field(default_factory=Prompt)
    stop: trio.Event = field(default_factory=trio.Event)

    @asynccontextmanager
    async def node(self, identity: Identity | None = None) -> AsyncIterator["Node"]:
        """Open a node as the settings say, under this machine's identity or another one."""
        from peertunnel.node import NodeOptions, open_node  # libp2p takes a second to load

        config = self.config
        is_hidden = config.ways == "relayed"  # then nobody learns our addresses, nor can dial them
        options = NodeOptions(
            identity=identity or self.identity,
            listen=() if is_hidden else config.listen,
            mdns=config.mdns and not is_hidden,
            dht=config.dht,
            bootstrap=config.entries,
            dht_prefix=config.dht_prefix,
            rendezvous=config.points,
            relays=config.relays,
            portmap=config.portmap,
            ways=config.ways,
            transport=config.transport,
            known=KnownPeers(known_peers_path()),
            accept_new_key=self.accept_new_key,
        )
        async with open_node(options, self.emit) as node:
            self.emit.afterwards = node.host.reactor.afterwards
            gc.collect()
            gc.freeze()  # what is loaded by now stays: looking through it takes 16 ms, and a tunnel would feel each
            yield node

    def check_relays(self) -> None:
        """Raise UsageError for a provider that shows no address, has no relay, and can't look for consumers that do."""
        config = self.config
        if config.ways == "relayed" and not (config.relays or config.points or config.dht):
            raise UsageError(
                "There is no relay to be reached through.",
                hint="Name one with --via or --relay, or leave out --no-dht, since some are found in the DHT.",
            )

    async def provide(self, node: "Node", service: Service, target: Endpoint, admission: Admission) -> None:
        """Offer a service to those who may come in until the session is to stop."""
        from peertunnel.expose import expose

        access = admission.access(self, service)
        if admission.is_public:
            self.emit(Warned("Anyone may connect: the service is public, and its id is told to everybody."))
        grace = self.config.grace
        async with self._counting(admission.metrics):
            await expose(node, service, target, self.emit, access=access, grace=grace, stop=self.stop)

    @asynccontextmanager
    async def _counting(self, place: Endpoint | None) -> AsyncIterator[None]:
        """Serve metrics meanwhile, if a place for them is given."""
        if place is None:
            yield
            return
        from peertunnel.cli.counters import Counters  # its library takes a while to load

        counters, pages = Counters(), await sockets.listen(place)
        self.emit.subscribe(counters)
        try:
            for page in pages:
                self.emit(Listening(sockets.local_name(page)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(counters.metrics().serve, pages)
                yield
                nursery.cancel_scope.cancel()
        finally:
            sockets.close_listeners(pages)

    async def consume(self, service: Callable[[], Service], local: Endpoint | None) -> None:
        """Reach a service from a local endpoint, or stdin and stdout, until the session is to stop.

        The endpoint is open, or known to be taken, before anything that takes a while.
        """
        listeners = None if local is None else await sockets.listen(local)
        try:
            for listener in listeners or ():
                self.emit(Listening(sockets.local_name(listener)))
            wait, grace = self.config.wait, self.config.grace
            async with self.node() as node:
                from peertunnel.bind import bind

                await bind(node, service(), listeners, self.emit, wait=wait, grace=grace, stop=self.stop)
        finally:
            sockets.close_listeners(listeners or ())


Story = Callable[[Session], Awaitable[None]]


def run(
    flags: Flags, story: Story, *, advice: str = "", graceful: bool = True, accept_new_key: bool = False
) -> None:
    """Run a story to its end.

    advice: what to run on the other machine. graceful: let the first signal only set the session's stop, and
    the second one end everything at once. accept_new_key: take a provider that has another key than before.

    Raises what the story raises, perhaps in groups, and Interrupted when a signal ended it.
    """
    raise_open_files()
    config = flags.settings()
    identity = load_identity(config.identity)
    writer = Writer()
    # With --stdio JSON lines go to stderr; words there are no results, and nothing ends when they are lost.
    results = writer.stderr if flags.json and flags.stdout_is_data else writer.stdout
    is_hasty = not (graceful and flags.json)  # when the results are lost
    show_logs(flags.verbosity)  # by the writer

    async def live() -> None:
        session, totals = Session(config, identity, accept_new_key), Totals()
        session.emit.subscribe(totals)
        is_tool = flags.stdout_is_data and not flags.json  # of a program that shows our words as its own
        dismissals: list[Dismissed] = []
        try:
            async with trio.open_nursery() as nursery:
                _heed_readers(writer, results, flags, session, nursery.cancel_scope if is_hasty else None)
                with _reading(flags, session, totals, nursery if graceful else None, advice, writer):
                    heed = partial(_heed_signals, dismissals=dismissals if is_tool else None)
                    await nursery.start(heed, session, totals, graceful, writer)
                    for notice in flags.notices:
                        session.emit(Warned(notice))
                    await story(session)
                nursery.cancel_scope.cancel()
        except* PeerTunnelError:
            if not session.stop.is_set():  # a tunnel that was cut at our own end is no failure
                raise
        if session.stop.is_set():
            raise dismissals[0] if dismissals else Interrupted()

    try:
        trio.run(live)
    finally:
        _finish(writer, results, flags)


def _soon(work: Callable[[], None]) -> Callable[[], None]:
    """Give a function by which another thread has trio do some work, if it still runs."""
    token = trio.lowlevel.current_trio_token()

    def tell() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(work, idempotent=True)

    return tell


def _heed_readers(
    writer: Writer, results: Outlet, flags: Flags, session: Session, scope: trio.CancelScope | None
) -> None:
    """Tell a session what the writer's thread finds out: lines are missing, or there is a reason to end.

    scope: cancelled then; else the session is only told to stop.
    """

    def tell() -> None:
        if lines := writer.resume():
            session.emit(LeftOut(lines))

    def end() -> None:
        writer.resume()
        session.stop.set()
        if scope is not None:
            scope.cancel()

    tell_soon, end_soon = _soon(tell), _soon(end)

    def lost() -> None:  # in the thread
        if _reason_to_end(results.error, flags):
            writer.discard()
            end_soon()

    writer.relieved, results.lost = tell_soon, lost


def _finish(writer: Writer, results: Outlet, flags: Flags) -> None:
    """Have all that was said written; raises what ends a command whose results can't be."""
    if reason := _reason_to_end(writer.finish(results), flags):
        raise reason
    if lines := writer.resume():
        output.reader(flags)(LeftOut(lines))


def _reason_to_end(error: OSError | None, flags: Flags) -> PeerTunnelError | None:
    """Say why to end when the results can't be written: nobody else than the reader of JSON lines is there to stop us."""
    if error is None:
        return None
    return output.failure_of(error) or (Interrupted() if flags.json else None)


def show_logs(verbosity: int) -> None:
    """Let logs be seen from a verbosity on; without a handler Python itself would print warnings."""
    handler = logging.StreamHandler() if verbosity >= LOGS else logging.NullHandler()
    logging.getLogger().addHandler(handler)
    if verbosity >= LOGS:
        logging.getLogger().setLevel(logging.DEBUG if verbosity >= ALL_LOGS else logging.INFO)


async def _heed_signals(
    session: Session,
    totals: Totals,
    graceful: bool,
    writer: Writer,
    dismissals: list[Dismissed] | None,
    task_status: "TaskStatus[None]",
) -> None:
    """Stop when a signal says so.

    dismissals: where not None, SIGTERM and SIGHUP are how a program ends its tool, as ssh does its ProxyCommand, and are
    noted there instead of being told.
    """
    stops = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1) wants us to outlive the terminal
        stops.append(signal.SIGHUP)
    with trio.open_signal_receiver(*stops) as signals:
        task_status.started()
        async for number in signals:
            quietly = None if number == signal.SIGINT else dismissals
            if session.stop.is_set():
                writer.patience = HASTE
            if session.stop.is_set() or not graceful:
                raise Interrupted() if quietly is None else Dismissed()
            session.stop.set()
            if quietly is not None:
                quietly.append(Dismissed())
            elif totals.open:
                grace = session.config.grace
                may = "go on" if grace == math.inf else f"go on for {grace:g} s"
                session.emit(Warned(f"Stopping: tunnels may {may}; Ctrl-C again ends them now."))


@contextmanager
def _reading(
    flags: Flags,
    session: Session,
    totals: Totals,
    nursery: trio.Nursery | None,
    advice: str,
    writer: Writer,
) -> Iterator[None]:
    """Let people or programs read the events, with a display, drawn in the nursery, for people at a terminal."""
    if not nursery or flags.json or flags.quiet or flags.stdout_is_data or not sys.stderr.isatty():
        reader = output.reader(flags, advice=advice, events=session.emit, aside=session.prompt.aside)
        session.emit.subscribe(reader)
        yield
        return
    from peertunnel.cli.progress import Display  # rich takes a while to load

    with Display(totals, session.prompt, lambda: writer.is_idle) as display:
        session.emit.subscribe(output.reader(flags, advice=advice, screen=display.say))
        nursery.start_soon(display.draw)
        yield
