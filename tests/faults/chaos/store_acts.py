"""What befalls the store: killed, slow, failing, cutting connections, losing sessions, telling untruths."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.lanes import Row, Scene

#: Faults that a client can see through, unlike a byte that is changed in the store's own keeping.
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
_MOST_RULES = 3


@dataclass(frozen=True)
class KillStore:
    """SIGKILL for the store, in the middle of whatever it writes; it comes back on its folder."""

    name: str = "store_killed"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        lost = time.time()
        scene.cluster.store.kill()
        scene.pause(chance.uniform(0.0, 2.0))
        scene.cluster.store.start()
        return {"lost": lost, "back": time.time()}


@dataclass(frozen=True)
class MisbehaveStore:
    """A few rules of the fault plan for a while."""

    name: str = "store_faulty"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        control, rules = scene.cluster.store.control, chance.sample(_RULES, chance.randint(1, _MOST_RULES))
        for rule in rules:
            share = 0.03 if rule["fault"] in _RARE else chance.choice((0.05, 0.3, 0.7))
            control.add_rule(**rule, probability=share, seed=chance.getrandbits(32))
        scene.pause(chance.uniform(1.0, 5.0))
        control.clear_rules()
        return {"rules": rules}


@dataclass(frozen=True)
class SlowStore:
    """A store that takes few bytes a second from all together."""

    name: str = "store_slow"

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it."""
        rate = chance.choice((50_000, 200_000))
        scene.cluster.store.control.change(rate_bytes_per_s=rate)
        scene.pause(chance.uniform(1.0, 4.0))
        scene.cluster.store.control.change(rate_bytes_per_s=None)
        return {"rate_bytes_per_s": rate}
