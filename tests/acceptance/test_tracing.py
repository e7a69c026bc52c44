"""OpenTelemetry, set up as docs/operating.md says: what a job's tasks do belongs to the trace that enqueued it."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api import api_client, api_process, create_api_key
from tests.support.environ import importing
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.manual import snippet
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.installation import Installation

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
#: Stands in for the exporter that needs a collector: a line of JSON for each span, in a file of the test.
EXPORTER = """
import os
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FILE = os.path.join(os.path.dirname(__file__), "spans.jsonl")


class OTLPSpanExporter(SpanExporter):
    def export(self, spans):
        with open(FILE, "a") as file:
            file.write("".join(f"{span.to_json(indent=None)}\\n" for span in spans))
        return SpanExportResult.SUCCESS
"""


class Spans:
    """The spans that the processes of a test have ended."""

    def __init__(self, folder: Path, until: Callable[[Callable[[], object], str], None]) -> None:
        self._until = until
        self._file = folder / "spans.jsonl"
        self._file.touch()
        (folder / "span_lines.py").write_text(EXPORTER)
        code = snippet("ops_tracing.py").replace("opentelemetry.exporter.otlp.proto.http.trace_exporter", "span_lines")
        (folder / "ops_tracing.py").write_text(code.replace("BatchSpanProcessor", "SimpleSpanProcessor"))
        self.settings = importing("ops_tracing", folder)

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines() if line.endswith("}")]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.all() if span["name"] == name]

    def wait(self, **counts: int) -> None:
        """Wait until so many tasks of each name have ended: a task's span ends after what others see of the task."""
        wanted = {f"run/sliceway.{name}": count for name, count in counts.items()}
        self._until(lambda: all(len(self.named(name)) >= wanted[name] for name in wanted), f"the spans {wanted}")

    def of_trace(self, trace: str) -> Counter[str]:
        return Counter(span["name"] for span in self.all() if trace_of(span) == trace)


@pytest.fixture
def spans(site: Installation, tmp_path: Path) -> Spans:
    made = Spans(tmp_path, site.until)
    site.workers(2, **made.settings)
    return made


def trace_of(span: dict[str, Any]) -> str:
    return str(span["context"]["trace_id"]).removeprefix("0x")


def parent_of(span: dict[str, Any]) -> str | None:
    return span["parent_id"] and str(span["parent_id"]).removeprefix("0x")


def id_of(span: dict[str, Any]) -> str:
    return str(span["context"]["span_id"]).removeprefix("0x")


@pytest.mark.parametrize("parts", ["auto", "stock"])
def test_every_task_of_an_upload_is_a_span_of_the_trace_that_enqueued_it(
    site: Installation, spans: Spans, parts: str
) -> None:
    if parts == "stock":
        site.workers(2, **spans.settings, SLICEWAY_CELERY=parts)
    job = site.enqueue(2 * MIB, traceparent=TRACEPARENT)
    other = site.enqueue(2 * MIB)
    job.succeeds()
    other.succeeds()
    spans.wait(init=2, slice=8, finish=2)
    ran = {"run/sliceway.init": 1, "run/sliceway.slice": 4, "run/sliceway.finish": 1}
    published = {name.replace("run", "apply_async"): count for name, count in ran.items()}
    assert spans.of_trace(TRACE) == ran | published
    by_id = {id_of(span): span for span in spans.all()}
    for span in spans.all():
        if trace_of(span) == TRACE and span["name"].startswith("apply_async/"):
            assert parent_of(span) == PARENT
        elif span["name"].startswith("run/"):
            parent = by_id[str(parent_of(span))]
            assert (parent["name"], trace_of(parent)) == (span["name"].replace("run", "apply_async"), trace_of(span))
    assert all(span["status"]["status_code"] != "ERROR" for span in spans.all())
    assert {name: count for name, count in Counter(span["name"] for span in spans.all()).items() if "run" in name} == {
        name: 2 * count for name, count in ran.items()
    }


def test_the_tasks_are_below_the_span_of_the_api_where_it_is_traced(
    site: Installation, spans: Spans, tmp_path: Path
) -> None:
    key = site.fresh_key()
    content = site.file(key, 1000)
    site.file(f"{key}-2", 1000)
    with (
        api_process(site.environ | spans.settings, tmp_path / "api.log") as url,
        closing(api_client(url, create_api_key(site.database.url))) as client,
    ):
        headers = {"traceparent": TRACEPARENT}
        answer = client.post("/v1/jobs", json=JobSpec(key, key).document, headers=headers).raise_for_status()
        batch = {"jobs": [JobSpec(f"{key}-2", f"{key}-2").document]}
        [item] = client.post("/v1/jobs/batch", json=batch).raise_for_status().json()["results"]
        site.note(Job(site, answer.json()["id"], key, content, site.media / key)).succeeds()
        second = Job(site, item["job"]["id"], f"{key}-2", (site.media / f"{key}-2").read_bytes(), site.media / key)
        site.note(second).succeeds()
        spans.wait(init=2)
        site.until(lambda: spans.named("POST /v1/jobs/batch") and spans.named("POST /v1/jobs"), "the API's spans")
    [server], [of_batch] = spans.named("POST /v1/jobs"), spans.named("POST /v1/jobs/batch")
    assert (trace_of(server), parent_of(server)) == (TRACE, PARENT)
    assert parent_of(of_batch) is None
    published = {parent_of(span): trace_of(span) for span in spans.named("apply_async/sliceway.init")}
    assert published == {id_of(server): TRACE, id_of(of_batch): trace_of(of_batch)}
    assert {trace_of(span) for span in spans.named("run/sliceway.init")} == {TRACE, trace_of(of_batch)}


def test_a_final_failure_is_an_error_and_a_retry_is_none(site: Installation, spans: Spans) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, count=1, status=503, code=-196)
    site.enqueue(2 * MIB, key, traceparent=TRACEPARENT).succeeds()
    missing = site.submit(JobSpec("nowhere", "nowhere", {"traceparent": TRACEPARENT}), b"")
    assert missing.fails() == "source_gone"
    spans.wait(init=2, slice=5, finish=1)
    [failed] = [span for span in spans.all() if span["status"]["status_code"] == "ERROR"]
    assert (failed["name"], trace_of(failed)) == ("run/sliceway.init", TRACE)
    assert "nowhere" in failed["status"]["description"]
    [event] = failed["events"]
    assert event["attributes"]["exception.type"].endswith("SourceGone")
    retried = [span for span in spans.all() if "celery.retry.reason" in span["attributes"]]
    assert [span["name"] for span in retried] == ["run/sliceway.slice"]


def test_a_malformed_traceparent_begins_a_trace_of_its_own(site: Installation, spans: Spans) -> None:
    job = site.enqueue(1000, traceparent=f"00-{TRACE}-{PARENT}-01-more")
    job.succeeds()
    spans.wait(init=1)
    assert spans.of_trace(TRACE) == Counter()
    [published], [ran] = spans.named("apply_async/sliceway.init"), spans.named("run/sliceway.init")
    assert (parent_of(published), parent_of(ran)) == (None, id_of(published))


def test_a_trace_that_is_not_sampled_has_no_spans(site: Installation, spans: Spans) -> None:
    site.enqueue(1000, traceparent=f"00-{TRACE}-{PARENT}-00").succeeds()
    site.enqueue(1000).succeeds()
    spans.wait(init=1)
    assert spans.of_trace(TRACE) == Counter()


def test_tasks_continue_the_trace_that_an_operators_retry_finds(site: Installation, spans: Spans) -> None:
    job = site.submit(JobSpec("later", "later", {"traceparent": TRACEPARENT}), b"")
    assert job.fails() == "source_gone"
    job.content = site.file("later", 1000)
    job.act("retry")
    job.succeeds()
    spans.wait(init=2)
    assert spans.of_trace(TRACE) == {"run/sliceway.init": 2, "apply_async/sliceway.init": 2}
