"""Routes of the design that this release does not serve: refused by name, so that they do not pass for misspellings."""

from fastapi import APIRouter

from api.schemas.jobs import JobId
from worker.errors import NotSupported

router = APIRouter(include_in_schema=False)


async def _job_action(job_id: JobId) -> None:  # noqa: ARG001 - it is part of the path
    raise NotSupported("this action on a job is not served yet")


async def _not_served() -> None:
    raise NotSupported("this is not served yet")


for action in ("pause", "resume", "priority"):
    router.add_api_route(f"/v1/jobs/{{job_id:uuid}}/{action}", _job_action, methods=["POST"])
router.add_api_route("/v1/jobs/actions", _not_served, methods=["POST"])
router.add_api_route("/v1/bodies", _not_served, methods=["POST"])
router.add_api_route("/v1/bodies/{body_id}", _not_served, methods=["PATCH", "HEAD"])
