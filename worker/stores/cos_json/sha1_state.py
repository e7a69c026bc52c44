"""SHA-1 of a file together with its internal state after each MiB, as `uploadparts` of the COS JSON API requires.

Hash libraries do not show their state. OpenSSL's SHA-1 context does: its first five words are h0..h4. A context with
these words and the length so far can continue the hash, so that the hashing of a large file survives a restart. This
module uses the libcrypto of Python's own `hashlib`, without the interpreter's lock, if it passes a self-test.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from worker.protocols.spec import MIB
from worker.stores.base import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_BYTES = 1 * MIB


class _Context(ctypes.Structure):
    """`SHA_CTX` of <openssl/sha.h>, unchanged since SSLeay."""

    _fields_ = (
        ("h", ctypes.c_uint32 * 5),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("data", ctypes.c_uint32 * 16),
        ("num", ctypes.c_uint),
    )


class Sha1Library:
    """The three SHA-1 functions of libcrypto."""

    def __init__(self, crypto: ctypes.CDLL) -> None:
        """Bind the functions.

        Raises:
            AttributeError: the library lacks one of them.
        """
        self.init, self.update, self.final = crypto.SHA1_Init, crypto.SHA1_Update, crypto.SHA1_Final
        self.init.argtypes = (ctypes.POINTER(_Context),)
        self.update.argtypes = (ctypes.POINTER(_Context), ctypes.c_void_p, ctypes.c_size_t)
        self.final.argtypes = (ctypes.c_char_p, ctypes.POINTER(_Context))

    def passes_self_test(self) -> bool:
        """Return whether state and digest of two zero blocks are correct."""
        digester = Sha1States(self, step_bytes=64)
        digester.update(memoryview(bytes(64)))
        digester.update(memoryview(bytes(64)))
        digests = digester.digests()
        return (digests.proof[0]["datasha"], digests.value) == (
            "e504b492ed8c58564ecd1a6c683f05bf933af709",
            "0ae4f711ef5d6e9d26c611fd2c8c8ac45ecbf9e7",
        )


class Sha1States:
    """A `Digester` over OpenSSL. One thread at a time may use it."""

    def __init__(self, library: Sha1Library, progress: Any = None, *, step_bytes: int = STEP_BYTES) -> None:
        self.piece_bytes = step_bytes
        self._library = library
        self._context = _Context()
        self._states: list[str] = []
        self._bytes = 0
        library.init(self._context)
        if progress is not None:
            self._restore(progress)

    def update(self, piece: memoryview) -> None:
        """Add the next bytes; only the last piece may end within a step.

        Raises:
            ValueError: the previous piece was the last one.
        """
        if self._bytes % self.piece_bytes:
            raise ValueError("the previous piece was not a multiple of the step, so it was the last one")
        view = piece.cast("B")
        for start in range(0, len(view), self.piece_bytes):
            step = view[start : start + self.piece_bytes]
            self._library.update(self._context, _address(step), len(step))
            self._bytes += len(step)
            if len(step) == self.piece_bytes:
                self._states.append(_hex(self._context))

    def progress(self) -> Any:
        """Return JSON from which another digester can continue.

        Raises:
            ValueError: the last piece was added, so that the hash cannot continue.
        """
        if self._bytes % self.piece_bytes:
            raise ValueError("the last piece was added; ask for the digests")
        return {"states": "".join(self._states)}

    def digests(self) -> Digests:
        """Return the digest of all bytes added; its proof has one state a step, and the digest in the last element."""
        context, out = _Context.from_buffer_copy(self._context), ctypes.create_string_buffer(20)
        self._library.final(out, context)
        sha = out.raw.hex()
        return Digests(algorithm="sha1", value=sha, proof=list(self._parts(sha)))

    def _parts(self, sha: str) -> Iterator[dict[str, int | str]]:
        for number, offset in enumerate(range(0, self._bytes, self.piece_bytes)):
            size = min(self.piece_bytes, self._bytes - offset)
            last = offset + size == self._bytes
            yield {"offset": offset, "datalen": size, "datasha": sha if last else self._states[number]}

    def _restore(self, progress: Any) -> None:
        joined: str = progress["states"]
        self._states = [joined[at : at + 40] for at in range(0, len(joined), 40)]
        self._bytes = len(self._states) * self.piece_bytes
        if self._states:
            self._context.h[:] = struct.unpack("<5I", bytes.fromhex(self._states[-1]))
            self._context.bits_low = (self._bytes << 3) & 0xFFFFFFFF
            self._context.bits_high = self._bytes >> 29


@cache
def library() -> Sha1Library | None:
    """Return OpenSSL's SHA-1; None if this machine has none that passes the self-test."""
    for candidate in _candidates():
        try:
            found = Sha1Library(ctypes.CDLL(candidate))
        except (OSError, AttributeError):
            continue
        if found.passes_self_test():
            return found
    return None


def _candidates() -> Iterator[str | None]:
    try:
        import _hashlib  # noqa: PLC0415 - absent from a Python that was built without OpenSSL
    except ImportError:
        pass
    else:
        yield getattr(_hashlib, "__file__", None)  # is linked to libcrypto; None: built into Python
    # macOS kills a process that loads the system's libcrypto by name.
    if sys.platform != "darwin" and (name := ctypes.util.find_library("crypto")):
        yield name


def _hex(context: _Context) -> str:
    return struct.pack("<5I", *context.h).hex()


def _address(piece: memoryview) -> Any:
    """Return the bytes as an argument for C: without a copy unless they are read-only, which ctypes requires."""
    return bytes(piece) if piece.readonly else (ctypes.c_char * len(piece)).from_buffer(piece)
