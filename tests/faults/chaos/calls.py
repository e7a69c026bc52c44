"""Requests to API processes that may die at any moment: recorded, and sent again under the same key until told."""

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
    from tests.faults.chaos.errands import Errand
    from tests.faults.chaos.told import Kept
    from tests.faults.history import Asked

Row = dict[str, Any]
_AGAIN_S = 0.15


class Caller:
    """One client's way to the API processes: any of them will do. For one thread."""

    def __init__(self, name: str, cluster: Cluster, over: threading.Event) -> None:
        """Connect to nothing yet.

        Args:
            name: of the client in the history.
            cluster: whose API.
            over: set when nobody is to be asked any more.
        """
        self._chance, self._over = random.Random(name), over
        self.recorder = Recorder(cluster.history, name)
        self._media = cluster.media
        self._doors = {tenant: [cluster.api(url, tenant) for url in cluster.api_urls] for tenant in cluster.keys}

    def submit(self, errand: Errand) -> httpx.Response | None:
        """Ask for one upload until there is an answer; None if it was all over before."""
        headers = {"Idempotency-Key": errand.idempotency_key}

        def ask() -> httpx.Response | None:
            with self._submitting(errand) as asked:
                answer = self._post(errand.tenant, "/v1/jobs", json=errand.document, headers=headers)
                return None if answer is None else asked.heard(answer)

        return self._until_told(ask)

    def submit_batch(self, order: list[Errand]) -> list[Row] | None:
        """Ask for several uploads of one tenant at once, in the same way; returns a result each."""
        items = [{**errand.document, "idempotency_key": errand.idempotency_key} for errand in order]

        def ask() -> httpx.Response | None:
            with ExitStack() as stack:
                asked = [stack.enter_context(self._submitting(errand)) for errand in order]
                answer = self._post(order[0].tenant, "/v1/jobs/batch", json={"jobs": items})
                for each, result in zip(asked, _results(answer), strict=False):
                    each.told(result["status"], job=result.get("job", {}).get("id"))
                return answer

        answer = self._until_told(ask)
        return None if answer is None else _results(answer)

    def act(self, kept: Kept, action: str) -> bool:
        """Cancel or retry a job, once; says whether there was an answer."""
        asking = self.recorder.cancelling if action == "cancel" else self.recorder.retrying
        with asking(kept.job) as asked:
            answer = self._post(kept.errand.tenant, f"/v1/jobs/{kept.job}/{action}")
            return answer is not None and not asked.heard(answer).is_server_error

    def read(self, kept: Kept) -> None:
        """Ask where a job stands, once."""
        with self.recorder.reading(kept.job) as asked:
            answer = self._ask(kept.errand.tenant, "GET", f"/v1/jobs/{kept.job}")
            if answer is not None:
                asked.heard(answer)

    def _submitting(self, errand: Errand) -> AbstractContextManager[Asked]:
        content = errand.content()
        sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        source = Source(str(self._media / errand.path), sha1, len(content))
        return self.recorder.submitting(
            errand.document, source, tenant=errand.tenant, idempotency_key=errand.idempotency_key
        )

    def _post(self, tenant: str, path: str, **request: Any) -> httpx.Response | None:
        return self._ask(tenant, "POST", path, **request)

    def _ask(self, tenant: str, method: str, path: str, **request: Any) -> httpx.Response | None:
        try:
            return self._chance.choice(self._doors[tenant]).request(method, path, **request)
        except httpx.HTTPError:
            return None

    def _until_told(self, ask: Callable[[], httpx.Response | None]) -> httpx.Response | None:
        while True:
            answer = ask()
            if answer is not None and not answer.is_server_error:
                return answer
            if self._over.wait(_AGAIN_S):
                return None

    def close(self) -> None:
        """Hang up."""
        self.recorder.close()
        for doors in self._doors.values():
            for door in doors:
                door.close()


def _results(answer: httpx.Response | None) -> list[Row]:
    return [] if answer is None or not answer.is_success else list(answer.json()["results"])
