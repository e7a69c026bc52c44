"""Every error of Sliceway, in one tree.

    SlicewayError                  code, message, advice: what people meet
      SettingsError                a setting is missing or wrong; names the variable or the line
      Refused                      a request that cannot be served; rendered as a problem document
        NotFound · Conflict · QuotaExceeded · NotSupported · Forbidden
      StaleClaim                   the claim is no longer ours: do nothing more for it
      Interrupted                  our own stop, cancel, deadline or revoke cut the work short
      SourceError
        SourceChanged · SourceGone · SourceRefused · RootUnavailable
      StoreError                   what a store answered, in the classes that the retry decision knows
        Transient · Throttled · StoreUnusable · SessionGone · Permanent · Unknown
        ObjectExists · Incomplete  answers with a meaning of their own to init and finish

A store or source maps what it meets to this tree at one seam of its own and keeps the cause as ``__cause__``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import timedelta


class SlicewayError(Exception):
    """Something a person may have to act on: a stable ``code``, one line of text, and the next step.

    Attributes:
        code: stable identifier, part of the API.
        message: what happened, to which thing; one line, free of secrets.
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
    """A request that cannot be served as it stands.

    Attributes:
        status: the HTTP status of the problem document.
        extra: further members of the problem document, such as the id of the job in the way.
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
    """There is no such thing, or none that this key may see."""

    status = 404
    code = "not_found"
    advice = "Check the id; a tenant sees its own jobs only."


class Conflict(Refused):
    """The state of things does not allow it: another job holds the target, or the job is in another state."""

    status = 409
    code = "conflict"
    advice = "Look at the job's state and decide again."


class QuotaExceeded(Refused):
    """The tenant has as many live jobs as it may have."""

    status = 429
    code = "quota_exceeded"
    advice = "Wait until some of the tenant's jobs have ended, then send the request again."


class NotSupported(Refused):
    """A field or action that this release does not serve."""

    status = 422
    code = "not_supported"
    advice = "Leave it out."


class Forbidden(Refused):
    """The key is good but lacks the scope."""

    status = 403
    code = "forbidden"
    advice = "Use a key with the scope named."


class StaleClaim(SlicewayError):
    """The claim named by token, worker and epoch is not (or no longer) ours; nothing was changed."""

    code = "stale_claim"
    advice = "Nothing: whoever holds the newer claim goes on."


class Stop(StrEnum):
    """Why we ourselves cut work short."""

    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    REVOKED = "revoked"
    SLOT_WAIT_TIMEOUT = "overtaken"  # logs and messages show the value: it keeps its released name


class Interrupted(SlicewayError):
    """Work was cut short by us, not by the store or the file; it uses up no attempt."""

    code = "interrupted"
    advice = "Nothing: the work is dispatched again."

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"interrupted: {stop}")
        self.stop = stop


class SourceError(SlicewayError):
    """The bytes cannot be read as they were promised."""


class SourceChanged(SourceError):
    """The file is not the one that was opened first: other size, time or identity.

    Attributes:
        replaced: only the identity differs, as after a remount: size and time are those of the file opened first.
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
    """The file is not there, in a root that is."""

    code = "source_gone"
    advice = "Put the file back and retry, or cancel the job."


class SourceRefused(SourceError):
    """The path does not name a regular file below its root."""

    code = "source_refused"
    advice = "Name a regular file below the root, without '..' and without a link that leads out of it."


class RootUnavailable(SourceError):
    """The root is missing, empty or unreadable here, as an unmounted volume is; the job waits."""

    code = "root_unavailable"
    advice = "Mount the volume on the workers; waiting jobs go on by themselves."


class StoreError(SlicewayError):
    """A failure at a store.

    Attributes:
        answer: the store's own words for it (a code, an HTTP status), for the operator; free of secrets.
        unanswered: the request was sent, or a part of it, and no whole answer came: it may have had its effect.
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
    """Not now: an outage, an overload, a cut connection. The same request may be sent again later.

    ``counts_as_attempt`` says that the answer was about this very slice or step and counts as an attempt.
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
    """The store asks us to slow down; ``retry_after`` is its wish, if it gave one."""

    code = "store_throttled"
    advice = "Nothing: it is tried again by itself; lower the store's max_in_flight if it goes on."

    def __init__(self, message: str, *, retry_after: timedelta | None = None, answer: str | None = None) -> None:
        super().__init__(message, answer=answer)
        self.retry_after = retry_after


class StoreUnusable(StoreError):
    """The profile, not the file, is wrong: credentials, bucket or clock. Its jobs wait and use nothing up."""

    code = "store_unusable"
    advice = (
        "Correct the store's profile; `sliceway stores check` tells when it is right. Waiting jobs go on by themselves."
    )


class SessionGone(StoreError):
    """The store no longer knows the session: a fresh one is needed."""

    code = "session_lost"
    advice = "Nothing: the upload starts afresh by itself."


class Permanent(StoreError):
    """The same request will never succeed."""

    code = "store_refused"
    advice = "See the store's answer; correct the job or the profile, then retry."


class Unknown(StoreError):
    """The request may have had its effect: look before doing anything else."""

    code = "store_unknown"
    advice = "Nothing: the service looks what the store holds and goes on from there."


class ObjectExists(Permanent):
    """An object is at the key and the request was not to replace it."""

    code = "object_exists"
    advice = "Choose another key, or set overwrite if the object there is to be replaced."


class Incomplete(StoreError):
    """The store says at finish that bytes are missing: list, send what is missing, finish again."""

    code = "incomplete"
    advice = "Nothing: what is missing is sent again by itself."


TIMEOUT_CODES = frozenset({"store_stalled", "store_silent"})
"""Store errors that say that bytes or an answer took too long: fewer requests are then sent at once."""
