"""The OpenAPI document is true: every request gets a response that it describes, and none makes the server fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.problems import Problem
from api.views.actions import JobMoved
from api.views.events import EventList
from api.views.jobs import BatchAnswer, JobAccepted, JobChecked, JobList, JobView
from api.views.slices import SliceList
from tests.integration.api.job_requests import job_body

if TYPE_CHECKING:
    import httpx

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = {
    "source": st.fixed_dictionaries(
        {"kind": st.sampled_from(["file", "url"]), "root": st.just("media"), "path": st.text()}
    ),
    "store": st.sampled_from(["main", "same-bucket", "others"]),
    "key": st.text(min_size=1, max_size=20),
    "overwrite": st.booleans(),
    "slice_size": st.sampled_from([None, 0, 1048576]) | st.integers(),
    "verify": st.sampled_from(["auto", "size", "slice", "file"]),
    "priority": st.integers(-1, 10),
    "attributes": st.none() | st.text(),
    "labels": st.dictionaries(st.text(), st.text(), max_size=3),
    "retry_for": st.from_regex(r"[0-9]{1,7}[smhd]", fullmatch=True),
    "callback_url": st.none() | st.text(),
}
_NEEDED = ("source", "store", "key")
NEARLY_JOBS = st.fixed_dictionaries(
    {name: FIELDS[name] for name in _NEEDED},
    optional={name: strategy | JSON for name, strategy in FIELDS.items() if name not in _NEEDED},
)
QUERY = st.dictionaries(
    st.sampled_from(
        ["state", "store", "key_prefix", "label", "error_code", "created_from", "tenant", "cursor", "limit"]
    ),
    st.sampled_from(["queued", "a:b", "1", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "acme"]) | st.text(),
    max_size=3,
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(answer: httpx.Response, *good: Any) -> None:
    """Check that the answer is one of these documents, or a problem below 500."""
    if answer.status_code >= 400:
        assert answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert Problem.model_validate_json(answer.content).status == answer.status_code
    else:
        assert any(_is(model, answer.content) for model in good), answer.text


def _is(model: Any, content: bytes) -> bool:
    try:
        model.model_validate_json(content)
    except ValueError:
        return False
    return True


@FUZZ
@given(body=NEARLY_JOBS | JSON, dry_run=st.booleans())
def test_every_enqueue_is_accepted_or_refused(acme: httpx.Client, body: Any, dry_run: bool) -> None:
    check(acme.post("/v1/jobs", json=body, params={"dry_run": dry_run}), JobAccepted, JobChecked)


@FUZZ
@given(items=st.lists(NEARLY_JOBS | JSON, max_size=5))
def test_every_item_of_a_batch_gets_a_result(acme: httpx.Client, items: list[Any]) -> None:
    answer = acme.post("/v1/jobs/batch", json={"jobs": items})
    check(answer, BatchAnswer)
    if items:
        assert len(answer.json()["results"]) == len(items)


@FUZZ
@given(query=QUERY)
def test_every_query_is_answered_or_refused(acme: httpx.Client, query: dict[str, str]) -> None:
    check(acme.get("/v1/jobs", params=query), JobList)


def test_every_route_is_described_with_its_refusals(api: Any) -> None:
    document = api.bare().get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for route in methods.values():
            for status, response in route["responses"].items():
                [(kind, content)] = response["content"].items()
                assert kind == ("application/json" if status < "400" else "application/problem+json"), path
                assert content["schema"]["$ref"].rpartition("/")[2] in schemas
            if path.startswith("/v1/"):
                assert route["security"] == [{"key": []}]
                assert {"401", "403", "422", "503"} <= set(route["responses"]), path
    assert "HTTPValidationError" not in schemas


def test_every_view_is_as_described(acme: httpx.Client) -> None:
    job = JobAccepted.model_validate_json(acme.post("/v1/jobs", json=job_body()).content)
    check(acme.get(job.urls.self), JobView)
    check(acme.get(job.urls.slices), SliceList)
    check(acme.get(job.urls.events), EventList)
    check(acme.post(job.urls.cancel), JobMoved)
    check(acme.post(job.urls.retry), JobMoved)
    check(acme.get("/v1/jobs"), JobList)
