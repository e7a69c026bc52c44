"""The state that every route uses: one `AppState` a process."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends
from starlette.requests import Request

from api.enqueue_batcher import EnqueueBatcher
from api.stores_watch import StoresWatch
from api.waiters import Waiters
from worker.config.settings import Settings
from worker.db.pool import Database
from worker.jobs.admission import Admission
from worker.jobs.api_keys import KeyRing
from worker.jobs.quota import Quota


@dataclass(frozen=True, slots=True)
class AppState:
    """The settings and the shared objects of one API process."""

    settings: Settings
    database: Database
    keys: KeyRing
    admission: Admission
    quota: Quota
    enqueue_batcher: EnqueueBatcher
    waiters: Waiters
    stores: StoresWatch
    large_bodies: CapacityLimiter
    """Lets one thread parse a large body: several threads would only compete for the interpreter lock."""

    @property
    def root(self) -> str:
        """The path below which the API is published; every path begins with it."""
        return self.settings.root_path or ""


def app_state_of(request: Request) -> AppState:
    """Return the state of the process that serves the request."""
    app_state: AppState = request.app.state.sliceway
    return app_state


async def _app_state(request: Request) -> AppState:  # not a plain `def`: FastAPI would run that in a thread
    return app_state_of(request)


AppStateDep = Annotated[AppState, Depends(_app_state)]
