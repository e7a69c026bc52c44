"""A client of the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

from worker.client.answers import ACCEPTED, CHECKED, JOB, PAGE, NotTheApi, RefusedByApi, read
from worker.client.environment import Unreachable
from worker.client.proxy import proxy_for
from worker.config.credentials import hide_environment
from worker.config.variables import given
from worker.errors import SettingsError
from worker.http.proxy import for_httpx
from worker.telemetry.redact import redact
from worker.urls import Endpoint, UrlError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["Client", "Jobs", "NotTheApi", "RefusedByApi", "is_final"]
_TIMEOUT_S = 30.0
_PAGE_MOST = 500
_FINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs that match, newest first.

    Attributes:
        items: as the API shows them.
        next_cursor: leads to those that follow; None where these were all.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Client:
    """Talks to the API with one key. A context manager.

    Each request raises:
        Unreachable: no answer came.
        NotTheApi: what answers is something else.
        RefusedByApi: the answer was a refusal.
    """

    http: httpx.Client

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return a client for what the environment names.

        Raises:
            SettingsError: it names no key, or the URL, the key or the proxy is wrong.
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
                trust_env=False,  # its ways with proxies are not ours
                proxy=for_httpx(proxy_for(url, environ)),
                verify=httpx.create_ssl_context(),
            )
        )

    def enqueue(self, wish: Mapping[str, Any], idempotency_key: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Enqueue a job; sent again with the same key it is the same job. ``dry_run`` only checks that it could be."""
        headers, params = {"Idempotency-Key": idempotency_key}, {"dry_run": dry_run}
        shape = CHECKED if dry_run else ACCEPTED
        return self._ask("POST", "/v1/jobs", shape, json=wish, headers=headers, params=params)

    def job(self, job_id: str, *, wait_s: int = 0) -> dict[str, Any]:
        """Return a job as it is, or once it has ended or the time is over."""
        return self._ask("GET", f"/v1/jobs/{job_id}", JOB, params={"wait": f"{wait_s}s"}, timeout=_TIMEOUT_S + wait_s)

    def jobs(self, filters: Mapping[str, Any], most: int, cursor: str | None = None) -> Jobs:
        """Return jobs that match, newest first, at most so many, from the cursor on."""
        wanted = {name: value for name, value in filters.items() if value}
        items: list[dict[str, Any]] = []
        while True:
            query = wanted | {"limit": min(most - len(items), _PAGE_MOST)} | ({"cursor": cursor} if cursor else {})
            page = self._ask("GET", "/v1/jobs", PAGE, params=query)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or not page["items"] or len(items) >= most:
                return Jobs(items, cursor)

    def retry(self, job_id: str, *, force: bool) -> dict[str, Any]:
        """Put a job back to work; returns its state."""
        return self._ask("POST", f"/v1/jobs/{job_id}/retry", ACCEPTED, params={"force": force})

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; returns its state."""
        return self._ask("POST", f"/v1/jobs/{job_id}/cancel", ACCEPTED)

    def _ask(self, method: str, path: str, shape: Mapping[str, Any], **request: Any) -> dict[str, Any]:
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


def is_final(view: Mapping[str, Any]) -> bool:
    """Say whether a job has ended."""
    return view["state"] in _FINAL
