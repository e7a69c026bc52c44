"""The digests in the init of a verified upload: the SHA-1 of the file, and the SHA-1 states of its prefixes."""

from __future__ import annotations

import json

from worker.emulator.core.prefix_states import Part
from worker.emulator.cos_json.errors import CosError

_SHA_HEX_CHARS = 40


def read_sha(text: str) -> str:
    """The digest in lower case, or an empty string.

    Raises:
        CosError: -168 not a SHA-1 in hex.
    """
    sha = text.lower()
    if sha and (len(sha) != _SHA_HEX_CHARS or set(sha) - set("0123456789abcdef")):
        raise CosError(-168)
    return sha


def read_uploadparts(text: str, *, filesize_bytes: int, sha: str) -> list[Part]:
    """The parts; they must cover the file without a gap and end with its digest.

    Raises:
        CosError: -5965 not JSON, or the parts do not cover the file.
    """
    try:
        elements = [(each["offset"], each["datalen"], read_sha(each["datasha"])) for each in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError, CosError):
        raise CosError(-5965) from None
    parts: list[Part] = []
    end = 0
    for offset, size, datasha in elements:
        if not (isinstance(offset, int) and isinstance(size, int)) or offset != end or not datasha:
            raise CosError(-5965, f"the part at {offset} does not follow on the one before")
        if size <= 0 and filesize_bytes:
            raise CosError(-5965, f"the part at {offset} is empty")
        end += size
        parts.append(Part(end, datasha))
    if end != filesize_bytes or not parts or parts[-1].datasha != sha:
        raise CosError(-5965, "the parts do not add up to the file")
    return parts
