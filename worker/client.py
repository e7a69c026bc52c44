"""A client of the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

from worker.credentials import hide_environment
from worker.errors import SettingsError, SlicewayError
from worker.surroundings import Unreachable
from worker.urls import Endpoint, UrlError
from worker.variables import given

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_TIMEOUT_S = 30.0
_FINAL = frozenset({"succeeded", "failed", "cancelled"})


class RefusedByApi(SlicewayError):
    """The API has refused a request, and said why."""


@dataclass(frozen=True, slots=True)
class Client:
    """Talks to the API with one key. A context manager."""

    http: httpx.Client

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return a client for what the environment names.

        Raises:
            SettingsError: it names no key, or the URL is wrong.
        """
        hide_environment(environ)
        variables = given(environ)
        if not (key := variables.get("SLICEWAY_API_KEY")):
            raise SettingsError(
                "SLICEWAY_API_KEY is not set",
                advice="Set it to a key from `sliceway keys create`; or start everything here with `sliceway up`.",
            )
        try:
            url = Endpoint.of(variables.get("SLICEWAY_API_URL") or "http://127.0.0.1:8080")
        except UrlError as error:
            raise SettingsError(f"SLICEWAY_API_URL is wrong: {error}") from None
        headers = {"Authorization": f"Bearer {key}"}
        return cls(httpx.Client(base_url=str(url), headers=headers, timeout=_TIMEOUT_S))

    def enqueue(self, wish: Mapping[str, Any], idempotency_key: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Enqueue a job; sent again with the same key it is the same job. ``dry_run`` only checks that it could be."""
        headers, params = {"Idempotency-Key": idempotency_key}, {"dry_run": dry_run}
        return self._ask("POST", "/v1/jobs", json=wish, headers=headers, params=params)

    def job(self, job_id: str, *, wait_s: int = 0) -> dict[str, Any]:
        """Return a job as it is, or once it has ended or the time is over."""
        return self._ask("GET", f"/v1/jobs/{job_id}", params={"wait": f"{wait_s}s"}, timeout=_TIMEOUT_S + wait_s)

    def jobs(self, filters: Mapping[str, Any], most: int) -> Iterator[dict[str, Any]]:
        """Yield jobs that match, newest first, page by page."""
        cursor: str | None = None
        while most > 0:
            query = {name: value for name, value in filters.items() if value} | {"limit": min(most, 500)}
            page = self._ask("GET", "/v1/jobs", params=query | ({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            most -= len(page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def retry(self, job_id: str, *, force: bool) -> dict[str, Any]:
        """Put a job back to work; returns its state."""
        return self._ask("POST", f"/v1/jobs/{job_id}/retry", params={"force": force})

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; returns its state."""
        return self._ask("POST", f"/v1/jobs/{job_id}/cancel")

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            Unreachable: none came.
            RefusedByApi: it was a refusal.
        """
        try:
            answer = self.http.request(method, path, **request)
            document: dict[str, Any] = answer.json()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"the API at {self.http.base_url} cannot be reached: {error}",
                advice="Start it (`sliceway up` starts everything here), or correct SLICEWAY_API_URL.",
            ) from error
        except ValueError as error:
            raise Unreachable(
                f"what answers at {self.http.base_url} is not the API", advice="Correct SLICEWAY_API_URL."
            ) from error
        if answer.is_success:
            return document
        raise RefusedByApi(document["detail"], code=document["code"], advice=document["advice"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()


def is_final(view: Mapping[str, Any]) -> bool:
    """Say whether a job has ended."""
    return view["state"] in _FINAL
