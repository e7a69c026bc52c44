"""The error codes of COS JSON v4, each with its HTTP status and message, and the errors of its gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.emulator.core.errors import Reason

if TYPE_CHECKING:
    from worker.emulator.core.errors import StorageError

#: code -> (HTTP status, message). The vendor documents no status for the codes of its older table, and no message that
#: begins with `ERROR_` but not `ERROR_CMD_`, except `ERROR_SAME_FILE_UPLOAD`: those here are our choice.
CODES: dict[int, tuple[int, str]] = {
    -47: (403, "ERROR_SECRET_ID_NOT_EXIST"),
    -48: (403, "ERROR_SIGNATURE_WRONG"),
    -59: (403, "ERROR_SIGNATURE_EXPIRED"),
    -61: (403, "ERROR_SIGNATURE_BUCKET_MISMATCH"),
    -63: (403, "ERROR_SIGNATURE_FILEID_MISMATCH"),
    -70: (403, "ERROR_SIGNATURE_APPID_MISMATCH"),
    -71: (503, "ERROR_TOO_MANY_REQUESTS"),
    -73: (403, "ERROR_ONE_TIME_SIGNATURE_WITH_EXPIRY"),
    -74: (403, "ERROR_SIGNATURE_WITHOUT_EXPIRY"),
    -76: (403, "ERROR_ONE_TIME_SIGNATURE_WITHOUT_FILEID"),
    -77: (403, "ERROR_ONE_TIME_SIGNATURE_REUSED"),
    -81: (403, "ERROR_SIGNATURE_EMPTY"),
    -94: (400, "ERROR_NO_SESSION"),
    -95: (400, "ERROR_SESSION_MALFORMED"),
    -97: (403, "ERROR_SIGNATURE_MISMATCH"),
    -121: (403, "ERROR_CMD_CORSRULE_NOT_MATCH"),
    -133: (404, "ERROR_BUCKET_NOT_EXIST"),
    -143: (503, "ERROR_INDEX"),
    -160: (400, "ERROR_FILE_PATH_WITH_SLASH"),
    -161: (400, "ERROR_FOLDER_PATH_WITHOUT_SLASH"),
    -165: (400, "ERROR_LIST_NUM"),
    -168: (400, "ERROR_SHA_MALFORMED"),
    -173: (409, "ERROR_DIRECTORY_NOT_EMPTY"),
    -174: (409, "ERROR_SHA_DIFFERS"),
    -175: (400, "ERROR_FILE_SIZE_MISMATCH"),
    -177: (409, "ERROR_SAME_FILE_UPLOAD"),
    -178: (409, "ERROR_CMD_COS_PATH_CONFLICT"),
    -180: (400, "ERROR_PATH_ILLEGAL"),
    -195: (500, "ERROR_STORAGE_BACKEND"),
    -196: (503, "ERROR_TEMPORARILY_UNAVAILABLE"),
    -197: (404, "ERROR_CMD_FILE_NOTEXIST"),
    -199: (400, "ERROR_BUCKET_NAME"),
    -283: (400, "ERROR_SLICE_TOO_SMALL"),
    -284: (400, "ERROR_SLICE_SIZE"),
    -285: (400, "ERROR_FILE_TOO_LARGE"),
    -286: (400, "ERROR_SLICE_OFFSET"),
    -4013: (400, "ERROR_SESSION_UNKNOWN"),
    -4016: (409, "ERROR_SHA_CHECK_FAILED"),
    -4018: (409, "ERROR_SAME_FILE_UPLOAD"),
    -4019: (409, "_ERROR_FILE_NOT_FINISH_UPLOAD"),
    -4020: (409, "ERROR_UNFINISHED_UPLOAD_OTHER_SHA"),
    -4024: (400, "ERROR_SLICE_OUT_OF_ORDER"),
    -4026: (409, "ERROR_SLICE_DIFFERS_FROM_STORED"),
    -5964: (400, "ERROR_OP_UNKNOWN"),
    -5965: (400, "ERROR_UPLOADPARTS_MALFORMED"),
    -5971: (400, "ERROR_NO_FILESIZE"),
    -5980: (400, "ERROR_NO_OP"),
    -5990: (400, "ERROR_NO_FILECONTENT"),
    -5991: (400, "ERROR_SLICE_TOO_LARGE"),
    -5993: (400, "ERROR_MULTIPART_MALFORMED"),
    -5997: (503, "ERROR_BACKEND_NETWORK"),
    -5998: (403, "ERROR_SIGNATURE_MALFORMED"),
    -5999: (400, "ERROR_PARAMETER"),
    -29094: (400, "ERROR_FINISH_WITHOUT_SHA"),
    -45062: (404, "ERROR_FILE_NOT_FULLY_UPLOADED"),
}

#: Clients compare the whole message of these codes, so no detail is appended.
_MATCHED = frozenset({-121, -177, -178, -197, -4018})

#: The code for each reason of the core.
CODE_OF: dict[Reason, int] = {
    Reason.FOLDER_PATH: -160,
    Reason.NOT_A_FOLDER_PATH: -161,
    Reason.PATH_CONFLICT: -178,
    Reason.NOT_FOUND: -197,
    Reason.BUCKET_ROOT: -180,
    Reason.NOT_EMPTY: -173,
    Reason.PAGE_SIZE: -165,
    Reason.PAGE_CONTEXT: -5999,
    Reason.DIGEST_DIFFERS: -4016,
    Reason.EXISTS: -177,
    Reason.NOT_COMPLETE: -45062,
    Reason.SLICE_SIZE: -284,
    Reason.UPLOAD_IN_PROGRESS_OTHER_DIGEST: -4020,
    Reason.UPLOAD_IN_PROGRESS: -4019,
    Reason.NO_SESSION: -94,
    Reason.SESSION_UNKNOWN: -4013,
    Reason.OFFSET: -286,
    Reason.SLICE_TOO_SHORT: -283,
    Reason.SLICE_TOO_LONG: -5991,
    Reason.OUT_OF_ORDER: -4024,
    Reason.SLICE_DIFFERS: -4026,
    Reason.SIZE_DIFFERS: -175,
    Reason.NO_DIGEST: -29094,
}


class CosError(Exception):
    """The response is a JSON error with this code. The store is unchanged.

    Args:
        code: One of `CODES`; any other code has status 400.
        detail: The cause, appended to the message unless clients compare it.
        status: HTTP status instead of that in `CODES`.
    """

    def __init__(self, code: int, detail: str = "", *, status: int | None = None) -> None:
        known_status, text = CODES.get(code, (400, "ERROR"))
        self.code = code
        self.status = known_status if status is None else status
        self.message = f"{text}: {detail}" if detail and code not in _MATCHED else text
        super().__init__(f"{code} {self.message}")


def cos_error_of(error: StorageError) -> CosError:
    """The error of the protocol for an error of the core."""
    return CosError(CODE_OF[error.reason], error.detail)


class GatewayError(Exception):
    """The response comes from the gateway in front of the service: a status and a body that is not JSON."""

    def __init__(self, status: int, body: bytes, content_type: str) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        super().__init__(f"HTTP {status} {content_type}")


def too_large() -> GatewayError:
    """A body is larger than the service allows: 413 with an HTML page."""
    page = (
        b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n"
        b"<body><center><h1>413 Request Entity Too Large</h1></center></body>\r\n</html>\r\n"
    )
    return GatewayError(413, page, "text/html")


def unknown_appid() -> GatewayError:
    """The account does not exist: 400 with an XML error."""
    xml = (
        b"<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n<Code>InvalidRequest</Code>\n"
        b"<Message>Invalid Request</Message>\n</Error>\n"
    )
    return GatewayError(400, xml, "application/xml")
