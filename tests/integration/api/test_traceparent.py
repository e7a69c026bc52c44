"""The trace of a request is kept with its job, and nothing else depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.job_requests import job_body

if TYPE_CHECKING:
    import httpx


def traceparent(number: int, *, version: str = "00") -> str:
    return f"{version}-{number:032x}-{number:016x}-01"


MALFORMED = [
    "",
    "1",
    traceparent(0),
    traceparent(7, version="ff"),
    traceparent(0xA).upper(),
    traceparent(7) + "-x",
    "é",
]


def kept(api: Any) -> dict[str, str | None]:
    return {row["key"]: row["traceparent"] for row in api.sql("SELECT key, traceparent FROM job")}


def test_the_header_and_the_field_are_kept_and_the_field_goes_first(api: Any, acme: httpx.Client) -> None:
    header = {"traceparent": traceparent(1)}
    for document, headers in [
        (job_body("none"), {}),
        (job_body("null", traceparent=None), {}),
        (job_body("header"), header),
        (job_body("field", traceparent=traceparent(2)), {}),
        (job_body("both", traceparent=traceparent(2)), header),
        (job_body("malformed", traceparent="malformed"), header),
        (job_body("later", traceparent=traceparent(3, version="cc") + "-more"), {}),
    ]:
        assert acme.post("/v1/jobs", json=document, headers=headers).status_code == 202
    assert kept(api) == {
        "none": None, "null": None, "header": traceparent(1), "field": traceparent(2), "both": traceparent(2),
        "malformed": traceparent(1), "later": traceparent(3),
    }  # fmt: skip


def test_the_header_of_a_batch_is_for_the_items_without_the_field(api: Any, acme: httpx.Client) -> None:
    fields = {"bare": {}, "named": {"traceparent": traceparent(2)}, "malformed": {"traceparent": "00-1-1-01"}}
    jobs = [job_body(key, **more) for key, more in fields.items()]
    answer = acme.post("/v1/jobs/batch", json={"jobs": jobs}, headers={"traceparent": traceparent(1)})
    assert [result["status"] for result in answer.json()["results"]] == [202, 202, 202]
    assert kept(api) == {"bare": traceparent(1), "named": traceparent(2), "malformed": traceparent(1)}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_one_is_no_error_and_not_kept(api: Any, acme: httpx.Client, text: str) -> None:
    headers = {"traceparent": text.encode()}
    assert acme.post("/v1/jobs", json=job_body("header"), headers=headers).status_code == 202
    assert acme.post("/v1/jobs", json=job_body("field", traceparent=text)).status_code == 202
    batch = {"jobs": [job_body("item", traceparent=text)]}
    assert acme.post("/v1/jobs/batch", json=batch, headers=headers).json()["results"][0]["status"] == 202
    assert kept(api) == {"header": None, "field": None, "item": None}


def test_two_headers_name_no_trace(api: Any, acme: httpx.Client) -> None:
    headers = [("traceparent", traceparent(1)), ("traceparent", traceparent(2))]
    assert acme.post("/v1/jobs", json=job_body("a"), headers=headers).status_code == 202
    assert kept(api) == {"a": None}


def test_a_repeated_request_in_another_trace_is_the_same_job(api: Any, acme: httpx.Client) -> None:
    answers = [
        acme.post("/v1/jobs", json=job_body("a", **field), headers={"Idempotency-Key": "order-17"} | header)
        for field, header in [
            ({}, {"traceparent": traceparent(1)}),
            ({}, {"traceparent": traceparent(2)}),
            ({"traceparent": traceparent(3)}, {}),
            ({}, {}),
        ]
    ]
    assert [(answer.status_code, answer.headers.get("Idempotent-Replayed")) for answer in answers] == [
        (202, None), (202, "true"), (202, "true"), (202, "true"),
    ]  # fmt: skip
    assert kept(api) == {"a": traceparent(1)}


def test_a_dry_run_takes_it_and_keeps_nothing(api: Any, acme: httpx.Client) -> None:
    answer = acme.post("/v1/jobs?dry_run=true", json=job_body("a"), headers={"traceparent": traceparent(1)})
    assert answer.status_code == 200
    assert kept(api) == {}


def test_the_retry_of_an_operator_keeps_it(api: Any, acme: httpx.Client) -> None:
    job = acme.post("/v1/jobs", json=job_body("a"), headers={"traceparent": traceparent(1)}).json()["id"]
    api.move(job, "failed")
    assert acme.post(f"/v1/jobs/{job}/retry").status_code == 200
    assert kept(api) == {"a": traceparent(1)}
