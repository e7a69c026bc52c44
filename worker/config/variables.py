"""Reads our environment variables: without those of Kubernetes, and without white space around the values."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "SLICEWAY_"
_SERVICE_LINK = re.compile(
    r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?)"
)
_PORT_OF_A_SERVICE = re.compile(r"(?:tcp|udp|sctp)://")
_BYTE_ORDER_MARK = "\ufeff"


def without_service_links(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that Kubernetes sets for each Service in the namespace.

    For a Service `sliceway-api` it sets `SLICEWAY_API_SERVICE_HOST`, and `SLICEWAY_API_PORT=tcp://10.0.0.1:8080`,
    which has the name of a setting.
    """
    return {name: value for name, value in environ.items() if not _is_service_link(name, value)}


def _is_service_link(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _PORT_OF_A_SERVICE.match(value):
        return True
    return _SERVICE_LINK.fullmatch(name) is not None


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """Return our variables by name with stripped values. An empty variable counts as unset."""
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    return {name: stripped(value) for name, value in without_service_links(ours).items()}


def stripped(text: str) -> str:
    """Return a value without a byte order mark and the white space around it, such as the newline of `echo`."""
    return text.strip().removeprefix(_BYTE_ORDER_MARK).strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest known name that shares most words, or ""."""
    words = set(name.split("_"))
    near = difflib.get_close_matches(name, list(known))
    return f"; did you mean {max(near, key=lambda each: len(words & set(each.split('_'))))}?" if near else ""
