"""The local ends of tunnels: plain non-blocking sockets, listened on, dialled and closed.

The data path wants sockets without a wrapper, so that is what these functions hand over.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import trio

from peertunnel.endpoints import Endpoint, TcpEndpoint, UnixEndpoint
from peertunnel.errors import LocalPortError, TargetError, shortage

# Bytes that a client, or a target on this machine, may have sent ahead. Left to itself the system lets those have more of
# which more is read: of eight transfers side by side one could have a fifth of the others' pace.
RECEIVE_BUFFER = 1024 * 1024
BACKLOG = 4096  # connections; Linux's default for somaxconn, which Go uses too
PICK_TRIES = 20  # ports tried until one is free on every address
DIAL_STAGGER = 0.25  # seconds between attempts; RFC 8305 section 5, Connection Attempt Delay
UNIX_RETRY = 0.01  # seconds between attempts on a unix socket whose queue is full
LOCK_WAIT = 2.0  # seconds; whoever holds the lock needs well under a millisecond

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, zero seconds
_END_ON_CLOSE = struct.pack("ii", 0, 0)  # struct linger: off

_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
_TCP_HINTS = {
    errno.EADDRINUSE: "Another program listens there: choose another port, or 0 for a free one.",
    errno.EACCES: "Ports below 1024 are root's: choose a higher one, or 0 for a free one.",
    errno.EADDRNOTAVAIL: "This machine has no such address: name one that it has, or only a port.",
}

# An address family, and the address as the socket module has it.
_Address: TypeAlias = tuple[int, tuple[Any, ...]]
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_AT_ONCE = {None: _LOOPBACK[0], "127.0.0.1": _LOOPBACK[0], "::1": _LOOPBACK[1]}


async def listen(endpoint: Endpoint) -> list[socket.socket]:
    """Listen on an endpoint: on loopback that is 127.0.0.1 and, where the machine has it, ::1 on the same port.

    A unix socket gets mode 0600 and takes the place of one that nobody answers. Raises LocalPortError.
    """
    try:
        if isinstance(endpoint, UnixEndpoint):
            return [await _listen_unix(endpoint.path)]
        return _listen_tcp(await _resolve(endpoint), tries=1 if endpoint.port else PICK_TRIES)
    except (OSError, UnicodeError) as error:
        message = f"Can't listen on {_called(endpoint)}: {_reason(error)}."
        raise LocalPortError(message, hint=shortage(error) or _listen_hint(endpoint, error)) from error


async def dial(endpoint: Endpoint, timeout: float) -> socket.socket:  # noqa: ASYNC109 - the error names it
    """Connect to a target within timeout (seconds): a non-blocking socket, on TCP without Nagle's delay.

    Raises TargetError, which names the target and the reason.
    """
    try:
        with trio.fail_after(timeout):
            if isinstance(endpoint, UnixEndpoint):
                return await _dial_unix(endpoint.path)
            addresses = await _resolve(endpoint)
            # On loopback an attempt ends at once, and 127.0.0.1 is the one that is meant.
            in_turn = endpoint.host is None or len(addresses) == 1
            return await (_dial_in_turn(addresses) if in_turn else _dial_staggered(addresses))
    except trio.TooSlowError:
        raise TargetError(f"Can't reach {_called(endpoint)}: no answer in {timeout:g} s.") from None
    except (OSError, UnicodeError) as error:
        message = f"Can't reach {_called(endpoint)}: {_reason(error)}."
        raise TargetError(message, hint=shortage(error)) from error


def dial_at_once(endpoint: Endpoint) -> socket.socket | None:
    """Connect as `dial` does to a target of this machine, which needs no wait; None for all others, and for trouble.

    Linux completes a connection over loopback while it is asked for: a second call tells what came of it.
    """
    if not isinstance(endpoint, TcpEndpoint) or endpoint.host not in _AT_ONCE:
        return None
    family, host = _AT_ONCE[endpoint.host]
    address = (host, endpoint.port)
    try:
        sock = _new_socket(family)
    except OSError:
        return None  # there is no IPv6, or there are too many files open: dial will say so
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            error = sock.connect_ex(address)
        if error in (0, errno.EISCONN) and not _is_to_itself(sock, endpoint.port):
            return sock
    except OSError:
        pass  # it was lost in that very moment: dial will say why
    sock.close()
    return None


def close(sock: socket.socket) -> None:
    """Close a socket in an orderly way and wake the tasks that wait for it; closing twice does nothing."""
    trio.lowlevel.notify_closing(sock.fileno())
    end(sock, in_order=True)


def abort(sock: socket.socket) -> None:
    """Close a socket so that the other end sees a reset, on TCP, and never a clean end."""
    trio.lowlevel.notify_closing(sock.fileno())
    end(sock, in_order=False)


def end(sock: socket.socket, in_order: bool) -> None:
    """Close or abort a socket that no task waits for: notifying trio costs as much as all the rest."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END_ON_CLOSE if in_order else _RESET_ON_CLOSE)
    except OSError:
        pass  # it may be lost or closed already
    sock.close()


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the other end's system has yet to confirm; 0 where ours does not count, or it is lost."""
    with contextlib.suppress(OSError, ValueError):
        return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close listeners and remove their unix sockets, unless another program answers there by now."""
    for listener in listeners:
        has_path = listener.family == socket.AF_UNIX and listener.fileno() >= 0
        path = listener.getsockname() if has_path else ""
        close(listener)
        with contextlib.suppress(OSError):  # where it has to stay, the next program finds it dead
            if path and _nobody_answers(path):
                os.unlink(path)


def local_name(sock: socket.socket) -> str:
    """Name the local address of a socket: 127.0.0.1:2022, [::1]:2022 or unix:/path."""
    return name(sock.family, sock.getsockname())


def name(family: int, address: Any) -> str:
    """Name an address as the socket module has it: 127.0.0.1:2022, [::1]:2022 or unix:/path."""
    if family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


# Listening


def _listen_tcp(addresses: list[_Address], tries: int) -> list[socket.socket]:
    while True:
        try:
            return _bind_all(addresses)
        except OSError as error:
            tries -= 1
            if error.errno != errno.EADDRINUSE or tries == 0:
                raise


def _bind_all(addresses: list[_Address]) -> list[socket.socket]:
    """Listen on every address that this machine has; the port that the first one picks is for all of them."""
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (host, port, *scope) in addresses:
            picked = listeners[0].getsockname()[1] if listeners else port
            try:
                listeners.append(_bind(family, (host, picked, *scope)))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing and not listeners:
            raise missing
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind(family: int, address: tuple[Any, ...] | str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart finds its port free
        if family != socket.AF_UNIX:  # accepted sockets inherit these: if we are killed, clients see a reset
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is asked for by name
        listener.bind(address)
        if isinstance(address, str):
            os.chmod(address, 0o600)  # in time: nobody can connect before listen()
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def _listen_unix(path: str) -> socket.socket:
    async with _alone_in(os.path.dirname(path) or "."):
        _remove_dead(path)
        return _bind(socket.AF_UNIX, path)


def _remove_dead(path: str) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    if not _nobody_answers(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


@contextlib.asynccontextmanager
async def _alone_in(directory: str) -> AsyncIterator[None]:
    """Let one program at a time replace sockets here: two must not both find the same one dead and remove it."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A stranger's lock on the directory says nothing about our socket, so it is not waited for any longer.
        with trio.move_on_after(LOCK_WAIT):
            while not _locked(handle):  # noqa: ASYNC110 - there is no event for a file's lock
                await trio.sleep(UNIX_RETRY)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _nobody_answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live program's full queue must not hold us up
        return probe.connect_ex(path) == errno.ECONNREFUSED


# Dialling


async def _resolve(endpoint: TcpEndpoint) -> list[_Address]:
    """Give the addresses to use, the two families taking turns at first (RFC 8305 section 4)."""
    if endpoint.host is None:
        return [(family, (host, endpoint.port)) for family, host in _LOOPBACK]
    try:
        found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except RuntimeError as error:  # there is no thread left to ask in
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    addresses: list[_Address] = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    other = next((n for n, (family, _) in enumerate(addresses) if family != addresses[0][0]), 0)
    if other:
        addresses.insert(1, addresses.pop(other))
    return addresses


async def _dial_in_turn(addresses: list[_Address]) -> socket.socket:
    errors: list[OSError] = []
    for address in addresses:
        try:
            return await _connect(*address)
        except OSError as error:
            errors.append(error)
    raise _telling(errors)


async def _dial_staggered(addresses: list[_Address]) -> socket.socket:
    """Try a new address whenever one fails or takes long; the first connection wins (RFC 8305 section 5)."""
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: _Address, failed: trio.Event) -> None:
        try:
            connected.append(await _connect(*address))
            nursery.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
            failed.set()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(DIAL_STAGGER):
                    await failed.wait()
        if not connected:
            raise _telling(errors)
        return connected.pop(0)
    finally:
        for sock in connected:
            sock.close()


async def _connect(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = _new_socket(family)
    try:
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock.fileno())
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error and _is_to_itself(sock, address[1]):
            error = errno.ECONNREFUSED
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


def _new_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # If this process is killed, the system closes its sockets: with a reset, not with an end cut short.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return sock


def _is_to_itself(sock: socket.socket, port: int) -> bool:
    """Tell what dialling a free port of the ephemeral range can end in: TCP's simultaneous open with oneself."""
    near = sock.getsockname()
    return bool(near[1] == port and near == sock.getpeername())


async def _dial_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # The kernel never tells when a unix socket's full queue has room again: asking is the only way.
        while (error := sock.connect_ex(path)) == errno.EAGAIN:  # noqa: ASYNC110
            await trio.sleep(UNIX_RETRY)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


# Words


def _called(endpoint: Endpoint) -> str:
    is_port = isinstance(endpoint, TcpEndpoint) and endpoint.host is None
    return f"port {endpoint}" if is_port else str(endpoint)


def _reason(error: OSError | UnicodeError) -> str:
    is_unknown = isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST
    if is_unknown or isinstance(error, UnicodeError):
        return "no such host"
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def _telling(errors: list[OSError]) -> OSError:
    """Choose the error to show: a refusal says more than an address family that this machine lacks."""
    return min(errors, key=lambda error: error.errno != errno.ECONNREFUSED)


def _listen_hint(endpoint: Endpoint, error: OSError | UnicodeError) -> str | None:
    if isinstance(endpoint, UnixEndpoint):
        return "Choose another path, in a directory that exists and is yours to write."
    if isinstance(error, socket.gaierror | UnicodeError):
        return "Name an address of this machine, or only a port."
    return None if error.errno is None else _TCP_HINTS.get(error.errno)
