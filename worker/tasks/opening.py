"""Open the source of a job that is (again) at its beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import SourceChanged, StaleClaim
from worker.jobs import transitions
from worker.jobs.retry import describe
from worker.telemetry.log import get_logger
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from worker.jobs.retry import ErrorDocument
    from worker.jobs.rows import ClaimedJob
    from worker.sources.base import Source
    from worker.tasks.context import TaskContext

log = get_logger(__name__)


def open_for_init(ctx: TaskContext[ClaimedJob]) -> Source:
    """Return the job's source.

    Only a retry leads here with a session: it goes on with the session if the file is as it was, and uploads the file
    as it is now if not. A job without a session fails.

    Raises:
        SourceError: it cannot be read as promised.
        StaleClaim: it is another file than the session is of, and the job begins afresh: this claim is over.
    """
    try:
        return ctx.rt.source(ctx.job)
    except SourceChanged as error:
        if ctx.job.session is None:
            raise
        cause: ErrorDocument = redact_json(describe(error))
        log.info("task.afresh", code=error.code)
        ctx.write(lambda tx: transitions.take_other_file(tx, ctx.claim, cause))
        ctx.rt.notify_dispatcher()
        raise StaleClaim(f"job {ctx.claim.job_id} begins afresh: {error.message}") from error
