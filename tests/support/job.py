"""A job as a test sees it: what it should bring about, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import Installation

Row = dict[str, Any]


@dataclass
class JobSpec:
    """A request to the API: path below a root, key, and whatever else the document is to say."""

    path: str
    key: str
    fields: dict[str, Any] = field(default_factory=dict)
    root: str = "media"

    @property
    def document(self) -> Row:
        """The request's body."""
        source = {"kind": "file", "root": self.root, "path": self.path}
        return {"source": source, "store": "main", "key": self.key, **self.fields}


@dataclass
class Job:
    """One job; `explained` says why it may be unfinished when the test is over."""

    site: Installation
    id: str
    key: str
    content: bytes
    path: Path
    explained: str | None = None

    @property
    def row(self) -> Row:
        """Its row."""
        [row] = self.site.sql("SELECT * FROM job WHERE id = %(id)s", id=self.id)
        return row

    @property
    def state(self) -> str:
        """Where it stands."""
        return str(self.row["state"])

    @property
    def view(self) -> Row:
        """What the API says of it."""
        return dict(self.site.api.get(f"/v1/jobs/{self.id}").raise_for_status().json())

    @property
    def why(self) -> Row:
        """Why it waits, as the API says."""
        return dict(self.site.api.get(f"/v1/jobs/{self.id}/why").raise_for_status().json())

    @property
    def slices(self) -> list[Row]:
        """The rows of its slices, in order."""
        return self.site.sql("SELECT * FROM slice WHERE job_id = %(id)s ORDER BY number", id=self.id)

    @property
    def events(self) -> list[Row]:
        """Its history, oldest first."""
        return self.site.sql("SELECT * FROM event WHERE job_id = %(id)s ORDER BY id", id=self.id)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events, oldest first."""
        return [event["kind"] for event in self.events]

    def advanced(self) -> bool:
        """Whether anything of it is done."""
        row = self.row
        return row["bytes_done"] > 0 or row["state"] in FINAL

    def done(self) -> int:
        """How many of its slices are checkpointed."""
        return sum(row["state"] == "done" for row in self.slices)

    def asked(self, op: str, **wanted: object) -> list[Row]:
        """What the store was asked for its key, by the journal; fields of an entry narrow it."""
        return self.site.store.requests(op=op, path=self.key, **wanted)

    def sent_bytes(self) -> int:
        """How many bytes of slices the store has received for its key, cut-off ones as far as they came."""
        return sum(entry["size"] or 0 for entry in self.asked("data"))

    def sent_twice_bytes(self) -> int:
        """How many bytes the store was sent beyond the file's size."""
        return self.sent_bytes() - len(self.content)

    def act(self, action: str, body: Row | None = None, **query: str) -> Row:
        """Do what an operator does through the API."""
        path = f"/v1/jobs/{self.id}/{action}"
        return dict(self.site.api.post(path, params=query, json=body).raise_for_status().json())

    def reaches(self, *states: str) -> Job:
        """Wait for a state.

        Raises:
            AssertionError: it ended in another one, or the time is up.
        """
        wanted = set(states)

        def there() -> bool:
            return self.state in wanted | set(FINAL)

        self.site.until(there, f"job {self.key} {' or '.join(states)}")
        row = self.row
        assert row["state"] in wanted, f"job {self.key} is {row['state']}: {row['error']}"
        return self

    def succeeds(self) -> Row:
        """Wait for its success and return its result."""
        return dict(self.reaches("succeeded").row["result"])

    def fails(self) -> str:
        """Wait for its failure and return the error's code."""
        return str(self.reaches("failed").row["error"]["code"])
