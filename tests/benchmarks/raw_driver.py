"""The driver alone: the same reads and `put_slice` in as many processes and threads, without queue or checkpoint.

Or, ``by`` a bare socket, without the driver, too.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any

from bare_socket import BareSocket
from timed import timed

from worker.config.profiles import RootProfile, StoreProfile
from worker.sources.file import open_file
from worker.stores.base import Intent, Session
from worker.stores.registry import open_store

if TYPE_CHECKING:
    from worker.stores.base import StoreDriver


class NoDeadline:
    """A guard that never interrupts."""

    def check(self) -> None:
        """Nothing stops it."""

    def remaining_s(self) -> float:
        """Always as long as a slice has at first."""
        return 30.0


def driver(given: dict[str, Any]) -> StoreDriver:
    secrets = {"secret_id": given["id"], "secret_key": given["key"]}
    place = {"endpoint": given["store"], "appid": given["appid"], "bucket": given["bucket"]}
    return open_store(
        StoreProfile(name="raw", protocol="cos-json", slice_bytes=given["slice_bytes"], **place, **secrets)
    )


def send(given: dict[str, Any], session: Session, numbers: list[int], go: Any) -> None:
    """Send some slices in threads."""
    file, kept, key = Path(given["file"]), local(), given["stem"] + "/raw"
    store, bare = driver(given), BareSocket(given) if given["by"] == "socket" else None
    root = RootProfile(name="files", path=file.parent)
    size_bytes = file.stat().st_size

    def one(number: int) -> None:
        if not hasattr(kept, "buffer"):
            kept.buffer = bytearray(session.slice_bytes)
        offset = number * session.slice_bytes
        body = memoryview(kept.buffer)[: min(session.slice_bytes, size_bytes - offset)]
        with open_file(root, file.name) as source:
            source.read_into(body, offset)
        if bare is None:
            store.put_slice(key, session.handle, offset, body, NoDeadline())
        else:
            bare.put_slice(key, session.handle, offset, body)

    with ThreadPoolExecutor(given["threads"]) as pool:
        go.wait()
        list(pool.map(one, numbers))


def main() -> None:
    """Upload the file once and print the seconds."""
    given = json.load(sys.stdin)
    size_bytes, key = Path(given["file"]).stat().st_size, given["stem"] + "/raw"
    store = driver(given)
    intent = Intent(key=key, size_bytes=size_bytes, overwrite=False, attributes=None, mark="")
    session = store.init(intent, given["slice_bytes"], None, NoDeadline())
    assert isinstance(session, Session), session
    total = -(-size_bytes // session.slice_bytes)
    context = multiprocessing.get_context("fork")
    go = context.Barrier(given["processes"] + 1)
    shares = [list(range(each, total, given["processes"])) for each in range(given["processes"])]
    children = [context.Process(target=send, args=(given, session, share, go)) for share in shares]
    for child in children:
        child.start()
    go.wait()
    with timed():
        for child in children:
            child.join()
        assert not any(child.exitcode for child in children)
        store.finish(key, session.handle, size_bytes, NoDeadline())


if __name__ == "__main__":
    main()
