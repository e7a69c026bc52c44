"""`traceparent` is read as W3C Trace Context says; OpenTelemetry is used where it is loaded, and only there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from worker.telemetry.tracing import current_traceparent, parsed_traceparent, under

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
MALFORMED = {
    "empty": "",
    "a part less": f"00-{TRACE}-{SPAN}",
    "no version": f"{TRACE}-{SPAN}-01",
    "version ff": f"ff-{TRACE}-{SPAN}-01",
    "a version of one digit": f"0-{TRACE}-{SPAN}-01",
    "a version of three digits": f"000-{TRACE}-{SPAN}-01",
    "capitals in the version": f"CC-{TRACE}-{SPAN}-01",
    "capitals in the trace": f"00-{TRACE.upper()}-{SPAN}-01",
    "capitals in the span": f"00-{TRACE}-{SPAN.upper()}-01",
    "capitals in the flags": f"00-{TRACE}-{SPAN}-0A",
    "no hexadecimal digit": f"00-{TRACE[:-1]}g-{SPAN}-01",
    "a digit of another script": f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
    "a short trace": f"00-{TRACE[1:]}-{SPAN}-01",
    "a long trace": f"00-{TRACE}0-{SPAN}-01",
    "a short span": f"00-{TRACE}-{SPAN[1:]}-01",
    "a long span": f"00-{TRACE}-{SPAN}0-01",
    "flags of one digit": f"00-{TRACE}-{SPAN}-1",
    "flags of three digits": f"00-{TRACE}-{SPAN}-001",
    "a trace of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a span of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "underscores": GOOD.replace("-", "_"),
    "more behind version 00": f"{GOOD}-more",
    "a dash behind version 00": f"{GOOD}-",
    "more behind a later version, without a dash": f"cc-{TRACE}-{SPAN}-01.more",
    "two of them": f"{GOOD},{GOOD}",
    "a line break behind it": f"{GOOD}\n",
    "a NUL behind it": f"{GOOD}\x00",
    "a comma before it": f",{GOOD}",
}


@pytest.mark.parametrize("flags", ["00", "01", "02", "ff"])
def test_version_00_stays_as_it_is(flags: str) -> None:
    given = f"00-{TRACE}-{SPAN}-{flags}"
    assert parsed_traceparent(given) == given
    assert parsed_traceparent(f" \t{given} ") == given


@pytest.mark.parametrize(("flags", "known"), [("00", "00"), ("01", "01"), ("ff", "01"), ("fe", "00")])
@pytest.mark.parametrize("more", ["", "-", "-what-the-future-brings", "-\n"])
def test_a_later_version_is_read_by_its_first_four_parts(flags: str, known: str, more: str) -> None:
    assert parsed_traceparent(f"cc-{TRACE}-{SPAN}-{flags}{more}") == f"00-{TRACE}-{SPAN}-{known}"


@pytest.mark.parametrize("text", [None, *MALFORMED.values()], ids=["none", *MALFORMED])
def test_a_malformed_one_is_none(text: str | None) -> None:
    assert parsed_traceparent(text) is None


def test_the_active_span_is_named() -> None:
    assert current_traceparent() is None
    with TracerProvider().get_tracer("tests").start_as_current_span("outer") as span:
        context = span.get_span_context()
        named = current_traceparent()
        assert named == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert parsed_traceparent(named) == named
    assert current_traceparent() is None


def test_spans_that_begin_inside_have_the_named_one_as_their_parent() -> None:
    with under(GOOD):
        parent = trace.get_current_span().get_span_context()
        assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.is_remote) == (TRACE, SPAN, True)
        with TracerProvider().get_tracer("tests").start_as_current_span("inner"):
            injected: dict[str, str] = {}
            propagate.inject(injected)
    assert injected["traceparent"].startswith(f"00-{TRACE}-")
    assert injected["traceparent"] != GOOD
    assert current_traceparent() is None


def test_an_error_inside_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), under(GOOD):
        divmod(1, 0)
    assert current_traceparent() is None


def test_without_a_traceparent_the_active_span_stays_the_parent() -> None:
    with under(GOOD), under(None):
        assert current_traceparent() == GOOD


def test_a_process_without_opentelemetry_does_not_import_it() -> None:
    program = f"""
import sys
from worker.telemetry.tracing import current_traceparent, parsed_traceparent, under
with under({GOOD!r}):
    assert current_traceparent() is None
assert parsed_traceparent({GOOD!r}) == {GOOD!r}
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
