"""The one place where a failure of a COS JSON store becomes a `StoreError`.

The JSON code decides first, then the HTTP status. The codes are those of the vendor's pages 436/8432 and 436/6059, each
with a kind. `failure` states what a kind means for an operation.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import TYPE_CHECKING

import httpx

from worker.errors import (
    Incomplete,
    ObjectExists,
    Permanent,
    SessionGone,
    StoreError,
    StoreUnusable,
    Throttled,
    Transient,
    Unknown,
)
from worker.http.errors import PROXY, misconfiguration
from worker.protocols.cos_json import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.stores.cos_json.response import StoreResponse


class Op(StrEnum):
    """The operations, by their names in requests."""

    INIT = "upload_slice_init"
    DATA = "upload_slice_data"
    LIST = "upload_slice_list"
    FINISH = "upload_slice_finish"
    UPLOAD = "upload"
    STAT = "stat"
    DELETE = "delete"


_PUBLISHING = frozenset({Op.FINISH, Op.UPLOAD})  # without a clear response, the object may exist or not
_NOT_STARTED = frozenset({408, 503})
_PROXY_REFUSES = 407
_IN_SESSION = frozenset({Op.DATA, Op.LIST, Op.FINISH})
_WITHOUT_SESSION = frozenset({Op.STAT, Op.DELETE})  # these requests carry neither a session nor content


class Kind(StrEnum):
    """What a code means, for every operation."""

    RETRY = auto()
    RETRY_COUNTED = auto()
    SLOW_DOWN = auto()
    UNUSABLE = auto()
    CLOCK = auto()
    USED_TOKEN = auto()
    PERMANENT = auto()
    MISSING = auto()
    EXISTS = auto()
    FOLDER = auto()
    UNFINISHED = auto()
    INCOMPLETE = auto()
    SESSION = auto()
    DIGEST = auto()
    ALREADY = auto()
    SLICE_SIZE = auto()


RESIGNABLE = frozenset({Kind.CLOCK, Kind.USED_TOKEN})
"""Kinds after which the request is sent once more with a new signature."""

CODES: Mapping[int, tuple[Kind, str]] = {
    -47: (Kind.UNUSABLE, "the secret id does not exist"),
    -48: (Kind.UNUSABLE, "the signature is wrong"),
    -59: (Kind.CLOCK, "the signature has expired, or a clock is wrong"),
    -61: (Kind.UNUSABLE, "the bucket is not the signed one"),
    -63: (Kind.PERMANENT, "the file is not the signed one"),
    -70: (Kind.UNUSABLE, "the appid is not the signed one"),
    -71: (Kind.SLOW_DOWN, "too many requests"),
    -73: (Kind.PERMANENT, "a one-time signature with an expiry"),
    -74: (Kind.PERMANENT, "a reusable signature without an expiry"),
    -76: (Kind.PERMANENT, "a one-time signature without a file"),
    -77: (Kind.USED_TOKEN, "the one-time signature was used before"),
    -81: (Kind.PERMANENT, "the signature is empty"),
    -94: (Kind.SESSION, "no session, or a wrong one"),
    -95: (Kind.SESSION, "no session, or a wrong one"),
    -96: (Kind.CLOCK, "the signature has expired"),
    -97: (Kind.UNUSABLE, "the signature does not match"),
    -121: (Kind.PERMANENT, "the bucket's CORS rules refuse it"),
    -133: (Kind.UNUSABLE, "the bucket does not exist in this region"),
    -143: (Kind.SLOW_DOWN, "too many writes in one folder"),
    -152: (Kind.RETRY, "the store timed out"),
    -160: (Kind.PERMANENT, "a file's path ends in a slash"),
    -161: (Kind.PERMANENT, "a folder's path lacks its slash"),
    -165: (Kind.PERMANENT, "too many entries were asked for"),
    -168: (Kind.PERMANENT, "the sha is malformed"),
    -173: (Kind.PERMANENT, "the folder is not empty"),
    -174: (Kind.PERMANENT, "the sha differs"),
    -175: (Kind.INCOMPLETE, "bytes are missing"),
    -177: (Kind.EXISTS, "an object is there"),
    -178: (Kind.FOLDER, "a folder is there, or an object where the key has a folder"),
    -180: (Kind.PERMANENT, "the path is not allowed"),
    -195: (Kind.RETRY, "the store's back end failed"),
    -196: (Kind.RETRY, "the store is unavailable for now"),
    -197: (Kind.MISSING, "no such file or upload"),
    -199: (Kind.PERMANENT, "the bucket's name is not allowed"),
    -283: (Kind.PERMANENT, "the slice is too small"),
    -284: (Kind.SLICE_SIZE, "the slice size is not allowed"),
    -285: (Kind.PERMANENT, "the file is too large"),
    -286: (Kind.SESSION, "the session cannot be read"),
    -290: (Kind.SESSION, "the session cannot be read"),
    -300: (Kind.RETRY, "the store is overloaded"),
    -4013: (Kind.SESSION, "no such session"),
    -4016: (Kind.DIGEST, "the sha of what arrived differs"),
    -4017: (Kind.RETRY_COUNTED, "the upload failed"),
    -4018: (Kind.ALREADY, "the same file is there"),
    -4019: (Kind.UNFINISHED, "an unfinished upload is there"),
    -4020: (Kind.UNFINISHED, "an unfinished upload of another file is there"),
    -4021: (Kind.SESSION, "no such session"),
    -4024: (Kind.SESSION, "the offset is out of order"),
    -4025: (Kind.RETRY_COUNTED, "the store could not keep it"),
    -4026: (Kind.SESSION, "the upload must begin again"),
    -4027: (Kind.SESSION, "the upload must begin again"),
    -5964: (Kind.PERMANENT, "op is unknown"),
    -5965: (Kind.PERMANENT, "uploadparts is not JSON"),
    -5971: (Kind.PERMANENT, "filesize is missing"),
    -5979: (Kind.PERMANENT, "sha is missing"),
    -5980: (Kind.PERMANENT, "op is missing"),
    -5983: (Kind.SESSION, "no session, or a wrong offset"),
    -5989: (Kind.RETRY, "the store timed out"),
    -5990: (Kind.PERMANENT, "filecontent is missing"),
    -5991: (Kind.PERMANENT, "the slice is too large"),
    -5993: (Kind.PERMANENT, "the form cannot be read"),
    -5997: (Kind.RETRY, "the store's back end cannot be reached"),
    -5998: (Kind.PERMANENT, "the signature is malformed"),
    -5999: (Kind.PERMANENT, "a parameter is wrong"),
    -9999: (Kind.RETRY_COUNTED, "unknown failure"),
    -29094: (Kind.PERMANENT, "the sha that init had is missing"),
}

STATUSES: Mapping[int, Kind] = {
    401: Kind.UNUSABLE,
    403: Kind.UNUSABLE,
    404: Kind.MISSING,
    407: Kind.UNUSABLE,
    408: Kind.RETRY,
    413: Kind.PERMANENT,
    429: Kind.SLOW_DOWN,
    612: Kind.MISSING,
    631: Kind.PERMANENT,
}

_ERROR_CLASSES: Mapping[Kind, type[StoreError]] = {
    Kind.UNUSABLE: StoreUnusable,
    Kind.CLOCK: StoreUnusable,
    Kind.EXISTS: ObjectExists,
    Kind.ALREADY: Unknown,
}

_TIMEOUT_ADVICE = (
    "Nothing: what the store lacks is sent again by itself. See to the link, and to proxies on it, if it goes on."
)
_TIMEOUTS: Mapping[type[httpx.TimeoutException], Mapping[str, str]] = {
    httpx.WriteTimeout: {"code": "store_stalled", "advice": _TIMEOUT_ADVICE},
    httpx.ReadTimeout: {"code": "store_silent", "advice": _TIMEOUT_ADVICE},
}
_FOLDER: Mapping[str, str] = {
    "code": "folder_exists",
    "advice": "Choose another key, or remove the folder (or the object in place of one) at the store; then retry.",
}
_CLOCK_ADVICE = "Set the clocks of the workers (NTP); waiting jobs go on by themselves."


def kind_of(response: StoreResponse) -> Kind:
    """Return the kind of a response that is not a success."""
    if known := CODES.get(response.code or 0):
        return known[0]
    if response.code and httpx.codes.is_success(response.status):
        return Kind.RETRY_COUNTED
    return _by_status(response)


def failure(op: Op, key: str, response: StoreResponse) -> StoreError:
    """Return the error for a response that is not a success."""
    kind = kind_of(response)
    description = f"HTTP {response.status}, " + ("no JSON" if response.code is None else f"code {response.code}")
    if known := CODES.get(response.code or 0):
        description += f" ({known[1]})"
    message = f"{op} of {key!r}: the store answered {description}"
    if (kind is Kind.SESSION and op in _WITHOUT_SESSION) or (
        kind is Kind.DIGEST and op in {*_WITHOUT_SESSION, Op.LIST}
    ):
        kind = Kind.RETRY_COUNTED  # the code does not fit the operation: the store has made a mistake
    if kind in {Kind.RETRY, Kind.SLOW_DOWN, Kind.RETRY_COUNTED}:
        return _retryable(kind, op, message, response)
    if kind in {Kind.SESSION, Kind.DIGEST, Kind.MISSING, Kind.UNFINISHED, Kind.INCOMPLETE}:
        return _upload_failure(kind, op, message, response)
    if response.status == _PROXY_REFUSES and kind is Kind.UNUSABLE:
        return StoreUnusable(message, answer=response.summary, **PROXY)
    if kind is Kind.FOLDER:
        return Permanent(message, answer=response.summary, **_FOLDER)
    advice = _CLOCK_ADVICE if kind is Kind.CLOCK else None
    return _ERROR_CLASSES.get(kind, Permanent)(message, advice=advice, answer=response.summary)


def _retryable(kind: Kind, op: Op, message: str, response: StoreResponse) -> StoreError:
    if kind is Kind.SLOW_DOWN or response.retry_after is not None:
        return Throttled(message, retry_after=response.retry_after, answer=response.summary)
    if op in _PUBLISHING and not response.code and response.status not in _NOT_STARTED:
        return Unknown(message, answer=response.summary)
    return Transient(message, answer=response.summary, counts_as_attempt=kind is Kind.RETRY_COUNTED)


def _upload_failure(kind: Kind, op: Op, message: str, response: StoreResponse) -> StoreError:
    summary = response.summary
    if kind is Kind.DIGEST and op is Op.UPLOAD:  # the sha is of the bytes sent: they were damaged on the way
        return Transient(message, code="digest_mismatch", answer=summary, counts_as_attempt=True)
    if kind is Kind.DIGEST:
        return SessionGone(message, code="digest_mismatch", answer=summary)
    if kind is Kind.SESSION or (kind is Kind.MISSING and op in _IN_SESSION):
        return SessionGone(message, answer=summary)
    if op is Op.FINISH and kind in {Kind.INCOMPLETE, Kind.UNFINISHED}:  # -4019 too, by the vendor's iOS page
        return Incomplete(message, answer=summary)
    if kind is Kind.UNFINISHED:
        return Permanent(message, code="upload_in_progress", answer=summary)
    return Permanent(message, answer=summary)


def no_response(op: Op, key: str, error: httpx.HTTPError | httpx.InvalidURL, *, by_proxy: bool = False) -> StoreError:
    """Return the error for a request without a complete response.

    Args:
        op: the operation.
        key: the object's.
        error: what httpx raised; its text may quote the peer, so the caller has removed secrets.
        by_proxy: whether the request went through a proxy.
    """
    message = (
        f"{op} of {key!r}: no answer from the store ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    )
    if code_and_advice := misconfiguration(error, by_proxy=by_proxy):
        return StoreUnusable(message, **code_and_advice)
    if isinstance(error, httpx.LocalProtocolError):
        return Permanent(message)
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
    texts = next((texts for timeout, texts in _TIMEOUTS.items() if isinstance(error, timeout)), {})
    kind = Unknown if op in _PUBLISHING and not never_sent else Transient
    failed = kind(message, code=texts.get("code"), advice=texts.get("advice"))
    failed.unanswered = not never_sent
    return failed


def unusable_slice_size(key: str, response: StoreResponse, slice_bytes: int) -> Transient:
    """Return the error for a session whose slice size a worker cannot use."""
    return Transient(
        f"{Op.INIT} of {key!r}: the store wants slices of {slice_bytes} bytes; a worker sends slices of at most "
        f"{LIMITS.max_slice_bytes} bytes, and at most {LIMITS.max_slices} of them",
        code="bad_answer",
        answer=response.summary,
        counts_as_attempt=True,
    )


def unreadable(op: Op, key: str, response: StoreResponse, missing: str) -> Transient:
    """Return the error for a success that lacks data."""
    return Transient(
        f"{op} of {key!r}: the store answered success without a readable {missing}",
        code="bad_answer",
        answer=response.summary,
        counts_as_attempt=True,
    )


def _by_status(response: StoreResponse) -> Kind:
    status = response.status
    if status in STATUSES:
        return STATUSES[status]
    if httpx.codes.is_redirect(status) or response.refused_by_gateway:
        return Kind.UNUSABLE
    return Kind.PERMANENT if httpx.codes.is_client_error(status) else Kind.RETRY
