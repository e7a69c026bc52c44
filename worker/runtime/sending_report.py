"""What a worker process reports of its requests that carry content: how many bytes of each are acknowledged. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.jobs.documents import SendingEntry
    from worker.jobs.leases import Claim
    from worker.tasks.guard import ClaimGuard

MAX_ENTRIES = 20
"""The report is written every second. A process sends hardly more at once; what has no room counts once it is done."""


class Entry(NamedTuple):
    """A claim whose content is being sent: what is acknowledged of it, its size, and since when (on the boot clock)."""

    claim: Claim
    acked_bytes: int
    size_bytes: int
    since_s: float

    def document(self, now_s: float) -> SendingEntry:
        """Return the entry as JSON. A file sent in one request (`number` None) has no other place for its size."""
        return {
            "job": str(self.claim.job_id),
            "number": self.claim.number,
            "token": self.claim.token,
            "bytes": self.acked_bytes,
            "size": self.size_bytes,
            "for_s": round(max(0.0, now_s - self.since_s), 3),
        }


class SendingReport:
    """Chooses what is reported, and when a change is worth a write of its own."""

    def __init__(self, period_s: float) -> None:
        """Write a change after ``period_s`` seconds at the earliest."""
        self._period_s = period_s
        self._written: dict[Claim, int] = {}
        self._written_at_s = float("-inf")

    def observe(self, guards: Iterable[ClaimGuard]) -> list[Entry]:
        """Return what is being sent now, by the guards of the process's claims, oldest first.

        What was reported before stays: were it displaced by another, the progress that people see would fall. It also
        stays when its request is answered, until its checkpoint is committed and the guard has gone.
        """
        entries = [
            Entry(guard.claim, guard.sent_bytes, guard.size_bytes, guard.sending_since_s)
            for guard in guards
            if guard.size_bytes is not None
        ]
        entries.sort(key=lambda entry: entry.claim not in self._written)
        return entries[:MAX_ENTRIES]

    def due(self, entries: Sequence[Entry], now_s: float) -> bool:
        """Say whether the entries are to be written now: they have changed, and the last write is old enough."""
        return now_s - self._written_at_s >= self._period_s and _bytes_of(entries) != self._written

    def written(self, entries: Sequence[Entry], now_s: float) -> None:
        """Remember that the entries were written."""
        self._written, self._written_at_s = _bytes_of(entries), now_s


def _bytes_of(entries: Sequence[Entry]) -> dict[Claim, int]:
    return {entry.claim: entry.acked_bytes for entry in entries}
