"""Asks the sentinels which server is the master now, and checks that all of them answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.doctor.findings import CONNECT_S, Finding, Level
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.broker_url import BrokerUrl, Master

AT_ONCE: Mapping[str, Any] = {
    "socket_timeout": CONNECT_S,
    "socket_connect_timeout": CONNECT_S,
    "retry": Retry(NoBackoff(), 0),  # the doctor reports the first failure
}
"""Options of the doctor's connections to a server of Redis's protocol."""


def master(url: BrokerUrl) -> tuple[BrokerUrl | None, list[Finding]]:
    """Return where the master is (None: no sentinel knows it), and findings about the sentinels."""
    wanted, sentinels = url.master, (url, *url.others)
    assert wanted is not None
    with ThreadPoolExecutor(len(sentinels)) as pool:
        answers = list(pool.map(partial(_ask, wanted), sentinels))
    failed = [(each, answer) for each, answer in zip(sentinels, answers, strict=True) if isinstance(answer, Exception)]
    places = [answer for answer in answers if isinstance(answer, tuple)]
    without = len(sentinels) - len(failed) - len(places)
    found = replace(url, host=places[0][0], port=places[0][1], others=(), master=None) if places else None
    if found is None:
        return None, [_master_unknown(url, failed, without)]
    findings = [_unreachable(each, error) for each, error in failed]
    if without:
        text = f"{without} of {len(sentinels)} know no master {wanted.name}"
        advice = "Give all of them the same `sentinel monitor …`."
        findings.append(Finding("broker sentinels", Level.NOTE, text, advice))
    return found, findings


def _ask(wanted: Master, sentinel: BrokerUrl) -> tuple[str, int] | redis.RedisError | None:
    """Return the master's address by one sentinel; None: the sentinel knows no master of this name."""
    secret = None if wanted.password is None else wanted.password.reveal()
    host, port = sentinel.address.name, sentinel.address.port or 0
    try:
        with redis.Redis(host=host, port=port, password=secret, decode_responses=True, **AT_ONCE) as client:
            answer: tuple[str, int] | None = client.sentinel_get_master_addr_by_name(wanted.name)
    except redis.RedisError as error:
        return error
    return answer


def _master_unknown(url: BrokerUrl, failed: list[tuple[BrokerUrl, redis.RedisError]], without: int) -> Finding:
    assert url.master is not None
    if without:
        advice = "Set SLICEWAY_BROKER_SENTINEL_MASTER to the name in their `sentinel monitor NAME …`."
        return Finding("broker", Level.FAILED, f"{url}: they know no master called {url.master.name}", advice)
    return replace(_unreachable(*failed[0]), check="broker", level=Level.FAILED)


def _unreachable(sentinel: BrokerUrl, error: redis.RedisError) -> Finding:
    address, text = sentinel.address, first_line(error)
    if isinstance(error, redis.AuthenticationError):
        advice = "Set SLICEWAY_BROKER_SENTINEL_PASSWORD to the sentinels' requirepass, or unset it."
        return Finding("broker sentinels", Level.NOTE, f"sentinel {address}: {text}", advice)
    text = f"sentinel {address} does not answer: {text}"
    return Finding("broker sentinels", Level.NOTE, text, "See that it runs, and that SLICEWAY_BROKER_URL names it.")
