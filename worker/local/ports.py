"""Ports on loopback for servers that must know theirs before they start."""

from __future__ import annotations

import errno
import random
import socket

#: Below the range from which the kernel takes ports for outgoing connections: nothing grabs one of these by chance
#: while a server is down for a restart.
_RANGE = range(15_000, 32_000)


def free_port(wanted: int = 0, *, host: str = "127.0.0.1") -> int:
    """`wanted` if it is free, else any free port."""
    chooser = random.SystemRandom()
    candidates = [wanted] if wanted else []
    candidates += chooser.sample(_RANGE, 200)
    return next(port for port in candidates if _is_free(host, port))


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
