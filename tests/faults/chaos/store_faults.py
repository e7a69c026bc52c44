"""Faults of the store: killed, slow, failing, cutting connections, losing sessions, answering wrongly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.fault_injector import FaultContext, Row

#: Faults that a client can detect, unlike a byte that changes inside the store.
_RULES: tuple[dict[str, Any], ...] = (
    {"fault": "error", "status": 503, "code": -196},
    {"fault": "error", "status": 500, "code": -195},
    {"fault": "error", "status": 200, "code": -196},
    {"fault": "error", "status": 503, "code": -196, "when": "after"},
    {"fault": "error", "status": 429, "code": -71},
    {"fault": "raw", "status": 502, "body": "<html>bad gateway</html>"},
    {"fault": "cut"},
    {"fault": "cut", "when": "after"},
    {"fault": "cut", "when": "after", "op": "finish"},
    {"fault": "cut", "when": "after", "op": "init"},
    {"fault": "cut_body", "body_bytes": 700},
    {"fault": "truncate"},
    {"fault": "delay", "delay_s": 0.5},
    {"fault": "delay", "delay_s": 0.5, "when": "after"},
    {"fault": "drip", "delay_s": 0.02},
    {"fault": "lose_session", "op": "data"},
    {"fault": "wrong_session", "op": "data"},
    {"fault": "wrong_offset", "op": "data"},
    {"fault": "swallow", "op": "data"},
    {"fault": "swallow", "op": "finish"},
)
_RARE = frozenset({"lose_session"})
_MAX_RULES = 3


def store_killed(context: FaultContext, chance: random.Random) -> Row | None:
    """SIGKILL for the store, also while it writes; it starts again on its folder."""
    lost = time.time()
    context.cluster.store.kill()
    context.pause(chance.uniform(0.0, 2.0))
    context.cluster.store.start()
    return {"lost": lost, "back": time.time()}


def store_faulty(context: FaultContext, chance: random.Random) -> Row | None:
    """A few rules of the emulator's fault plan for a while."""
    control, rules = context.cluster.store.control, chance.sample(_RULES, chance.randint(1, _MAX_RULES))
    for rule in rules:
        share = 0.03 if rule["fault"] in _RARE else chance.choice((0.05, 0.3, 0.7))
        control.add_rule(**rule, probability=share, seed=chance.getrandbits(32))
    context.pause(chance.uniform(1.0, 5.0))
    control.clear_rules()
    return {"rules": rules}


def store_slow(context: FaultContext, chance: random.Random) -> Row | None:
    """A store that receives few bytes a second from all clients together."""
    rate = chance.choice((50_000, 200_000))
    context.cluster.store.control.change(rate_bytes_per_s=rate)
    context.pause(chance.uniform(1.0, 4.0))
    context.cluster.store.control.change(rate_bytes_per_s=None)
    return {"rate_bytes_per_s": rate}
