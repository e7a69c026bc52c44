"""The store of an installation: the emulator in a process of its own, its journal, and foreign objects."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.deadline import DEADLINE_S, until
from worker.emulator.control import Control, ControlError
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stores_file import Table

Row = dict[str, Any]

SLICE_BYTES = 512 * 1024
APPID, BUCKET, SECRET_ID, SECRET_KEY = "10055004", "uploads", "fake-secret-id", "fake-secret-key-of-the-store"

#: Trusts no authority, as there is no TLS: to load those of the machine takes longer than a request.
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def profile(url: str, **fields: Any) -> Table:
    """Return the profile of a store at an address; `fields` are more of it."""
    account = {"appid": APPID, "bucket": BUCKET, "secret_id": SECRET_ID, "secret_key": SECRET_KEY}
    return {"protocol": "cos-json", "endpoint": url, **account, **fields}


class StoreServer:
    """A store that can be killed and started again on its folder."""

    #: The module that is run.
    program = "worker.emulator"

    def __init__(self, folder: Path, *options: str, journal: bool = True) -> None:
        """Start it.

        Args:
            folder: for its objects, its log and its journal.
            options: more of the emulator's command line.
            journal: whether it writes its journal to a file.
        """
        self.folder = folder
        self.journal = folder / "store.jsonl"
        self._options = [*options, *(["--journal", str(self.journal)] if journal else [])]
        self.foreign_objects: dict[str, bytes] = {}
        self.others: dict[str, list[bytes]] = {}
        self.planted: set[str] = set()
        self._past: list[Row] = []
        self._ports = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.control = Control(f"http://127.0.0.1:{self._ports[1]}", folder / "data" / "control-token")
        self.start()

    def start(self) -> None:
        """Start the store, or start it again on its folder."""
        options = {
            "--data-dir": self.folder / "data", "--port": self._ports[0], "--control-port": self._ports[1],
            "--appid": APPID, "--bucket": BUCKET, "--secret-id": SECRET_ID, "--secret-key": SECRET_KEY,
        }  # fmt: skip
        arguments = [str(part) for option in options.items() for part in option]
        argv = [sys.executable, "-m", self.program, *arguments, "--no-fsync", *self._options]
        self._child = Child(argv, log=self.folder / "store.log")
        ready = wait_until(self._answers, timeout_s=DEADLINE_S, alive=lambda: self._child.poll() is None)
        assert ready, (self.folder / "store.log").read_text()

    def _answers(self) -> bool:
        try:
            return bool(self.control.settings())
        except (OSError, ControlError):  # whose token is still the one from before the start
            return False

    def kill(self) -> None:
        """SIGKILL for the store; what its journal had is remembered."""
        self._past += self.control.requests()
        self._child.kill()

    def requests(self, **wanted: object) -> list[Row]:
        """What the store was asked, from the test's beginning on, by its journal."""
        path = wanted.pop("path", None)
        journal = self._past + self.control.requests()
        return [
            entry
            for entry in journal
            if path in (None, entry["path"]) and all(entry[name] == value for name, value in wanted.items())
        ]

    def object_at(self, key: str) -> bytes | None:
        """The bytes of the object at a key, as the store gives them out."""
        answer = httpx.get(f"{self.url}/files/v2/{APPID}/{BUCKET}/{key}", trust_env=False, verify=_NO_AUTHORITIES)
        return answer.content if answer.status_code == httpx.codes.OK else None

    def unfinished(self) -> dict[str, Row]:
        """The store's unfinished uploads, by key."""
        return {upload["path"]: upload for upload in self.control.uploads(BUCKET)}

    def plant_object(self, key: str, content: bytes, *, sacred: bool = True, with_sha: bool = False) -> bytes:
        """Put the object of another client there; a `sacred` one must be unchanged when the test is over."""
        self.control.plant_object(BUCKET, key, content, with_sha=with_sha)
        self.others.setdefault(key, []).append(content)
        if sacred:
            self.foreign_objects[key] = content
        return content

    def plant_upload(self, key: str, size_bytes: int, *slices: bytes, insert_only: bool = True) -> str:
        """Begin an upload of another client, with its first slices received; returns its session."""
        held = {number * SLICE_BYTES: data for number, data in enumerate(slices)}
        session = self.control.plant_upload(
            BUCKET, key, slices=held, filesize=size_bytes, slice_size=SLICE_BYTES, insert_only=insert_only
        )
        self.planted.add(session)
        return session

    def hold(self, op: str, key: str, *, when: str = "before", **conditions: Any) -> Callable[[], None]:
        """Let the store hold requests from now on; returns a function that releases them and ends that."""
        rule = self.control.add_rule("hold", op=op, path=key, when=when, **conditions)

        def release() -> None:
            self.control.remove_rule(rule)
            self.control.release()

        return release

    def held(self, op: str, key: str, count: int = 1) -> list[Row]:
        """Wait until so many requests are held; returns them."""
        held: list[Row] = []

        def there() -> bool:
            held[:] = self.requests(op=op, path=key, state="held")
            return len(held) >= count

        until(there, f"{count} held {op} of {key}")
        return held

    def forget(self) -> None:
        """Clear the journal, and drop the checks of foreign objects."""
        self.foreign_objects, self.others, self.planted, self._past = {}, {}, set(), []
        self.control.clear_requests()

    def calm(self) -> None:
        """Remove all faults, and release the requests held."""
        self.control.clear_rules()
        self.control.release()
        self.control.change(rate_bytes_per_s=None)

    def stop(self) -> None:
        """End it."""
        self._child.stop()
