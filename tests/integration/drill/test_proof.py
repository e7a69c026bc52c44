"""The drill's comparison of the object: presence, size, mark and bytes, each with its own report."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.doctor.findings import Finding, Level
from worker.drill.proof import Expected, verify
from worker.emulator.control import Control
from worker.http.deadline import Deadline
from worker.stores.base import Intent
from worker.stores.registry import open_store
from worker.urls import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.config.profiles import StoreProfile
    from worker.emulator.server import Emulator
    from worker.stores.base import StoreDriver

CONTENT = b"the canary's file" * 1000
WANTED = Expected("sliceway-drill/1-1", "sliceway/a/1", len(CONTENT), hashlib.sha1(CONTENT).hexdigest())  # noqa: S324


@pytest.fixture
def store(store_profile: StoreProfile) -> Iterator[StoreDriver]:
    store = open_store(store_profile)
    intent = Intent(WANTED.key, WANTED.size_bytes, overwrite=False, attributes=None, mark=WANTED.mark)
    store.put_whole(intent, memoryview(CONTENT), Deadline(20))
    yield store
    store.close()


@pytest.fixture
def verified(store: StoreDriver, store_profile: StoreProfile) -> Callable[[Expected], Finding]:
    return lambda wanted: verify(store, store_profile, wanted)


def test_the_right_object_is_read_back(verified: Callable[[Expected], Finding]) -> None:
    found = verified(WANTED)
    assert (found.level, "17,000 bytes with our mark; downloaded" in found.text) == (Level.OK, True)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (replace(WANTED, key="sliceway-drill/1-2"), "no object is at its key"),
        (replace(WANTED, mark="sliceway/a/2"), "the object is another"),
        (replace(WANTED, size_bytes=1), "the object is another"),
        (replace(WANTED, sha1="0" * 40), "but the file has 0000"),
    ],
)
def test_any_other_object_is_reported(verified: Callable[[Expected], Finding], wanted: Expected, says: str) -> None:
    found = verified(wanted)
    assert (found.level, says in found.text, found.advice != "") == (Level.FAILED, True, True)


def test_an_object_that_cannot_be_read_back_is_a_note_that_says_why(
    verified: Callable[[Expected], Finding], emulator: Emulator
) -> None:
    Control(emulator.control_url, emulator.token_file).add_rule("raw", op="download", status=403, body="no")
    found = verified(WANTED)
    assert (found.level, found.text.endswith(f"/{WANTED.key} answers HTTP 403")) == (Level.NOTE, True)


def test_a_store_that_is_away_is_reported(store: StoreDriver, store_profile: StoreProfile) -> None:
    nowhere = store_profile.model_copy(update={"endpoint": Endpoint.of("http://127.0.0.1:1")})
    away = open_store(nowhere)
    found = verify(away, nowhere, WANTED)
    away.close()
    assert (found.level, "does not show the object" in found.text) == (Level.FAILED, True)
    assert store.remove(WANTED.key, WANTED.mark, Deadline(20))
