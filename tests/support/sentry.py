"""A server that Sentry's SDK sends its envelopes to, over HTTP as to the real one."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sentry:
    """What was sent so far. `dsn` names the server."""

    def __init__(self, port: int) -> None:
        self.dsn = f"http://public@127.0.0.1:{port}/1"
        self.envelopes: list[bytes] = []

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return the items of a kind: `event`, `transaction`."""
        return [item for envelope in list(self.envelopes) for name, item in _items(envelope) if name == kind]

    def transactions(self) -> dict[str, str]:
        """Return the status of each transaction's last one, by its name."""
        return {each["transaction"]: each["contexts"]["trace"]["status"] for each in self.items("transaction")}

    def tasks(self) -> list[str]:
        """Return the names of the tasks that have sent an event, in the order of their arrival."""
        return [event["extra"]["celery-job"]["task_name"] for event in self.items("event")]


def _items(envelope: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    _, rest = envelope.split(b"\n", 1)
    while rest.strip():
        head, rest = rest.split(b"\n", 1)
        header = json.loads(head)
        size = header.get("length", len(rest.split(b"\n", 1)[0]))
        payload, rest = rest[:size], rest[size:].removeprefix(b"\n")
        if header["type"] in ("event", "transaction"):
            yield header["type"], json.loads(payload)


@contextmanager
def sentry_server() -> Iterator[Sentry]:
    """Run the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "")
            assert encoding in ("", "gzip"), encoding
            sentry.envelopes.append(gzip.decompress(body) if encoding else body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sentry = Sentry(server.server_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sentry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
