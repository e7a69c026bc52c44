"""Every error of Sliceway, in one tree.

    SlicewayError                  code, message, advice
      SettingsError                a setting is missing or wrong; names the variable or the line
      Refused                      a request that the API cannot serve; rendered as a problem document
        NotFound · Conflict · QuotaExceeded · NotSupported · Forbidden
      StaleClaim                   another worker has the claim: do nothing more for it
      Interrupted                  the worker itself stopped the work: shutdown, cancel, deadline or revoke
      SourceError
        SourceChanged · SourceGone · SourceRefused · RootUnavailable
      StoreError                   a store's failure, in the classes of the retry decision
        Transient · Throttled · StoreUnusable · SessionGone · Permanent · Unknown
        ObjectExists · Incomplete  have a meaning of their own for init and finish

Each driver and source maps its failures to this tree in one module and keeps the cause as ``__cause__``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import timedelta


class SlicewayError(Exception):
    """A failure that an operator may have to act on.

    Attributes:
        code: stable identifier, part of the API.
        message: what failed; one line without secrets.
        advice: what to do next; one line.
    """

    code: str = "internal"
    advice: str = "See the service's log for the cause."

    def __init__(self, message: str, *, code: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if advice is not None:
            self.advice = advice


class SettingsError(SlicewayError):
    """A setting is missing or wrong; the message names the variable, or the file and the table in it."""

    code = "bad_settings"
    advice = "Correct the setting named and start again; `sliceway doctor` checks them all."


class Refused(SlicewayError):
    """A request that the API cannot serve.

    Attributes:
        status: the HTTP status of the problem document.
        extra: further members of the problem document, such as the id of a conflicting job.
    """

    status: ClassVar[int] = 422
    code = "invalid"
    advice = "Correct the request and send it again."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        advice: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.extra = extra or {}


class NotFound(Refused):
    """The object does not exist, or the key may not see it."""

    status = 404
    code = "not_found"
    advice = "Check the id; a tenant sees its own jobs only."


class Conflict(Refused):
    """Another job holds the target, or the job's state does not allow the action."""

    status = 409
    code = "conflict"
    advice = "Look at the job's state and decide again."


class QuotaExceeded(Refused):
    """The tenant has its maximum of live jobs."""

    status = 429
    code = "quota_exceeded"
    advice = "Wait until some of the tenant's jobs have ended, then send the request again."


class NotSupported(Refused):
    """This release does not support the field or action."""

    status = 422
    code = "not_supported"
    advice = "Leave it out."


class Forbidden(Refused):
    """The key is valid and lacks the scope."""

    status = 403
    code = "forbidden"
    advice = "Use a key with the scope named."


class StaleClaim(SlicewayError):
    """This worker does not have the claim (any more); the statement changed nothing."""

    code = "stale_claim"
    advice = "Nothing: whoever holds the newer claim goes on."


class Stop(StrEnum):
    """Why the worker itself stopped the work."""

    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    REVOKED = "revoked"
    SLOT_WAIT_TIMEOUT = "overtaken"  # logs and messages show the value: it keeps its released name


class Interrupted(SlicewayError):
    """The worker itself stopped the work. It does not count as an attempt."""

    code = "interrupted"
    advice = "Nothing: the work is dispatched again."

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"interrupted: {stop}")
        self.stop = stop


class SourceError(SlicewayError):
    """The source cannot be read."""


class SourceChanged(SourceError):
    """The file has another fingerprint than at the init: size, time or identity.

    Attributes:
        replaced: only the identity differs, as after a remount; size and time are the same.
    """

    code = "source_changed"
    advice = "Write the file once, then enqueue it; retry to upload it as it is now."

    def __init__(self, message: str, *, replaced: bool = False) -> None:
        advice = None
        if replaced:
            advice = (
                'If its volume was only mounted anew, or the file restored, set fingerprint = "size-mtime" for its root'
                " on all workers, then retry to go on; else retry to upload it as it is now."
            )
        super().__init__(message, advice=advice)
        self.replaced = replaced


class SourceGone(SourceError):
    """The root is there, and the file is not in it."""

    code = "source_gone"
    advice = "Put the file back and retry, or cancel the job."


class SourceRefused(SourceError):
    """The path does not name a regular file below its root."""

    code = "source_refused"
    advice = "Name a regular file below the root, without '..' and without a link that leads out of it."


class RootUnavailable(SourceError):
    """The root is missing, empty or unreadable on this worker, like an unmounted volume. The job waits."""

    code = "root_unavailable"
    advice = "Mount the volume on the workers; waiting jobs go on by themselves."


class StoreError(SlicewayError):
    """A failure at a store.

    Attributes:
        answer: the store's own code or HTTP status, for the operator; without secrets.
        unanswered: at least a part of the request was sent, and no whole answer came: it may have had its effect.
    """

    code = "store_error"
    advice = "See the store's answer."
    unanswered: bool = False

    def __init__(
        self, message: str, *, code: str | None = None, advice: str | None = None, answer: str | None = None
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.answer = answer


class Transient(StoreError):
    """An outage, an overload, a cut connection: the same request may succeed later.

    ``counts_as_attempt`` says that the answer was about this slice or step and counts as an attempt.
    """

    code = "store_unavailable"
    advice = "Nothing: it is tried again by itself."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        advice: str | None = None,
        answer: str | None = None,
        counts_as_attempt: bool = False,
    ) -> None:
        super().__init__(message, code=code, advice=advice, answer=answer)
        self.counts_as_attempt = counts_as_attempt


class Throttled(Transient):
    """The store asks for fewer requests; ``retry_after`` is the pause that it asks for, if any."""

    code = "store_throttled"
    advice = "Nothing: it is tried again by itself; lower the store's max_in_flight if it goes on."

    def __init__(self, message: str, *, retry_after: timedelta | None = None, answer: str | None = None) -> None:
        super().__init__(message, answer=answer)
        self.retry_after = retry_after


class StoreUnusable(StoreError):
    """The store's profile is wrong (credentials, bucket) or the clock. Its jobs wait and use up no attempts."""

    code = "store_unusable"
    advice = (
        "Correct the store's profile; `sliceway stores check` tells when it is right. Waiting jobs go on by themselves."
    )


class SessionGone(StoreError):
    """The store no longer has the session: the job needs a new one."""

    code = "session_lost"
    advice = "Nothing: the upload starts afresh by itself."


class Permanent(StoreError):
    """The same request will never succeed."""

    code = "store_refused"
    advice = "See the store's answer; correct the job or the profile, then retry."


class Unknown(StoreError):
    """The request may have had its effect: ask the store before any other request."""

    code = "store_unknown"
    advice = "Nothing: the service asks the store what it holds and continues from there."


class ObjectExists(Permanent):
    """An object is at the key, and the request must not replace it."""

    code = "object_exists"
    advice = "Choose another key, or set overwrite if the object there is to be replaced."


class Incomplete(StoreError):
    """The store says at the finish that bytes are missing. The finish lists them, sends them and repeats itself."""

    code = "incomplete"
    advice = "Nothing: what is missing is sent again by itself."


TIMEOUT_CODES = frozenset({"store_stalled", "store_silent"})
"""Store errors for slow bytes or a slow answer: workers then send fewer requests at once."""
