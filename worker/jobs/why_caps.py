"""The reasons of caps: a store or a tenant has as many requests in flight as it may have. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs.room import Cap
from worker.jobs.why_reasons import ReasonCode, WaitReason, moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.jobs.cap_rows import SetCap
    from worker.jobs.room import Reached
    from worker.jobs.why import EngineState, Situation

_CAPS: Mapping[Cap, tuple[ReasonCode, str, str]] = {
    Cap.STORE: (
        ReasonCode.STORE_CAP,
        "Store {store} has {out} of {most} requests in flight, its max_in_flight.",
        "Raise `max_in_flight` of the store if it can take more.",
    ),
    Cap.LINK: (
        ReasonCode.LINK_CAP,
        "The link to store {store}, as measured, takes {most} at once; in flight: {out}.",
        "",
    ),
    Cap.UNKNOWN_LINK: (
        ReasonCode.LINK_UNKNOWN,
        "The link to store {store} is not measured yet, and takes {most} until that is answered; in flight: {out}.",
        "",
    ),
    Cap.SLOW_SHARE: (
        ReasonCode.SLOW_SHARE,
        "Store {store} is slow: slow stores hold {out} of the {most} slots that they may have together.",
        "",
    ),
}


def cap(it: Situation, engine: EngineState, reached: Reached, place: int | None) -> WaitReason:
    """A cap is reached, other than that of a probe, or will be by what goes first in the job's line."""
    by_operator = _by_operator(it, engine, reached)
    if by_operator is not None:
        return _set_by_operator(by_operator, engine, reached, place)
    code, words, advice = _CAPS[reached.cap]
    said = _with_place(words.format(store=it.store, out=reached.out, most=reached.most), place)
    figures = {"store": it.store, "in_flight": reached.out, "most": reached.most, "place": place}
    return WaitReason(code, said, advice, data=figures)


def _by_operator(it: Situation, engine: EngineState, reached: Reached) -> SetCap | None:
    """Return the operator's cap if it is the one that is reached; that of the profile may be lower."""
    if reached.cap is Cap.TENANT:
        return engine.caps[("tenant", str(it.tenant))]
    found = engine.caps.get(("store", it.store)) if reached.cap is Cap.STORE else None
    return found if found is not None and found.max_in_flight == reached.most else None


def _set_by_operator(found: SetCap, engine: EngineState, reached: Reached, place: int | None) -> WaitReason:
    kind, name = str(found.kind), found.name
    by = found.person or (f"key {found.key_name}" if found.key_name else found.actor)
    words = (
        f"{kind.capitalize()} {name} has {reached.out} of {reached.most} requests in flight, the limit set by {by}"
        f" at {moment(found.at, engine.now)}"
    )
    words += f": {found.reason.rstrip('.')}." if found.reason else "."
    code = ReasonCode.TENANT_CAP if reached.cap is Cap.TENANT else ReasonCode.STORE_CAP
    advice = f"`sliceway limits set {kind}:{name} --in-flight N` sets another limit, `none` removes it."
    data = {
        kind: name, "in_flight": reached.out, "most": reached.most, "place": place, "by": by, "reason": found.reason,
    }  # fmt: skip
    return WaitReason(code, _with_place(words, place), advice, since=found.at, data=data)


def _with_place(words: str, place: int | None) -> str:
    return f"{words.removesuffix('.')}; place {place:,} in its line." if place is not None and place > 1 else words
