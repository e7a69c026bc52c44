"""Ports on loopback for servers that must know theirs before they start."""

from __future__ import annotations

import errno
import random
import socket
import sys
from collections import OrderedDict

#: Below the range from which the kernel takes ports for outgoing connections: nothing grabs one of these by chance
#: while a server is down for a restart.
_RANGE = range(15_000, 32_000)
_KEPT = 64
"""Reservations that a process holds, each a file of it; a server listens long before so many came after its own."""
_reserved: OrderedDict[int, socket.socket] = OrderedDict()


def free_port(wanted: int = 0, *, host: str = "127.0.0.1") -> int:
    """`wanted` if it is free, else any free port; reserved among all that ask here, until its server listens.

    Between the look and the server's start lie seconds, in which another `sliceway up` would be given the same.
    """
    chooser = random.SystemRandom()
    candidates = [wanted] if wanted else []
    candidates += chooser.sample(_RANGE, 200)
    return next(port for port in candidates if _is_free(host, port) and _reserve(port))


def is_taken(host: str, port: int) -> bool:
    """Whether another program listens on a port; a host that is not here is another error, and not this one."""
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
    """Say whether a port is this process's from now on.

    The kernel keeps the reservation, as a name in the abstract namespace of Unix sockets: it is seen by all users of
    the same network, and gone with its process. Other systems have no reservation: there the later server reports that
    its address is in use.
    """
    if port not in _reserved and sys.platform == "linux":
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0sliceway/port/{port}")
        except OSError:
            name.close()
            return False
        _reserved[port] = name
        while len(_reserved) > _KEPT:
            _reserved.popitem(last=False)[1].close()
    return True
