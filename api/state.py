"""What every route leans on: one `Front` a process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from api.enqueue_batcher import Submissions
from api.offload import LargeWork
from api.waiters import Waiters
from worker.config.settings import Settings
from worker.db.pool import Database
from worker.jobs.admission import Intake
from worker.jobs.api_keys import KeyRing
from worker.jobs.quota import Quota


@dataclass(frozen=True, slots=True)
class Front:
    """What one API process has."""

    settings: Settings
    database: Database
    keys: KeyRing
    intake: Intake
    quota: Quota
    submissions: Submissions
    waiters: Waiters
    large: LargeWork

    @property
    def root(self) -> str:
        """What the path of every URL begins with."""
        return self.settings.root_path or ""


def front_of(request: Request) -> Front:
    """Return what the process that serves the request has."""
    front: Front = request.app.state.front
    return front


async def _front(request: Request) -> Front:  # not a `def`: that would take a thread
    return front_of(request)


FrontDep = Annotated[Front, Depends(_front)]
