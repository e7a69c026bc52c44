"""Routes of the design that this release does not serve: refused by name, so that they do not pass for misspellings."""

from fastapi import APIRouter

from worker.errors import NotSupported

router = APIRouter(include_in_schema=False)


async def _not_served() -> None:
    raise NotSupported("this is not served yet")


router.add_api_route("/v1/bodies", _not_served, methods=["POST"])
router.add_api_route("/v1/bodies/{body_id}", _not_served, methods=["PATCH", "HEAD"])
