"""Kombu's options for the connections to a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.config.broker_url import BrokerUrl


def options(url: BrokerUrl) -> dict[str, object]:
    """Return kombu's options for the connections to a broker; one that is no Redis takes no notice of them."""
    timeouts: dict[str, object] = {"socket_timeout": 5, "socket_connect_timeout": 2}
    made = timeouts | {
        "socket_keepalive": True,
        "health_check_interval": 5,
        "visibility_timeout": 86_400,  # redelivery is the dispatcher's business
    }
    if (master := url.master) is not None:
        secret = {} if master.password is None else {"password": master.password.reveal()}
        made |= {"master_name": master.name, "sentinel_kwargs": timeouts | secret}
    return made
