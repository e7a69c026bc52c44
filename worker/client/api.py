"""A client of the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

from worker.client.answers import (
    ACCEPTED,
    AUDIT_PAGE,
    BULK,
    BULK_COUNT,
    BULK_PAGE,
    CHECKED,
    COUNTS,
    EVENTS,
    HOLD_CHANGED,
    HOLDS,
    JOB,
    JOB_WHY,
    LIMIT_CHANGED,
    LIMITS,
    PAGE,
    QUEUE_WHY,
    SLICES,
    read,
)
from worker.client.environment import Unreachable
from worker.client.proxy import proxy_for
from worker.config.credentials import hide_environment
from worker.config.variables import given
from worker.errors import SettingsError
from worker.http.proxy import for_httpx
from worker.jobs.filters import LABEL
from worker.telemetry.redact import redact
from worker.urls import Endpoint, UrlError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from worker.jobs.filters import Filter

_TIMEOUT_S = 30.0
_MAX_PAGE = 500
_BULK = "/v1/jobs/actions"


@dataclass(frozen=True, slots=True)
class Listed:
    """Some of the items of a list.

    Attributes:
        items: the API's documents of the items.
        next_cursor: where the list continues; None at its end.
        page: the last page, with all its members.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None
    page: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests to the API with one key. A context manager.

    Each request raises:
        Unreachable: no answer came.
        NotTheApi: another server answered.
        RefusedByApi: the API refused the request.
    """

    http: httpx.Client

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return a client with the URL, the key and the proxy that the environment names.

        Raises:
            SettingsError: the key is not set, or one of the three is wrong.
        """
        hide_environment(environ)
        variables = given(environ)
        if not (key := variables.get("SLICEWAY_API_KEY")):
            raise SettingsError(
                "SLICEWAY_API_KEY is not set",
                advice="Set it to a key from `sliceway keys create`; or start everything here with `sliceway up`.",
            )
        if not (key.isascii() and key.isprintable()):
            raise SettingsError("SLICEWAY_API_KEY is wrong: it has characters that no key has")
        try:
            url = Endpoint.of(variables.get("SLICEWAY_API_URL") or "http://127.0.0.1:8080")
        except UrlError as error:
            raise SettingsError(f"SLICEWAY_API_URL is wrong: {error}") from None
        return cls(
            httpx.Client(
                base_url=str(url),
                headers={"Authorization": f"Bearer {key}"},
                timeout=_TIMEOUT_S,
                trust_env=False,  # `proxy_for` reads the proxy variables: httpx reads them differently
                proxy=for_httpx(proxy_for(url, environ)),
                verify=httpx.create_ssl_context(),
            )
        )

    def enqueue(self, job_spec: Mapping[str, Any], idempotency_key: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Enqueue a job. A repeated request with the same key returns the same job. ``dry_run`` only checks it."""
        headers, params = {"Idempotency-Key": idempotency_key}, {"dry_run": dry_run}
        shape = CHECKED if dry_run else ACCEPTED
        return self._send("POST", "/v1/jobs", shape, json=job_spec, headers=headers, params=params)

    def job(self, job_id: str, *, wait_s: int = 0) -> dict[str, Any]:
        """Return a job when it has ended or ``wait_s`` is over."""
        return self._send("GET", f"/v1/jobs/{job_id}", JOB, params={"wait": f"{wait_s}s"}, timeout=_TIMEOUT_S + wait_s)

    def jobs(self, which: Filter, limit: int, cursor: str | None = None, *, order: str = "newest") -> Listed:
        """Return at most ``limit`` jobs that match, from the cursor on."""
        query = _parameters(which) + ([] if order == "newest" else [("order", order)])  # 0.1 has no order
        return self._list("/v1/jobs", PAGE, query, limit, cursor)

    def counts(self, which: Filter, group_by: str, *, exact: bool) -> dict[str, Any]:
        """Return how many jobs match, in groups."""
        query = [*_parameters(which), ("group_by", group_by), ("exact", str(exact).lower())]
        return self._send("GET", "/v1/jobs/counts", COUNTS, params=query)

    def events(self, job_id: str, limit: int, cursor: str | None = None) -> Listed:
        """Return at most ``limit`` events of a job, oldest first."""
        return self._list(f"/v1/jobs/{job_id}/events", EVENTS, [], limit, cursor)

    def slices(self, job_id: str, limit: int, cursor: str | None = None) -> Listed:
        """Return at most ``limit`` slices of a job, by number."""
        return self._list(f"/v1/jobs/{job_id}/slices", SLICES, [], limit, cursor)

    def audit(self, limit: int, cursor: str | None = None) -> Listed:
        """Return at most ``limit`` entries of the audit, newest first, from the cursor on."""
        return self._list("/v1/audit", AUDIT_PAGE, [], limit, cursor)

    def _list(
        self, path: str, shape: Mapping[str, Any], query: list[tuple[str, str]], limit: int, cursor: str | None
    ) -> Listed:
        items: list[dict[str, Any]] = []
        while True:
            wanted = [*query, ("limit", str(min(limit - len(items), _MAX_PAGE)))]
            page = self._send("GET", path, shape, params=wanted + ([("cursor", cursor)] if cursor else []))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or not page["items"] or len(items) >= limit:
                return Listed(items, cursor, page)

    def job_why(self, job_id: str) -> dict[str, Any]:
        """Return why a job waits."""
        return self._send("GET", f"/v1/jobs/{job_id}/why", JOB_WHY)

    def queue_why(self) -> dict[str, Any]:
        """Return what all jobs that wait are waiting for."""
        return self._send("GET", "/v1/why", QUEUE_WHY)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; returns its state."""
        return self.act(f"/v1/jobs/{job_id}/cancel", {}, {})

    def act(self, path: str, query: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out an action on a job; returns its state. An empty body is not sent: an API of 0.1 takes none."""
        return self._send("POST", path, ACCEPTED, params=query, json=body or None)

    def count_for(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return how many jobs an action would be done to, and some of them."""
        return self._send("POST", _BULK, BULK_COUNT, json={**body, "dry_run": True})

    def act_on_all(self, body: Mapping[str, Any], confirm: int) -> dict[str, Any]:
        """Have an action done to all jobs of a filter. Not to be repeated where the answer is lost."""
        return self._send("POST", _BULK, BULK, json={**body, "confirm": confirm})

    def bulk_actions(self, limit: int, cursor: str | None = None) -> Listed:
        """Return at most ``limit`` actions on all jobs of a filter, newest first."""
        return self._list(_BULK, BULK_PAGE, [], limit, cursor)

    def bulk_action(self, action_id: str) -> dict[str, Any]:
        """Return one of them."""
        return self._send("GET", f"{_BULK}/{action_id}", BULK)

    def stop_bulk_action(self, action_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have no more jobs taken."""
        return self._send("POST", f"{_BULK}/{action_id}/stop", BULK, json=body or None)

    def hold(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Hold or release a store, a tenant or the queue; returns what is held now."""
        return self._send("POST", path, HOLD_CHANGED, json=body or None)

    def holds(self) -> list[dict[str, Any]]:
        """Return what is held."""
        items: list[dict[str, Any]] = self._send("GET", "/v1/holds", HOLDS)["items"]
        return items

    def limit(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set or remove the limit of a store or a tenant; returns what it is now."""
        return self._send("PUT", path, LIMIT_CHANGED, json=body)

    def limits(self) -> list[dict[str, Any]]:
        """Return the limits that operators have set."""
        items: list[dict[str, Any]] = self._send("GET", "/v1/limits", LIMITS)["items"]
        return items

    def _send(self, method: str, path: str, shape: Mapping[str, Any], **request: Any) -> dict[str, Any]:
        try:
            answer = self.http.request(method, path, **request)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"the API at {self.http.base_url} cannot be reached: {redact(str(error)) or type(error).__name__}",
                advice="Start it (`sliceway up` starts everything here), or correct SLICEWAY_API_URL.",
            ) from error
        return read(answer, shape, str(self.http.base_url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()


def _parameters(which: Filter) -> list[tuple[str, str]]:
    """Return the filter's parameters, labels as release 0.1 takes them, too, where their names allow it."""
    return [
        ("label", f"{name.removeprefix(LABEL)}:{value}")
        if name.startswith(LABEL) and "=" not in name
        else (name, value)
        for name, value in which.pairs()
    ]
