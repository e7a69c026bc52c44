"""The names of the Celery tasks and their queue, shared by dispatcher and workers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

QUEUE = "sliceway"


class TaskName(StrEnum):
    """What an operator sees in Flower."""

    INIT = "sliceway.init"
    SLICE = "sliceway.slice"
    FINISH = "sliceway.finish"
    ABORT = "sliceway.abort"


TASK_OF: Mapping[str, TaskName] = {
    JobState.QUEUED: TaskName.INIT,
    JobState.UPLOADING: TaskName.SLICE,
    JobState.FINISHING: TaskName.FINISH,
    JobState.CANCELLING: TaskName.ABORT,
}
"""Which task the dispatcher dispatches for a job in this state."""
