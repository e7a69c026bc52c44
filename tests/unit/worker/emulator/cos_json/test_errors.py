"""Each reason of the core has a code of the protocol."""

from __future__ import annotations

import pytest

from worker.emulator.core.errors import Reason, StorageError
from worker.emulator.cos_json.errors import CODE_OF, CODES, cos_error_of


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code(reason: Reason) -> None:
    assert CODE_OF[reason] in CODES


def test_a_detail_is_appended_unless_clients_compare_the_message() -> None:
    error = cos_error_of(StorageError(Reason.SLICE_TOO_SHORT, "3 bytes where 4 are due"))
    assert (error.code, error.status, error.message) == (-283, 400, "ERROR_SLICE_TOO_SMALL: 3 bytes where 4 are due")
    assert cos_error_of(StorageError(Reason.PATH_CONFLICT, "a is a file")).message == "ERROR_CMD_COS_PATH_CONFLICT"
