"""Jobs: enqueue one or a batch, list, get."""

from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg
from anyio.to_thread import run_sync
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Reader
from api.body import LARGE_BYTES, SMALL_BYTES, AuthenticatedBody, BatchBody, JobBody, parse, parse_batch
from api.problems import problem_responses
from api.schemas.filters import ListOptions, described, read_query
from api.schemas.jobs import BatchItem, EnqueueQuery, IdempotencyHeader, JobId, JobRequest, WaitQuery
from api.schemas.pagination import decode_job_cursor, encode_cursor
from api.state import AppState, AppStateDep
from api.views.base import json_response
from api.views.jobs import BatchAnswer, JobAccepted, JobChecked, JobList, JobView, batch_result, job_accepted, job_views
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.errors import NotSupported, Refused
from worker.jobs import queries, submit
from worker.jobs.api_keys import ApiKey
from worker.jobs.states import FINAL, JobState
from worker.jobs.submit import Accepted, Submission
from worker.jobs.transitions import NewJob

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


_ACCEPTED_HEADERS = {
    "Location": {"description": "Where to look at the job.", "required": True, "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "The job was there already, under the same idempotency key.",
        "schema": {"type": "string", "const": "true"},
    },
}


_TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "The trace that the job belongs to, by W3C Trace Context; ignored if malformed.",
    "schema": {"type": "string"},
}


def _body_of(schema: str) -> dict[str, Any]:
    """Return what FastAPI cannot know of a route that reads its body, and the trace, itself."""
    reference = {"$ref": f"#/components/schemas/{schema}"}
    content = {"application/json": {"schema": reference}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [_TRACEPARENT]}


@router.post(
    "",
    status_code=202,
    response_model=JobAccepted,
    responses={
        200: {"model": JobChecked, "description": "Dry run"},
        202: {"headers": _ACCEPTED_HEADERS},
        **problem_responses(400, 401, 403, 409, 413, 415, 429, 503),
    },
    openapi_extra=_body_of("JobRequest"),
)
async def enqueue(body: JobBody, query: EnqueueQuery, idempotency_key: IdempotencyHeader = None) -> Response:
    """Enqueue a file. The answer comes after the commit: from then on the job is kept. Needs the scope `submit`."""
    app_state, key = body.app_state, body.key
    if len(body.content) <= SMALL_BYTES:
        request = parse(JobRequest, body.content)
    else:
        request = await run_sync(parse, JobRequest, body.content, limiter=app_state.large_bodies)
    job_spec = request.job_spec(idempotency_key, body.traceparent)
    [outcome] = await _submit(
        app_state, [app_state.admission.new_job(job_spec, key.tenant)], key, dry_run=query.dry_run
    )
    if isinstance(outcome, Refused):
        raise outcome
    content = job_accepted(outcome, dry_run=query.dry_run, root=app_state.root)
    if query.dry_run:
        return json_response(content)
    headers = {"Location": content["urls"]["self"]} | ({"Idempotent-Replayed": "true"} if outcome.replayed else {})
    return json_response(content, 202, headers)


@router.post(
    "/batch",
    response_model=BatchAnswer,
    responses=problem_responses(400, 401, 403, 413, 415, 503),
    openapi_extra=_body_of("BatchRequest"),
)
async def enqueue_batch(request: Request, body: BatchBody, query: EnqueueQuery) -> Response:
    """Enqueue up to 1,000 files; each gets the result that it would have got alone. Needs the scope `submit`."""
    if "idempotency-key" in request.headers:
        raise NotSupported(
            "a batch has no Idempotency-Key of its own", advice="Give each item its own idempotency_key."
        )
    limiter = body.app_state.large_bodies if len(body.content) > LARGE_BYTES else None
    outcomes = await run_sync(_check_all, body, limiter=limiter)
    jobs = [outcome for outcome in outcomes if isinstance(outcome, NewJob)]
    submitted = iter(await _submit(body.app_state, jobs, body.key, dry_run=query.dry_run) if jobs else [])
    final = [next(submitted) if isinstance(outcome, NewJob) else outcome for outcome in outcomes]
    return await run_sync(_batch_answer, final, query.dry_run, body.app_state.root, limiter=limiter)


def _batch_answer(outcomes: list[Accepted | Refused], dry_run: bool, root: str) -> Response:
    return json_response({"results": [batch_result(outcome, dry_run=dry_run, root=root) for outcome in outcomes]})


def _check_all(body: AuthenticatedBody) -> list[Accepted | Refused | NewJob]:
    return [_check(item, body) for item in parse_batch(body.content)]


def _check(item: BatchItem | Refused, body: AuthenticatedBody) -> NewJob | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return body.app_state.admission.new_job(item.job_spec(item.idempotency_key, body.traceparent), body.key.tenant)
    except Refused as refused:
        return refused


async def _submit(app_state: AppState, jobs: list[NewJob], key: ApiKey, *, dry_run: bool) -> list[Accepted | Refused]:
    """Insert the jobs; a dry run inserts them and rolls back."""
    if dry_run:
        return await run_in_threadpool(_try_out, app_state, jobs, key)
    return await app_state.enqueue_batcher.submit(jobs, key)


def _try_out(app_state: AppState, jobs: list[NewJob], key: ApiKey) -> list[Accepted | Refused]:
    def attempt(connection: Connection) -> list[Accepted | Refused]:
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


@router.get(
    "", response_model=JobList, responses=problem_responses(401, 403, 503), openapi_extra=described(ListOptions)
)
def list_jobs(request: Request, key: Reader, app_state: AppStateDep) -> Response:
    """List jobs, newest first unless `order` says otherwise. Needs the scope `read`; other tenants' need `admin`."""
    which, options = read_query(request.url.query, key, ListOptions)
    after, oldest_first = decode_job_cursor(options.cursor), options.order == "oldest"
    page = queries.list_jobs(app_state.database, which, after=after, limit=options.limit, oldest_first=oldest_first)
    items = job_views(app_state, page.rows, queries.upload_rates(app_state.database, page.rows))
    return json_response(JobList(items=items, next_cursor=encode_cursor(items[-1].id) if page.more else None))


@router.get("/{job_id:uuid}", response_model=JobView, responses=problem_responses(401, 403, 404, 503))
async def show_job(request: Request, job_id: JobId, key: Reader, app_state: AppStateDep, query: WaitQuery) -> Response:
    """Show a job; with `wait`, as soon as it has ended or the time is over. Needs the scope `read`."""
    state, response = await run_in_threadpool(_find, app_state, job_id, key)
    if query.seconds and state not in FINAL:
        await app_state.waiters.wait(job_id, key, query.seconds, _disconnect(request))
        _, response = await run_in_threadpool(_find, app_state, job_id, key)
    return response


def _find(app_state: AppState, job_id: UUID, key: ApiKey) -> tuple[JobState, Response]:
    row = queries.find_job(app_state.database, job_id, key)
    uploads = row.state == JobState.UPLOADING or queries.in_flight(row).live_bytes > 0
    rates = {job_id: queries.upload_rate(app_state.database, job_id)} if uploads else {}
    [view] = job_views(app_state, [row], rates)
    return view.state, json_response(view)


async def _disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    with suppress(Refused):  # a body that is too large or too slow
        while (await request.receive())["type"] != "http.disconnect":
            pass
