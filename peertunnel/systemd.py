"""Telling systemd how we are, when it started us with Type=notify (sd_notify(3))."""

import os
import socket


def notify(state: str) -> None:
    """Send a state such as READY=1 to whoever started us; nothing happens when nobody wants to know.

    A service manager that doesn't listen is no reason to end, so failures are passed over.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = b"\0" + os.fsencode(path[1:]) if path.startswith("@") else os.fsencode(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError:
        pass
