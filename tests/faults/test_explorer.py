"""Small worlds searched whole: no invariant is violated, every job ends, and the search notices a dropped guard."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.explorer.replay import ReplayDriver
from tests.faults.explorer.search import Explorer, InvariantViolated
from tests.faults.explorer.state import JOB, Fault, ForeignAction, World
from tests.faults.explorer.store_model import Store, respond, sha_of
from tests.faults.explorer.worlds import SMALL
from worker.stores.base import Aborted, Listing
from worker.stores.cos_json.client import CosJsonClient, Operation
from worker.stores.cos_json.errors import Kind, Op
from worker.stores.cos_json.response import StoreResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker.config.profiles import StoreProfile
    from worker.http.deadline import Guard
    from worker.stores.base import AbortSkipped, Digests, Handle, Intent, Stored


@pytest.fixture
def explorer(database_url: str, tmp_path: Path) -> Callable[..., Explorer]:
    def made(world: World, **changed: Any) -> Explorer:
        return Explorer(world, database_url, tmp_path, **changed)

    return made


@pytest.mark.parametrize("name", SMALL)
def test_no_invariant_is_violated_and_the_job_ends_from_every_state(
    name: str, explorer: Callable[..., Explorer], record_property: Callable[[str, object], None]
) -> None:
    explored = explorer(SMALL[name]).explore()
    record_property("explored", f"{name}: {explored}")
    assert explored.whole
    assert explored.ends["succeeded"] > 0


class Gullible(ReplayDriver):
    """A driver that reports our mark on every object, as if it compared nothing but the size."""

    def head(
        self, key: str, guard: Guard, *, expected: bool = False, finished_mark: str | None = None
    ) -> Stored | None:
        found = super().head(key, guard, expected=expected, finished_mark=finished_mark)
        return found and replace(found, mark=f"sliceway/{JOB}/1", digest=None)


class Careless(ReplayDriver):
    """A driver that discards without a check."""

    def abort(
        self,
        key: str,
        handle: Handle | None,  # noqa: ARG002 - it does not check
        guard: Guard,
        *,
        mark: str | None = None,  # noqa: ARG002
    ) -> Aborted | AbortSkipped:
        self._client.call(Operation(Op.DELETE, key, accept=frozenset({Kind.MISSING})), guard)
        return Aborted()


class Trusting(ReplayDriver):
    """A driver that takes the digest that init was given for the digest of any upload there, as 0.1 did."""

    def init(self, intent: Intent, slice_bytes: int, digests: Digests | None, guard: Guard) -> Any:
        self.given = digests and digests.value
        return super().init(intent, slice_bytes, digests, guard)

    def list_slices(self, key: str, handle: Handle | None, guard: Guard) -> Listing | Stored:
        listing = super().list_slices(key, handle, guard)
        if handle is not None or not isinstance(listing, Listing) or listing.digest is not None:
            return listing
        return replace(listing, handle={**listing.handle, "sha": self.given}, digest=self.given)


PUT = frozenset({ForeignAction.PUT})
DROPPED: dict[str, tuple[World, dict[str, Any], str]] = {
    "the token of a claim": (
        World(slices=1, faults=1, kinds=frozenset({Fault.CRASH})),
        {"dropped": {"claim_slice": ["AND s.token = %(token)s"]}},
        "claim_slice changed rows under an older token",
    ),
    "the state that a slice is claimed in": (
        World(slices=1),
        {
            "dropped": {
                "claim_slice": [
                    (
                        "AND CASE s.state WHEN 'dispatched' THEN true "
                        "WHEN 'sending' THEN %(reclaim)s AND s.worker = %(worker)s ELSE false END"
                    )
                ]
            }
        },
        "claim_slice took what another worker holds",
    ),
    "the token and the worker of a checkpoint": (
        World(slices=1, faults=1, kinds=frozenset({Fault.PAUSE})),
        {"dropped": {"checkpoint": ["AND s.token = a.token", "s.worker = %(worker)s AND "]}},
        "checkpoint changed rows",
    ),
    "the holder of a step that succeeds": (
        World(slices=0, faults=1, kinds=frozenset({Fault.PAUSE})),
        {"dropped": {"succeed": ["AND token = %(token)s AND worker = %(worker)s AND step = 'running'"]}},
        "succeed changed rows",
    ),
    "the rescue of what dead workers held": (
        World(slices=1, faults=1, kinds=frozenset({Fault.CRASH})),
        {"dropped": {"rescue": ["w.ended_at IS NOT NULL OR "]}},
        "nothing moves it on",
    ),
    "all proof but the size": (
        World(slices=1, foreign_actions=1, foreign_kinds=PUT),
        {"driver": Gullible},
        "the job has succeeded, and its object never was there",
    ),
    "the digest in the store's own list": (
        World(verified=True, marked=False, predecessor=ForeignAction.BEGIN_HALF),
        {"driver": Trusting},
        "slice 0 is recorded as done, and the store has other bytes",
    ),
    "the digest in the store's own list, where all slices are there": (
        World(slices=1, verified=True, marked=False, foreign_actions=1, foreign_kinds=frozenset({ForeignAction.BEGIN})),
        {"driver": Trusting},
        "slice 0 is recorded as done, and the store has other bytes",
    ),
    "the check before a discard": (
        World(slices=1, cancels=1, foreign_actions=1, foreign_kinds=PUT),
        {"driver": Careless},
        "we deleted another client's object",
    ),
}


@pytest.mark.parametrize("guard", DROPPED)
def test_a_dropped_guard_is_found_with_the_path_to_the_violation(guard: str, explorer: Callable[..., Explorer]) -> None:
    world, changed, violation = DROPPED[guard]
    with pytest.raises(InvariantViolated) as violated:
        explorer(world, **changed).explore()
    steps = str(violated.value).splitlines()
    assert violation in steps[-1]
    assert [int(step.split(".")[0]) for step in steps] == list(range(1, len(steps) + 1))


LIMITS: dict[str, tuple[World, str]] = {
    "without a mark, another client's object is taken for ours when the store has dropped our upload": (
        World(
            slices=1,
            faults=1,
            kinds=frozenset({Fault.EXPIRED}),
            foreign_actions=1,
            foreign_kinds=PUT,
            marked=False,
        ),
        "the job has succeeded, and its object never was there",
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_known_limits_are_where_the_decision_says(limit: str, explorer: Callable[..., Explorer]) -> None:
    """docs/decisions/0014 describes each; when one is gone, its fault belongs to those that are tolerated."""
    world, violation = LIMITS[limit]
    with pytest.raises(InvariantViolated) as violated:
        explorer(world).explore()
    assert violation in str(violated.value)


SLICE = 512 * 1024
FILE = b"a" * SLICE + b"b" * SLICE
OTHER = b"a" * SLICE + b"c" * SLICE


def requests(chance: random.Random, sessions: list[str]) -> tuple[Op, dict[str, str], bytes | None]:
    """Return a random request that is valid or nearly so."""
    op = chance.choice(list(Op))
    begin = {"filesize": str(len(FILE)), "slice_size": str(SLICE), "biz_attr": chance.choice(["mine", "theirs"])}
    begin["insertOnly"] = chance.choice("01")
    sha = chance.choice([{}, {"sha": sha_of(FILE)}, {"sha": sha_of(OTHER)}])
    offset = chance.choice([0, SLICE])
    session = {"session": chance.choice([*sessions[-2:], "none"])}
    match op:
        case Op.INIT:
            parts = [{"offset": 0, "datalen": len(FILE), "datasha": sha["sha"]}] if sha else []
            return op, begin | sha | ({"uploadparts": json.dumps(parts)} if sha else {}), None
        case Op.DATA:
            content = chance.choice([FILE, FILE, FILE, OTHER])
            return op, session | {"offset": str(offset)} | sha, content[offset : offset + SLICE]
        case Op.FINISH:
            return op, session | {"filesize": str(len(FILE))} | sha, None
        case Op.UPLOAD:
            whole = chance.choice([b"x", b"yy"])
            return op, {"sha": sha_of(whole), "biz_attr": begin["biz_attr"], "insertOnly": begin["insertOnly"]}, whole
        case _:
            return op, {}, None


COMPARED = ("offset", "datalen", "filesize", "filelen", "biz_attr", "slice_size", "listparts")


@pytest.mark.parametrize("seed", range(3))
def test_store_model_answers_as_the_emulator_does(seed: int, store_profile: StoreProfile) -> None:
    chance, client, store = random.Random(seed), CosJsonClient(store_profile), Store(SLICE, FILE)
    sessions: list[str] = []
    names: dict[str, str] = {}
    codes = set()
    for number in range(200):
        op, fields, content = requests(chance, sessions)
        answer = client.call(
            Operation(op, "key", tuple(fields.items()), memoryview(content) if content else None, frozenset(Kind)),
            NoDeadline(),
        )
        ours = {name: names.get(value, value) if name == "session" else value for name, value in fields.items()}
        store, code, data = respond(store, op, ours, content or b"")
        given = {name: (data or {}).get(name) for name in COMPARED}
        assert (code, given) == (answer.code, {name: answer.data.get(name) for name in COMPARED}), (number, op, fields)
        assert StoreResponse(200, 0, data=data or {}).sha() == answer.sha(), (number, op)
        assert ("access_url" in (data or {})) == answer.complete, (number, op)
        codes.add((op, code))
        if op is Op.INIT and answer.ok:
            sessions.append(answer.data["session"])
            names[sessions[-1]] = (data or {})["session"]
    client.close()
    assert len(codes) > 12, "these requests cover too little"


class NoDeadline:
    """A guard that lets every request continue."""

    def check(self) -> None:
        """Raise nothing."""

    def remaining_s(self) -> float:
        return 30.0

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""
