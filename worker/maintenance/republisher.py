"""Republication: the leader publishes messages again that are presumed lost, each with the token that it has.

A sign does not prove a loss. If the message was not lost, there are two copies. The claim is guarded: one copy wins.

    sign                             why it means that messages are lost                what is published again
    -------------------------------  -------------------------------------------------  ------------------------------
    A term begins.                   The last leader may have died after its commit     everything dispatched
                                     and before its publish.

    The canary key is missing.       The broker has lost its keys. The queue is one     everything dispatched
                                     of its keys.

    The broker raises an error.      The broker may not have received the batch. It     everything dispatched
                                     may have restarted without its keys.

    The leader catches an            The error may lie between a commit and its         everything dispatched
    unexpected error.                publish.

    A worker has ended.              The worker may have fetched a message and not      what was dispatched before
                                     claimed it. The broker keeps no copy of it.        that end

    A worker has claimed a message   Workers fetch messages in the order of the queue.  what was dispatched more than
    (its dispatch is the             A worker has fetched the older message and has     `presumed_lost_s` before the
    watermark).                      not claimed it for so long.                        watermark

    The queue is empty.              A worker has fetched the message. The worker has   what was dispatched more than
                                     had `presumed_lost_s` to claim it.                 `presumed_lost_s` ago

The last sign covers the very last message: no later claim shows that it is lost.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from worker.jobs import transitions
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from worker.broker.publisher import Broker
    from worker.db.pool import Connection
    from worker.jobs.due import QueueSnapshot
    from worker.maintenance.cadence import Cadence

log = get_logger(__name__)

EMPTIED_CHECK_EVERY_S = 1.0
PRESUMED_LOST_CHECK_EVERY_S = 0.5


class Republisher:
    """Publishes lost messages again. One thread uses it: that of the broker's connection."""

    def __init__(self, broker: Broker, cadence: Cadence, presumed_lost_s: float) -> None:
        """Begin with no sign of a loss."""
        self._broker, self._cadence = broker, cadence
        self._presumed_lost_after = timedelta(seconds=presumed_lost_s)
        self._covered_end: datetime | None = None
        self.all_lost = False
        """Every message is presumed lost; the leader sets it, and the next republication unsets it."""

    def republish_lost(self, tx: Connection, snapshot: QueueSnapshot) -> None:
        """Publish again what is presumed lost, by the signs above."""
        if self._cadence.is_time("broker", EMPTIED_CHECK_EVERY_S) and self._broker.was_emptied():
            if not self.all_lost:  # at the start of a term all is published anyway
                log.warning("broker.emptied")
            self.all_lost = True
        before: datetime | None = None
        if not self.all_lost:
            signs = self._signs(snapshot)
            if not signs:
                return
            before = max(signs)
        lost = transitions.redispatch(tx, before)
        self._broker.publish(lost)
        self.all_lost, self._covered_end = False, snapshot.last_ended
        if lost:
            log.info("dispatcher.republished", messages=len(lost))

    def _signs(self, snapshot: QueueSnapshot) -> list[datetime]:
        """Return a time for each sign: what was dispatched before it is presumed lost."""
        signs = []
        if snapshot.last_ended is not None and snapshot.last_ended != self._covered_end:
            signs.append(snapshot.last_ended)
        if self._cadence.is_time("presumed_lost", PRESUMED_LOST_CHECK_EVERY_S):
            if snapshot.claimed_through is not None:
                signs.append(snapshot.claimed_through - self._presumed_lost_after)
            if self._broker.length() == 0:
                signs.append(snapshot.now - self._presumed_lost_after)
        return signs
