"""The reasons for which jobs wait: a stable code, one sentence, since when or until when, and the data. Pure.

A sentence holds for one job and for many alike. Times are UTC. The words of an error are those stored with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class ReasonCode(StrEnum):
    """Why a job is where it is. Stable: programs compare it. In the order of importance to an operator."""

    DATABASE_READ_ONLY = "database_read_only"
    NO_WORKER = "no_worker"
    NO_LEADER = "no_leader"
    NO_CONSUMER = "no_consumer"
    WORKER_SILENT = "worker_silent"
    QUEUE_PAUSED = "queue_paused"
    STORE_PAUSED = "store_paused"
    TENANT_PAUSED = "tenant_paused"
    BREAKER_OPEN = "breaker_open"
    STORE_CHANGED = "store_changed"
    TENANT_NOT_ALLOWED = "tenant_not_allowed"
    ROOT_UNAVAILABLE = "root_unavailable"
    RETRY_LATER = "retry_later"
    PAUSED = "paused"
    STORE_CAP = "store_cap"
    TENANT_CAP = "tenant_cap"
    LINK_CAP = "link_cap"
    LINK_UNKNOWN = "link_unknown"
    SLOW_SHARE = "slow_share"
    SLOT = "slot"
    TENANT_SHARE = "tenant_share"
    DUE = "due"
    CLAIMS_END = "claims_end"
    RUNNING = "running"


OF_THE_ENGINE = frozenset(
    {ReasonCode.DATABASE_READ_ONLY, ReasonCode.NO_WORKER, ReasonCode.NO_LEADER, ReasonCode.NO_CONSUMER}
)
"""The reasons that hold for every job which waits for the dispatcher or a worker."""


@dataclass(frozen=True, slots=True)
class WaitReason:
    """One reason.

    Attributes:
        code: stable.
        words: one sentence: what, which, since or until when.
        advice: what an operator can do; empty where nothing is to be done.
        since: when it began, where that is known.
        until: when it ends or is looked at again, where that is known.
        data: its figures and names.
    """

    code: ReasonCode
    words: str
    advice: str = ""
    since: datetime | None = None
    until: datetime | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class StoredError(NamedTuple):
    """What a reason needs of an error document; ``message`` is empty where those of several jobs differ."""

    code: str
    message: str
    advice: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> StoredError:
        """Read a column `error`."""
        return cls(document.get("code") or "unknown", document.get("message") or "", document.get("advice") or "")

    @property
    def words(self) -> str:
        """The code and the message."""
        return f"{self.code}: {self.message.rstrip('.')}" if self.message else self.code

    def data(self) -> dict[str, str]:
        """Return it as data."""
        return {"code": self.code, "message": self.message} if self.message else {"code": self.code}


class Pause(NamedTuple):
    """Since when a job is paused, by whom and why; the last two are None where that differs among several jobs."""

    at: datetime
    by: str | None
    reason: str | None


def moment(at: datetime, now: datetime) -> str:
    """Return a time in UTC, without the date if that is today's."""
    return f"{at:%H:%M:%SZ}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%SZ}"


def paused(pause: Pause, now: datetime) -> WaitReason:
    """An operator has paused it."""
    who = f" by {pause.by}" if pause.by else ""
    words = f"Paused{who} since {moment(pause.at, now)}" + (f": {pause.reason.rstrip('.')}." if pause.reason else ".")
    data = {"by": pause.by, "reason": pause.reason}
    return WaitReason(ReasonCode.PAUSED, words, "`sliceway jobs retry ID` lets it go on.", since=pause.at, data=data)


def breaker_open(store: str, error: StoredError, opened_at: datetime, probe_at: datetime, now: datetime) -> WaitReason:
    """The store was found unusable."""
    probe = f"the next probe goes out at {moment(probe_at, now)}" if probe_at > now else "a probe is due now"
    words = f"Store {store} is unusable since {moment(opened_at, now)} ({error.words}); {probe}."
    data = {"store": store, "error": error.data()}
    return WaitReason(ReasonCode.BREAKER_OPEN, words, error.advice, since=opened_at, until=probe_at, data=data)


def not_served(store: str, error: StoredError) -> WaitReason:
    """The stores file does not serve the job any more, as the API has it."""
    words = f"The stores file does not serve it: {error.message.rstrip('.')}."
    data = {"store": store, "error": error.data()}
    return WaitReason(ReasonCode(error.code), words, error.advice, data=data)


def retry_later(
    store: str, error: StoredError | None, until: datetime, since: datetime | None, now: datetime
) -> WaitReason:
    """An attempt has failed, and the next one has a time."""
    after = f", after {error.words}" if error else ""
    code = ReasonCode.RETRY_LATER
    if error and error.code in {ReasonCode.STORE_CHANGED, ReasonCode.TENANT_NOT_ALLOWED}:
        code = ReasonCode(error.code)
    words = f"The next attempt for store {store} is at {moment(until, now)}{after}."
    data = {"store": store, "error": error.data() if error else None}
    return WaitReason(code, words, error.advice if error else "", since=since, until=until, data=data)


def root_unavailable(
    root: str,
    error: StoredError,
    until: datetime,
    since: datetime | None,
    *,
    now: datetime,
    readers: int,
    workers: int,
) -> WaitReason:
    """No worker that tried could read the root; ``readers``: of the live workers, those that can."""
    words = (
        f"Root {root} is not there ({error.message.rstrip('.') or error.code}); {readers} of {workers} workers can read"
        f" it, and the next look is at {moment(until, now)}."
    )
    data = {"root": root, "workers_with_root": readers, "workers": workers}
    return WaitReason(ReasonCode.ROOT_UNAVAILABLE, words, error.advice, since=since, until=until, data=data)


def database_read_only() -> WaitReason:
    """No row can be written."""
    advice = "Let SLICEWAY_DATABASE_URL lead to the primary; see default_transaction_read_only."
    words = "The database takes no writes, so nothing can be dispatched."
    return WaitReason(ReasonCode.DATABASE_READ_ONLY, words, advice)


def no_worker(last_heartbeat_at: datetime | None, now: datetime) -> WaitReason:
    """No worker process is alive."""
    last = f"; the last heartbeat was at {moment(last_heartbeat_at, now)}" if last_heartbeat_at else ""
    words = f"No worker process is alive{last}."
    return WaitReason(ReasonCode.NO_WORKER, words, "Start one: `sliceway worker`.", since=last_heartbeat_at)


def no_leader(workers: int, leads_until: datetime | None, now: datetime) -> WaitReason:
    """Workers live, and no dispatcher leads."""
    since = f" since {moment(leads_until, now)}" if leads_until else ""
    words = (
        f"No dispatcher leads{since}, although {_counted(workers, 'worker process', 'es')} live: nothing is dispatched."
    )
    advice = "See again in some seconds; if it stays, restart the workers and read their logs."
    return WaitReason(ReasonCode.NO_LEADER, words, advice, since=leads_until, data={"workers": workers})


def no_consumer(workers: int, since: datetime, now: datetime) -> WaitReason:
    """Workers live, and none takes what is dispatched."""
    words = (
        f"Of {_counted(workers, 'live worker process', 'es')} none has taken what was dispatched at"
        f" {moment(since, now)}, and none is at work."
    )
    advice = "`sliceway doctor` looks at the broker and its consumers; restart the workers if it finds nothing."
    return WaitReason(ReasonCode.NO_CONSUMER, words, advice, since=since, data={"workers": workers})


def worker_silent(name: str | None, heartbeat_at: datetime, now: datetime) -> WaitReason:
    """The worker that holds the step was not heard of for long."""
    who = f"Its worker {name}" if name else "Its worker"
    words = f"{who} is silent since {moment(heartbeat_at, now)}; a leader gives its work to another one."
    return WaitReason(ReasonCode.WORKER_SILENT, words, since=heartbeat_at, data={"worker": name})


def claims_end(sending: int, *, abandoned: bool) -> WaitReason:
    """A cancelled job's abort waits until no worker sends, an abandoned job's end until no request can be under way."""
    words = f"It was cancelled, and its abort waits until {_counted(sending, 'slice')} in flight have ended."
    if abandoned:
        words = "It was abandoned, and ends when no request of it can be under way any more."
    return WaitReason(ReasonCode.CLAIMS_END, words, data={"slices_in_flight": sending})


def _slot_advice(out: int, slots: int) -> str:
    if out < slots:
        return "Slots are free: if this stays, `sliceway doctor` looks at the broker, which the API cannot see."
    return "Start more workers if this stays."


def slot(place: int | None, out: int, slots: int, *, most: int, holders: object) -> WaitReason:
    """Every place is taken: ``out`` of the ``2 * slots`` steps and slices that may be dispatched."""
    line = "" if place is None else f", place {place:,}{' or later' if place > most else ''} in its line"
    words = f"Waits for a slot{line}: {_counted(out, 'request')} out for {_counted(slots, 'slot')}."
    data = {"place": place, "in_flight": out, "slots": slots, "holders": holders}
    return WaitReason(ReasonCode.SLOT, words, _slot_advice(out, slots), data=data)


def taken_soon(dispatched_at: datetime, now: datetime, out: int, slots: int, holders: object) -> WaitReason:
    """It was dispatched, and no worker has taken its message yet."""
    at, requests = moment(dispatched_at, now), _counted(out, "request")
    words = f"Dispatched at {at}, and waits for a free slot of a worker: {requests} out for {_counted(slots, 'slot')}."
    data = {"place": None, "in_flight": out, "slots": slots, "holders": holders}
    return WaitReason(ReasonCode.SLOT, words, _slot_advice(out, slots), since=dispatched_at, data=data)


def tenant_share(tenant: str, own: int, slots: int, others: int) -> WaitReason:
    """Other tenants wait, too, and go first."""
    words = (
        f"Tenant {tenant} has {own} in flight; first comes the work of {_counted(others, 'other tenant')} with less,"
        " or with a better priority."
    )
    data = {"tenant": tenant, "in_flight": own, "slots": slots, "other_tenants": others}
    return WaitReason(ReasonCode.TENANT_SHARE, words, data=data)


def due() -> WaitReason:
    """Nothing holds it back."""
    advice = "If this stays, `sliceway doctor` looks at the broker, which the API cannot see."
    return WaitReason(ReasonCode.DUE, "Due: the next tick of the dispatcher takes it.", advice)


def running(step: str | None, worker: str | None, sending: int, rate: int | None) -> WaitReason:
    """Workers are at it: at its own step, or at slices; ``rate`` in bytes a second."""
    speed = f", at {rate / 1e6:,.2f} MB/s" if rate else ""
    who = f"worker {worker}" if worker else "a worker"
    words = f"Runs: {who} has its {step}" if step else f"Runs: {_counted(sending, 'slice')} in flight"
    data = {"step": step, "worker": worker, "slices_in_flight": sending, "bytes_per_s": rate}
    return WaitReason(ReasonCode.RUNNING, f"{words}{speed}.", data=data)


def _counted(number: int, name: str, plural: str = "s") -> str:
    return f"{number:,} {name}{'' if number == 1 else plural}"
