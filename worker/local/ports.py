"""Chooses ports on loopback for servers that must know their port before they start."""

from __future__ import annotations

import errno
import random
import socket
import sys
from collections import OrderedDict

#: Below the kernel's range for outgoing connections: no connection takes such a port while a server restarts.
_RANGE = range(15_000, 32_000)
_MAX_RESERVED = 64
"""Reservations that a process holds, each an open file. The oldest is released first: its server listens by then."""
_reserved: OrderedDict[int, socket.socket] = OrderedDict()


def free_port(wanted: int = 0, *, host: str = "127.0.0.1") -> int:
    """`wanted` if it is free, else any free port; reserved against other callers on this machine.

    Seconds pass between this check and the server's start. Without the reservation another `sliceway up` could get
    the same port meanwhile.
    """
    chooser = random.SystemRandom()
    candidates = [wanted] if wanted else []
    candidates += chooser.sample(_RANGE, 200)
    return next(port for port in candidates if _is_free(host, port) and _reserve(port))


def is_taken(host: str, port: int) -> bool:
    """Whether another program listens on a port. False for a host that is not this machine's: the server reports it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _reserve(port: int) -> bool:
    """Reserve a port for this process; False if another process has reserved it.

    A reservation is a name in the abstract namespace of Unix sockets. All users of the network namespace see it, and
    the kernel releases it at the end of the process. Other systems than Linux have no reservation: there the later
    server reports that its address is in use.
    """
    if port not in _reserved and sys.platform == "linux":
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0sliceway/port/{port}")
        except OSError:
            name.close()
            return False
        _reserved[port] = name
        while len(_reserved) > _MAX_RESERVED:
            _reserved.popitem(last=False)[1].close()
    return True
