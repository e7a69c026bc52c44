"""The state that every route uses: one `AppState` a process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from api.enqueue_batcher import Submissions
from api.offload import LargeWork
from api.waiters import Waiters
from worker.config.settings import Settings
from worker.db.pool import Database
from worker.jobs.admission import Admission
from worker.jobs.api_keys import KeyRing
from worker.jobs.quota import Quota


@dataclass(frozen=True, slots=True)
class AppState:
    """What one API process has."""

    settings: Settings
    database: Database
    keys: KeyRing
    admission: Admission
    quota: Quota
    submissions: Submissions
    waiters: Waiters
    large: LargeWork

    @property
    def root(self) -> str:
        """What the path of every URL begins with."""
        return self.settings.root_path or ""


def app_state_of(request: Request) -> AppState:
    """Return what the process that serves the request has."""
    app_state: AppState = request.app.state.sliceway
    return app_state


async def _app_state(request: Request) -> AppState:  # not a `def`: that would take a thread
    return app_state_of(request)


AppStateDep = Annotated[AppState, Depends(_app_state)]
