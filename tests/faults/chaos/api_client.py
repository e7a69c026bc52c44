"""A client of API processes that may die at any moment: records each request, and repeats it until it is answered."""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.history import Recorder, Source

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.expectations import AcceptedJob
    from tests.faults.chaos.workload import JobRequest
    from tests.faults.history import PendingOperation

Row = dict[str, Any]
_RETRY_DELAY_S = 0.15


class ApiClient:
    """Sends each request to a random API process. For one thread."""

    def __init__(self, name: str, cluster: Cluster, over: threading.Event) -> None:
        """Connect to nothing yet.

        Args:
            name: of the client in the history.
            cluster: whose API.
            over: set when no request may be sent any more.
        """
        self._chance, self._over = random.Random(name), over
        self.recorder = Recorder(cluster.history, name)
        self._media = cluster.media
        self._clients = {tenant: [cluster.api(url, tenant) for url in cluster.api_urls] for tenant in cluster.keys}

    def submit(self, request: JobRequest) -> httpx.Response | None:
        """Ask for one upload until there is an answer; None if the run was over before."""
        headers = {"Idempotency-Key": request.idempotency_key}

        def ask() -> httpx.Response | None:
            with self._submitting(request) as pending:
                answer = self._post(request.tenant, "/v1/jobs", json=request.document, headers=headers)
                return None if answer is None else pending.record(answer)

        return self._until_answered(ask)

    def submit_batch(self, batch: list[JobRequest]) -> list[Row] | None:
        """Ask for several uploads of one tenant at once, in the same way; returns a result for each."""
        items = [{**request.document, "idempotency_key": request.idempotency_key} for request in batch]

        def ask() -> httpx.Response | None:
            with ExitStack() as stack:
                pending = [stack.enter_context(self._submitting(request)) for request in batch]
                answer = self._post(batch[0].tenant, "/v1/jobs/batch", json={"jobs": items})
                for each, result in zip(pending, _results(answer), strict=False):
                    each.answered(result["status"], job=result.get("job", {}).get("id"))
                return answer

        answer = self._until_answered(ask)
        return None if answer is None else _results(answer)

    def act(self, job: AcceptedJob, action: str) -> bool:
        """Cancel or retry a job, once; says whether there was an answer."""
        recording = self.recorder.cancelling if action == "cancel" else self.recorder.retrying
        with recording(job.id) as pending:
            answer = self._post(job.request.tenant, f"/v1/jobs/{job.id}/{action}")
            return answer is not None and not pending.record(answer).is_server_error

    def read(self, job: AcceptedJob) -> None:
        """Read a job, once."""
        with self.recorder.reading(job.id) as pending:
            answer = self._ask(job.request.tenant, "GET", f"/v1/jobs/{job.id}")
            if answer is not None:
                pending.record(answer)

    def _submitting(self, request: JobRequest) -> AbstractContextManager[PendingOperation]:
        content = request.content()
        sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        source = Source(str(self._media / request.path), sha1, len(content))
        return self.recorder.submitting(
            request.document, source, tenant=request.tenant, idempotency_key=request.idempotency_key
        )

    def _post(self, tenant: str, path: str, **fields: Any) -> httpx.Response | None:
        return self._ask(tenant, "POST", path, **fields)

    def _ask(self, tenant: str, method: str, path: str, **fields: Any) -> httpx.Response | None:
        try:
            return self._chance.choice(self._clients[tenant]).request(method, path, **fields)
        except httpx.HTTPError:
            return None

    def _until_answered(self, ask: Callable[[], httpx.Response | None]) -> httpx.Response | None:
        while True:
            answer = ask()
            if answer is not None and not answer.is_server_error:
                return answer
            if self._over.wait(_RETRY_DELAY_S):
                return None

    def close(self) -> None:
        """Close all connections and the history."""
        self.recorder.close()
        for clients in self._clients.values():
            for client in clients:
                client.close()


def _results(answer: httpx.Response | None) -> list[Row]:
    return [] if answer is None or not answer.is_success else list(answer.json()["results"])
