"""Distinguishes an answer of the API from the answer of another server at its address.

RefusedByApi   the API refused a request, with a reason
NotTheApi      another server answered: a web server, a proxy, another service
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from worker.client.environment import Unreachable
from worker.errors import SlicewayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

Maybe = type(None)
_ERROR = ({"code": str, "message": str, "advice": (str, Maybe)}, Maybe)
_PROGRESS = {
    **dict.fromkeys(("size_bytes", "slices_done", "slices_total"), (int, Maybe)),
    "bytes_done": int,
    "percent": (int, float, Maybe),
}
JOB: Mapping[str, Any] = {
    **dict.fromkeys(("id", "tenant", "state", "store", "key", "verify", "created_at"), str),
    **dict.fromkeys(("started_at", "finished_at"), (str, Maybe)),
    **dict.fromkeys(("throughput_bytes_per_s", "eta_s"), (int, float, Maybe)),
    **dict.fromkeys(("waiting", "result"), (dict, Maybe)),
    **dict.fromkeys(("labels", "source"), dict),
    "priority": int,
    "overwrite": bool,
    "progress": _PROGRESS,
    "error": _ERROR,
}
"""The members of a job that the command line reads. A release may have more."""
ACCEPTED: Mapping[str, Any] = {"id": str, "state": str}
CHECKED: Mapping[str, Any] = {"store": str, "key": str}
PAGE: Mapping[str, Any] = {"items": [JOB], "next_cursor": (str, Maybe)}
_REASON: Mapping[str, Any] = {"code": str, "words": str, "advice": (str, Maybe)}
JOB_WHY: Mapping[str, Any] = {"id": str, "state": str, "waits": bool, "summary": str, "reasons": [_REASON]}
QUEUE_WHY: Mapping[str, Any] = {"waiting": int, "running": int, "reasons": [{**_REASON, "jobs": int}]}
_ENTRY: Mapping[str, Any] = {
    **dict.fromkeys(("at", "action", "actor"), str),
    **dict.fromkeys(("reason", "key_name", "tenant", "person"), (str, Maybe)),
    **dict.fromkeys(("changed", "refused"), int),
    "what": dict,
}
AUDIT_PAGE: Mapping[str, Any] = {"items": [_ENTRY], "next_cursor": (str, Maybe)}
HOLD_CHANGED: Mapping[str, Any] = {"kind": str, "name": str, "paused": bool, "changed": bool}
_HOLD: Mapping[str, Any] = {
    **dict.fromkeys(("kind", "name", "since", "actor"), str),
    **dict.fromkeys(("reason", "key_name", "person"), (str, Maybe)),
}
HOLDS: Mapping[str, Any] = {"items": [_HOLD]}
LIMIT_CHANGED: Mapping[str, Any] = {"kind": str, "name": str, "max_in_flight": (int, Maybe), "changed": bool}
LIMITS: Mapping[str, Any] = {"items": [{**_HOLD, "max_in_flight": int}]}
_REFUSALS: Mapping[str, Any] = {"code": str, "count": int, "examples": [{"id": str, "message": str}]}
BULK: Mapping[str, Any] = {
    **dict.fromkeys(("id", "state", "action", "filter", "created_at", "actor"), str),
    **dict.fromkeys(("reason", "person", "finished_at"), (str, Maybe)),
    **dict.fromkeys(("total", "done", "changed", "refused"), int),
    "refusals": [_REFUSALS],
}
BULK_PAGE: Mapping[str, Any] = {"items": [BULK], "next_cursor": (str, Maybe)}
BULK_COUNT: Mapping[str, Any] = {"count": int, "filter": str, "sample": [JOB]}
EVENTS: Mapping[str, Any] = {
    "items": [
        {
            **dict.fromkeys(("at", "kind", "actor"), str),
            **dict.fromkeys(("from_state", "to_state"), (str, Maybe)),
            "epoch": int,
            "cause": (dict, Maybe),
        }
    ],
    "next_cursor": (str, Maybe),
}
SLICES: Mapping[str, Any] = {
    "items": [
        {
            **dict.fromkeys(("number", "offset_bytes", "size_bytes", "attempts", "sends"), int),
            **dict.fromkeys(("not_before", "done_at", "tag"), (str, Maybe)),
            "state": str,
            "error": _ERROR,
        }
    ],
    "summary": (dict, Maybe),
    "next_cursor": (str, Maybe),
}
COUNTS: Mapping[str, Any] = {
    "groups": [{"value": (str, Maybe), "count": int}],
    **dict.fromkeys(("total", "groups_omitted"), int),
    "approximate": bool,
}
_PROBLEM: Mapping[str, Any] = {"detail": str, "code": str, "advice": str}


class RefusedByApi(SlicewayError):
    """The API refused a request, with a reason.

    Attributes:
        document: the whole problem document.
        status: the HTTP status.
        retry_after_s: seconds of Retry-After; 0 without that header.
    """

    def __init__(self, document: Mapping[str, Any], status: int, retry_after_s: float) -> None:
        super().__init__(document["detail"], code=document["code"], advice=document["advice"])
        self.document = document
        self.status = status
        self.retry_after_s = retry_after_s


class NotTheApi(Unreachable):
    """Another server than the API answered at its address.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds of Retry-After; 0 without that header.
    """

    def __init__(self, url: str, status: int, retry_after_s: float) -> None:
        super().__init__(f"what answers at {url} is not the API (HTTP {status})", advice="Correct SLICEWAY_API_URL.")
        if is_temporary_status(status):
            self.message = f"{url} answers HTTP {status}, without a problem document of the API"
            self.advice = "A proxy in front of the API cannot reach it: start the API, or correct SLICEWAY_API_URL."
        self.status = status
        self.retry_after_s = retry_after_s


def read(answer: httpx.Response, shape: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the document of a successful answer that has this shape.

    Raises:
        RefusedByApi: the answer is a problem document of the API.
        NotTheApi: it is neither.
    """
    try:
        document: Any = answer.json()
    except (ValueError, RecursionError):
        document = None
    if answer.is_success and fits(document, shape):
        return dict(document)
    wait_s = _retry_after_s(answer)
    if answer.is_error and fits(document, _PROBLEM):
        raise RefusedByApi(document, answer.status_code, wait_s)
    raise NotTheApi(url, answer.status_code, wait_s)


def fits(value: object, shape: Any) -> bool:
    """Say whether a value has a shape: a type, a mapping of members, a list of one shape, a tuple of choices."""
    match shape:
        case tuple():
            return any(fits(value, each) for each in shape)
        case list():
            return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
        case type():
            return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
        case _:
            return isinstance(value, dict) and all(name in value and fits(value[name], shape[name]) for name in shape)


def is_temporary_status(status: int) -> bool:
    """Say whether the same request may succeed later: after a rate limit, a restart or an outage."""
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return False
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _retry_after_s(answer: httpx.Response) -> float:
    """Return the seconds of Retry-After; 0 for a date, which the API does not send."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
