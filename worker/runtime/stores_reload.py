"""The reload of the profiles in a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.config.authorities import check_authorities
from worker.config.live_profiles import Reloader
from worker.jobs import breakers, stores_reload
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from worker.jobs.stores_reload import ProfilesDocument, ReloadRequest
    from worker.tasks.context import Runtime

log = get_logger(__name__)


class StoresReload:
    """Reads the stores file again when that is asked for, and lets everything that follows from it follow.

    The thread of the heartbeat uses it; `ask` is for signal handlers.
    """

    def __init__(self, rt: Runtime) -> None:
        """Begin with the profiles as they are."""
        self._rt, self._live = rt, rt.settings.live_profiles
        self._reloader = Reloader(self._live, check_authorities)
        self.ask = self._reloader.ask
        self._request = stores_reload.NOTHING_ASKED
        self._to_probe: frozenset[str] = frozenset()
        self._said: ProfilesDocument | None = None

    def note(self, request: ReloadRequest) -> None:
        """Take note of the latest reload that was asked for."""
        self._request = request

    def look(self) -> bool:
        """Reload if that was asked for; return whether there is something new to say with a heartbeat."""
        changed = self._reloader.look(self._request.generation, self._request.key)
        if changed is not None:
            self._rt.use_profiles()
            self._to_probe |= changed
        if self._to_probe:
            self._release_waiting()
        self._rt.drivers.close_unused(self._live.profiles.stores, self._rt.guards.current)
        return self._document() != self._said

    def say(self) -> ProfilesDocument | None:
        """Return what the next heartbeat says of the profiles."""
        self._said = self._document()
        return self._said

    def _document(self) -> ProfilesDocument | None:
        return stores_reload.document(self._live, self._reloader, self._request.key)

    def _release_waiting(self) -> None:
        """Have the stores whose profiles have changed probed at once.

        Each process does so: a probe may go to one that has not read its file yet, and the last one has the last word.
        """
        with self._rt.db.connection() as tx:
            probed = breakers.probe_at_once(tx, self._to_probe)
        self._to_probe = frozenset()
        if probed:
            log.info("stores.probed_at_once", stores=probed)
        self._rt.notify_dispatcher()
