"""The settings that limit the API's clients: a part of `Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from worker.config.fields import Frozen, Positive, PositiveFloat


class ApiLimits(Frozen):
    """Limits on connections, request heads and request bodies. Durations are seconds, sizes bytes."""

    api_connections: Positive = Field(
        default=1000, description="Connections that one API process keeps; fewer where `ulimit -n` is too low for them."
    )
    api_connections_per_address: Positive | None = Field(
        default=None, description="The same from one address (IPv6: one /64); unset: no limit, as behind a proxy."
    )
    api_head_max_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=32_768, description="Largest head of a request: request line and header fields."
    )
    api_url_max_bytes: Annotated[int, Field(ge=256)] = Field(default=8192, description="Longest URL of a request.")
    api_head_timeout_s: PositiveFloat = Field(
        default=10.0, description="Time for a request's head, from the connection's beginning or the head's first byte."
    )
    api_keep_alive_s: PositiveFloat = Field(
        default=75.0, description="Time that a connection is kept between two requests; longer than a proxy keeps it."
    )
    api_body_timeout_s: PositiveFloat = Field(
        default=10.0, description="Time for a request's body, beside the time that it takes at the low speed."
    )
    api_low_speed_bytes_per_s: Positive = Field(default=16_384, description="The low speed of a request's body.")
    api_send_timeout_s: PositiveFloat = Field(
        default=30.0, description="Time in which a client has to take more of an answer that waits for it."
    )
    api_linger_s: PositiveFloat = Field(
        default=5.0, description="Time for which a refused request is still read, so that its client hears the answer."
    )
