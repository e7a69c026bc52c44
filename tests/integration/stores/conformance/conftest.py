"""The harness that each driver brings to the conformance suite: the driver, and a server of its protocol with faults.

A new driver adds its own harness to `HARNESSES`. The suite then tests it unchanged.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from worker.emulator.control import Control
from worker.errors import Interrupted, Stop
from worker.stores.base import Intent, Session
from worker.stores.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.config.profiles import StoreProfile
    from worker.emulator.server import Emulator
    from worker.http.deadline import Guard
    from worker.stores.base import StoreDriver

HARNESSES = ("cos_json_harness",)
SLICE_BYTES = 512 * 1024


class Harness(Protocol):
    """A driver and its server. Operations: init, slice, list, finish, whole, head, discard."""

    driver: StoreDriver
    secrets: tuple[str, ...]

    def open(self, **profile: Any) -> StoreDriver:
        """Return another driver, with changes to its profile."""

    def fault(self, operation: str, fault: str, **how: Any) -> None:
        """Add a fault to the requests of one operation: `cut`, `delay`, `raw`, `error`, `hold`, and others."""

    def heal(self) -> None:
        """Remove all faults."""

    def put_object(self, key: str, content: bytes) -> None:
        """Put a foreign object at the key."""

    def begin_upload(self, key: str, size_bytes: int, slices: Mapping[int, bytes]) -> None:
        """Begin a foreign upload at the key."""

    def object_sizes(self) -> dict[str, int]:
        """Return the size in bytes of each object in the bucket."""

    def content(self, key: str) -> bytes:
        """Return the bytes of an object."""

    def open_uploads(self) -> list[str]:
        """Return the keys of the unfinished uploads."""

    def lose_sessions(self) -> None:
        """Make the server forget all unfinished uploads."""

    def dictate(self, *, slice_bytes: int | None = None, ordered: bool = False) -> None:
        """Make the server require a slice size, or slices in order."""

    def asked(self, operation: str, *, count: int = 0, state: str | None = None) -> list[dict[str, Any]]:
        """Wait for ``count`` requests of an operation, in this state if one is named; return all of them."""


@dataclass
class Deadline:
    """A guard with a deadline and a stop that a test sets."""

    seconds: float = 240.0
    stop: Stop | None = None

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds

    def check(self) -> None:
        if self.stop is not None:
            raise Interrupted(self.stop)
        if self.remaining_s() <= 0:
            raise Interrupted(Stop.DEADLINE)

    def remaining_s(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""


class ShortDeadline:
    """A guard with always 0.3 s left: it never stops a request, so only timeouts end one."""

    def check(self) -> None:
        """Return."""

    def remaining_s(self) -> float:
        return 0.3

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""


class CosJsonHarness:
    """The COS JSON driver and the emulator."""

    NAMES: ClassVar = {"slice": "data", "whole": "upload", "head": "stat", "discard": "delete"}

    def __init__(self, emulator: Emulator, profile: StoreProfile) -> None:
        self._emulator = emulator
        self._profile = profile
        self._opened: list[StoreDriver] = []
        self.control = Control(emulator.control_url, emulator.token_file)
        self.driver = self.open()
        self.secrets = (profile.secret_id.get_secret_value(), profile.secret_key.get_secret_value())

    def open(self, **profile: Any) -> StoreDriver:
        if "secret_key" in profile:
            profile["secret_key"] = SecretStr(profile["secret_key"])
        self._opened.append(open_store(self._profile.model_copy(update=profile)))
        return self._opened[-1]

    def close(self) -> None:
        for driver in self._opened:
            driver.close()

    def fault(self, operation: str, fault: str, **how: Any) -> None:
        self.control.add_rule(fault, op=self.NAMES.get(operation, operation), **how)

    def heal(self) -> None:
        self.control.clear_rules()
        self.control.release()

    def put_object(self, key: str, content: bytes) -> None:
        self.control.plant_object(self._profile.bucket, key, content)

    def begin_upload(self, key: str, size_bytes: int, slices: Mapping[int, bytes]) -> None:
        size = max(map(len, slices.values()), default=SLICE_BYTES)
        self.control.plant_upload(self._profile.bucket, key, filesize=size_bytes, slices=slices, slice_size=size)

    def object_sizes(self) -> dict[str, int]:
        return {each["path"]: each["filesize"] for each in self.control.objects(self._profile.bucket)}

    def content(self, key: str) -> bytes:
        url = f"{self._emulator.url}/files/v2/{self._profile.appid}/{self._profile.bucket}/{quote(key)}"
        return httpx.get(url, trust_env=False).raise_for_status().content

    def open_uploads(self) -> list[str]:
        return [each["path"] for each in self.control.uploads(self._profile.bucket)]

    def lose_sessions(self) -> None:
        self.control.expire_sessions()

    def dictate(self, *, slice_bytes: int | None = None, ordered: bool = False) -> None:
        self.control.change(forced_slice_size=slice_bytes, serial_upload=ordered)

    def asked(self, operation: str, *, count: int = 0, state: str | None = None) -> list[dict[str, Any]]:
        wanted = {"op": self.NAMES.get(operation, operation)} | ({"state": state} if state else {})
        return self.control.requests(count=count, timeout_s=20, **wanted)


@pytest.fixture
def cos_json_harness(emulator: Emulator, store_profile: StoreProfile) -> Iterator[CosJsonHarness]:
    harness = CosJsonHarness(emulator, store_profile)
    yield harness
    with suppress(OSError):
        harness.heal()
    harness.close()


@pytest.fixture(params=HARNESSES)
def harness(request: pytest.FixtureRequest) -> Harness:
    """Return each driver's harness in turn."""
    found: Harness = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def guard() -> Deadline:
    """Return a guard with a deadline that no test reaches."""
    return Deadline()


@pytest.fixture
def short_deadline() -> ShortDeadline:
    """Return a guard whose deadline is always near."""
    return ShortDeadline()


@pytest.fixture
def deadline() -> type[Deadline]:
    """Return the class of guards with a deadline."""
    return Deadline


@pytest.fixture
def data() -> bytes:
    """Return a file of four different slices, the last one shorter."""
    return b"".join(bytes([number]) * SLICE_BYTES for number in range(1, 4)) + b"the end"


@pytest.fixture
def intent(data: bytes) -> Intent:
    """Return the intent to upload that file to a free key that needs escaping."""
    return Intent(
        key="a folder/ü+%41.bin", size_bytes=len(data), overwrite=False, attributes=None, mark="sliceway/0190-a/1"
    )


@dataclass
class Ready:
    """An upload with all its slices, and the driver's calls on it or on other keys."""

    harness: Harness
    intent: Intent
    data: bytes
    handle: dict[str, Any]

    def call(self, name: str, guard: Guard | None = None, driver: StoreDriver | None = None) -> object:
        """Make one call: `init`, `slice`, `list`, `finish`, `whole` or `head`."""
        driver, key, small = driver or self.harness.driver, self.intent.key, memoryview(self.data)[:1000]
        guard = guard or Deadline()
        match name:
            case "init":
                return driver.init(replace(self.intent, key="other"), SLICE_BYTES, None, guard)
            case "slice":
                return driver.put_slice(key, self.handle, 0, memoryview(self.data)[:SLICE_BYTES], guard)
            case "list":
                return driver.list_slices(key, self.handle, guard)
            case "finish":
                return driver.finish(key, self.handle, len(self.data), guard)
            case "whole":
                return driver.put_whole(replace(self.intent, key="small", size_bytes=len(small)), small, guard)
        return driver.head(key, guard)


@pytest.fixture
def ready(harness: Harness, intent: Intent, data: bytes, guard: Deadline) -> Ready:
    """Return that upload: all slices are sent, the finish is missing."""
    begun = harness.driver.init(intent, SLICE_BYTES, None, guard)
    assert isinstance(begun, Session)
    for offset in range(0, len(data), SLICE_BYTES):
        harness.driver.put_slice(
            intent.key, begun.handle, offset, memoryview(data)[offset : offset + SLICE_BYTES], guard
        )
    return Ready(harness, intent, data, begun.handle)
