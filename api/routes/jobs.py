"""Jobs: enqueue, list, look at, retry, cancel."""

from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import APIRouter, Header, Path
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Operator, Reader
from api.body import Posted, PostedBatch, PostedJob
from api.offload import LARGE_BYTES, SMALL_BYTES
from api.problems import refusals
from api.schemas.filters import EnqueueQuery, JobsQuery, RetryQuery, WaitQuery
from api.schemas.jobs import BatchItem, IdempotencyKey, JobRequest, parse, parse_batch
from api.state import AppState, AppStateDep
from api.views import (
    BatchAnswer,
    JobAccepted,
    JobChecked,
    JobList,
    JobMoved,
    JobView,
    accepted,
    cursor,
    job_after,
    job_view,
    rendered,
    result,
)
from api.waiting import waits
from worker.db.pool import Tx
from worker.db.repetition import run_idempotent
from worker.errors import NotSupported, Refused
from worker.jobs import commands, queries, submit
from worker.jobs.api_keys import ApiKey
from worker.jobs.states import FINAL, JobState
from worker.jobs.submit import Accepted, Submission
from worker.jobs.transitions import NewJob

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
JobId = Annotated[UUID, Path(description="The job's id.")]
IdempotencyHeader = Annotated[
    IdempotencyKey | None,
    Header(description="The same request under the same key is the same job, as long as that job is kept."),
]


_ACCEPTED_HEADERS = {
    "Location": {"description": "Where to look at the job.", "required": True, "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "The job was there already, under the same idempotency key.",
        "schema": {"type": "string", "const": "true"},
    },
}


def _body_of(schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


@router.post(
    "",
    status_code=202,
    response_model=JobAccepted,
    responses={
        200: {"model": JobChecked, "description": "Dry run"},
        202: {"headers": _ACCEPTED_HEADERS},
        **refusals(400, 401, 403, 409, 413, 415, 429, 503),
    },
    openapi_extra=_body_of("JobRequest"),
)
async def enqueue(posted: PostedJob, how: EnqueueQuery, idempotency_key: IdempotencyHeader = None) -> Response:
    """Enqueue a file. The answer comes after the commit: from then on the job is kept. Needs the scope `submit`."""
    app_state, key = posted.app_state, posted.key
    if len(posted.body) <= SMALL_BYTES:
        request = parse(JobRequest, posted.body)
    else:
        request = await app_state.large.run(parse, JobRequest, posted.body)
    job_spec = request.job_spec(idempotency_key)
    [outcome] = await _submit(app_state, [app_state.admission.new_job(job_spec, key.tenant)], key, dry_run=how.dry_run)
    if isinstance(outcome, Refused):
        raise outcome
    content = accepted(outcome, dry_run=how.dry_run, root=app_state.root)
    if how.dry_run:
        return _json(content, 200)
    headers = {"Location": content["urls"]["self"]} | ({"Idempotent-Replayed": "true"} if outcome.replayed else {})
    return _json(content, 202, headers)


@router.post(
    "/batch",
    response_model=BatchAnswer,
    responses=refusals(400, 401, 403, 413, 415, 503),
    openapi_extra=_body_of("BatchRequest"),
)
async def enqueue_batch(request: Request, posted: PostedBatch, how: EnqueueQuery) -> Response:
    """Enqueue up to 1,000 files; each gets the result that it would have got alone. Needs the scope `submit`."""
    if "idempotency-key" in request.headers:
        raise NotSupported(
            "a batch has no Idempotency-Key of its own", advice="Give each item its own idempotency_key."
        )
    run = posted.app_state.large.run if len(posted.body) > LARGE_BYTES else run_in_threadpool
    outcomes = await run(_judge_all, posted)
    jobs = [outcome for outcome in outcomes if isinstance(outcome, NewJob)]
    submitted = iter(await _submit(posted.app_state, jobs, posted.key, dry_run=how.dry_run) if jobs else [])
    final = [next(submitted) if isinstance(outcome, NewJob) else outcome for outcome in outcomes]
    return await run(_batch_answer, final, dry_run=how.dry_run, root=posted.app_state.root)


def _batch_answer(outcomes: list[Accepted | Refused], *, dry_run: bool, root: str) -> Response:
    return _json({"results": [result(outcome, dry_run=dry_run, root=root) for outcome in outcomes]}, 200)


def _judge_all(posted: Posted) -> list[Accepted | Refused | NewJob]:
    return [_judge(item, posted) for item in parse_batch(posted.body)]


def _judge(item: BatchItem | Refused, posted: Posted) -> NewJob | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return posted.app_state.admission.new_job(item.job_spec(item.idempotency_key), posted.key.tenant)
    except Refused as refused:
        return refused


async def _submit(app_state: AppState, jobs: list[NewJob], key: ApiKey, *, dry_run: bool) -> list[Accepted | Refused]:
    """Insert the jobs; a dry run does the same and undoes it."""
    if dry_run:
        return await run_in_threadpool(_try_out, app_state, jobs, key)
    return await app_state.submissions.submit(jobs, key)


def _try_out(app_state: AppState, jobs: list[NewJob], key: ApiKey) -> list[Accepted | Refused]:
    def attempt(connection: Tx) -> list[Accepted | Refused]:
        submission = Submission(jobs, key, app_state.quota, app_state.admission.blind)
        outcomes: list[Accepted | Refused] = []
        try:
            with suppress(psycopg.Rollback), connection.transaction():
                outcomes = submit.submit(connection, submission)
                raise psycopg.Rollback
        finally:
            submission.give_up()
        return outcomes

    return run_idempotent(app_state.database, attempt)


def _json(content: object, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, media_type="application/json")


@router.get("", response_model=JobList, responses=refusals(401, 403, 503))
def list_jobs(key: Reader, app_state: AppStateDep, which: JobsQuery) -> Response:
    """List jobs, newest first. Needs the scope `read`; other tenants' need `admin`."""
    page = queries.list_jobs(app_state.database, which.filter(key), after=job_after(which.cursor), limit=which.limit)
    items = [
        job_view(row, wait=wait, root=app_state.root)
        for row, wait in zip(page.rows, waits(app_state, page.rows), strict=True)
    ]
    return rendered(JobList(items=items, next_cursor=cursor(items[-1].id) if page.more else None))


@router.get("/{job_id:uuid}", response_model=JobView, responses=refusals(401, 403, 404, 503))
async def show_job(request: Request, job_id: JobId, key: Reader, app_state: AppStateDep, how: WaitQuery) -> Response:
    """Show a job; with `wait`, as soon as it has ended or the time is over. Needs the scope `read`."""
    state, answer = await run_in_threadpool(_look, app_state, job_id, key)
    if how.seconds and state not in FINAL:
        await app_state.waiters.wait(job_id, key, how.seconds, _departure(request))
        _, answer = await run_in_threadpool(_look, app_state, job_id, key)
    return answer


def _look(app_state: AppState, job_id: UUID, key: ApiKey) -> tuple[JobState, Response]:
    row = queries.find_job(app_state.database, job_id, key)
    sends = row.state == JobState.UPLOADING or queries.in_flight(row).live_bytes > 0
    rate = queries.upload_rate(app_state.database, job_id) if sends else None
    view = job_view(row, rate, wait=waits(app_state, [row])[0], root=app_state.root)
    return view.state, rendered(view)


async def _departure(request: Request) -> None:
    with suppress(Refused):  # a body that is too large or too slow
        while (await request.receive())["type"] != "http.disconnect":
            pass


@router.post("/{job_id:uuid}/retry", responses=refusals(401, 403, 404, 409, 503))
def retry_job(job_id: JobId, key: Operator, app_state: AppStateDep, how: RetryQuery) -> JobMoved:
    """Put a failed, cancelled or paused job back to work; on a live one nothing happens. Needs the scope `operate`."""
    # not repeated where its answer is lost: the job may have failed again since, or succeeded, and a second retry would
    # send it to work against what its operator has seen, or refuse what was done
    with app_state.database.transaction() as tx:
        state = commands.retry(tx, job_id, key, app_state.settings.profiles, force=how.force)
    return JobMoved(id=job_id, state=state)


@router.post("/{job_id:uuid}/cancel", responses=refusals(401, 403, 404, 409, 503))
def cancel_job(job_id: JobId, key: Operator, app_state: AppStateDep) -> JobMoved:
    """Cancel a job: from the answer on, none of its slices is begun. Needs the scope `operate`."""

    def cancel(connection: Tx) -> JobState:
        with connection.transaction():
            return commands.cancel(connection, job_id, key)

    state = run_idempotent(app_state.database, cancel)  # a job that is being cancelled is what was asked for
    return JobMoved(id=job_id, state=state)
