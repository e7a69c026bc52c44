"""What a driver brings to the conformance suite: itself, and a server of its protocol that can be told to misbehave.

A new driver adds a bench of its own and its name to `BENCHES`; the suite then runs against it unchanged.
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

BENCHES = ("cos_json_bench",)
SLICE_BYTES = 512 * 1024


class Bench(Protocol):
    """A driver and the server it speaks to. Operations: init, slice, list, finish, whole, look, discard."""

    driver: StoreDriver
    secrets: tuple[str, ...]

    def open(self, **profile: Any) -> StoreDriver:
        """Return another driver, its profile changed."""

    def fault(self, operation: str, fault: str, **how: Any) -> None:
        """Make the server treat requests of one operation badly: `cut`, `delay`, `raw`, `error`, `hold`, and others."""

    def heal(self) -> None:
        """Take all faults back."""

    def put_object(self, key: str, content: bytes) -> None:
        """Let somebody else's object be at the key."""

    def begin_upload(self, key: str, size_bytes: int, slices: Mapping[int, bytes]) -> None:
        """Let somebody else's unfinished upload be at the key."""

    def object_sizes(self) -> dict[str, int]:
        """Return the size in bytes of each object in the bucket."""

    def content(self, key: str) -> bytes:
        """Return the bytes of an object."""

    def open_uploads(self) -> list[str]:
        """Return the keys of the unfinished uploads."""

    def lose_sessions(self) -> None:
        """Let the server forget all unfinished uploads."""

    def dictate(self, *, slice_bytes: int | None = None, ordered: bool = False) -> None:
        """Let the server insist on a slice size, or on slices in order."""

    def asked(self, operation: str, *, count: int = 0, state: str | None = None) -> list[dict[str, Any]]:
        """Return the requests of an operation so far, in this state if one is named; waits until there are so many."""


@dataclass
class Deadline:
    """A guard with a deadline and a switch."""

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
        """Ignore how far the request is."""


class Tight:
    """A guard with always as little time left, and never none: what ends a request are its timeouts alone."""

    def check(self) -> None:
        """Let it pass."""

    def remaining_s(self) -> float:
        return 0.3

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore how far the request is."""


class CosJsonBench:
    """The COS JSON driver and the emulator."""

    NAMES: ClassVar = {"slice": "data", "whole": "upload", "look": "stat", "discard": "delete"}

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
def cos_json_bench(emulator: Emulator, store_profile: StoreProfile) -> Iterator[CosJsonBench]:
    bench = CosJsonBench(emulator, store_profile)
    yield bench
    with suppress(OSError):
        bench.heal()
    bench.close()


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each driver's bench in turn."""
    found: Bench = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def guard() -> Deadline:
    """A guard that lets a test have 30 s."""
    return Deadline()


@pytest.fixture
def tight() -> Tight:
    """A guard whose deadline is always near."""
    return Tight()


@pytest.fixture
def deadline() -> type[Deadline]:
    """Guards with deadlines of one's own."""
    return Deadline


@pytest.fixture
def data() -> bytes:
    """A file of four slices, the last one odd, no two alike."""
    return b"".join(bytes([number]) * SLICE_BYTES for number in range(1, 4)) + b"the end"


@pytest.fixture
def intent(data: bytes) -> Intent:
    """To bring that file to a key that wants escaping, where nothing is."""
    return Intent(
        key="a folder/ü+%41.bin", size_bytes=len(data), overwrite=False, attributes=None, mark="sliceway/0190-a/1"
    )


@dataclass
class Ready:
    """An upload of which every slice has come, and each of the driver's calls to be made on it or beside it."""

    bench: Bench
    intent: Intent
    data: bytes
    handle: dict[str, Any]

    def call(self, name: str, guard: Guard | None = None, driver: StoreDriver | None = None) -> object:
        """Make one call: `init`, `slice`, `list`, `finish`, `whole` or `look`."""
        on, key, small = driver or self.bench.driver, self.intent.key, memoryview(self.data)[:1000]
        guard = guard or Deadline()
        match name:
            case "init":
                return on.init(replace(self.intent, key="other"), SLICE_BYTES, None, guard)
            case "slice":
                return on.put_slice(key, self.handle, 0, memoryview(self.data)[:SLICE_BYTES], guard)
            case "list":
                return on.list_slices(key, self.handle, guard)
            case "finish":
                return on.finish(key, self.handle, len(self.data), guard)
            case "whole":
                return on.put_whole(replace(self.intent, key="small", size_bytes=len(small)), small, guard)
        return on.look(key, guard)


@pytest.fixture
def ready(bench: Bench, intent: Intent, data: bytes, guard: Deadline) -> Ready:
    """That file, all of it sent, only the finish to be done."""
    begun = bench.driver.init(intent, SLICE_BYTES, None, guard)
    assert isinstance(begun, Session)
    for offset in range(0, len(data), SLICE_BYTES):
        bench.driver.put_slice(intent.key, begun.handle, offset, memoryview(data)[offset : offset + SLICE_BYTES], guard)
    return Ready(bench, intent, data, begun.handle)
