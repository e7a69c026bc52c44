"""The query language for jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import Refused
from worker.jobs.durations import duration_s, duration_text
from worker.jobs.filters import AGE_MAX_S, LABELS_MAX, NAMES, Filter, WrongFilter, parse, parse_with_options
from worker.jobs.matching import first_after
from worker.jobs.states import JobState

TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), min_size=1, max_size=30)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))]))
#: What a duration can say: seven digits and a unit.
AGES = st.builds(int.__mul__, st.integers(0, 9_999_999), st.sampled_from([1, 60, 3600, 86_400])).filter(
    lambda seconds: seconds <= AGE_MAX_S
)
FILTERS = st.builds(
    Filter,
    tenant=st.none() | TEXT,
    states=st.lists(st.sampled_from(JobState), unique=True).map(
        lambda chosen: tuple(state for state in JobState if state in chosen)
    ),
    store=st.none() | TEXT,
    key_prefix=st.none() | TEXT,
    labels=st.dictionaries(TEXT, st.just("") | TEXT, max_size=5),
    error_code=st.none() | TEXT,
    created_from=st.none() | MOMENTS,
    created_before=st.none() | MOMENTS,
    newer_than_s=st.none() | AGES,
    older_than_s=st.none() | AGES,
)


@given(which=FILTERS)
def test_a_filter_is_read_back_from_its_own_query(which: Filter) -> None:
    assert parse(which.query()) == which
    assert parse(which.pairs()) == which
    assert parse(which.query()).query() == which.query()


def test_equal_filters_have_one_query() -> None:
    one = parse("store=main&state=queued&state=failed&label=order:17&older_than=60m&since=2026-01-31T14:00:00%2B02:00")
    other = parse("older_than=1h&created_from=2026-01-31T12:00:00Z&label.order=17&state=failed&state=queued&store=main")
    assert one == other
    assert one.query() == (
        "created_from=2026-01-31T12%3A00%3A00Z&label.order=17&older_than=1h&state=failed&state=queued&store=main"
    )
    assert parse("") == Filter()
    assert Filter().query() == ""


def test_a_label_may_have_any_name_and_value() -> None:
    assert parse("label.a%3Db=c%3Dd&label=of:x=y&label=e=").labels == {"a=b": "c=d", "of": "x=y", "e": ""}
    assert parse("label.order=17&label=order:17").labels == {"order": "17"}


def test_since_is_a_time_or_a_duration() -> None:
    assert parse("since=24h").newer_than_s == 86_400
    assert parse("since=2026-01-31T12:00:00Z").created_from == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse("since=24h&created_from=2026-01-31T12:00:00Z").newer_than_s == 86_400


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("stat=failed", "stat: is not known; the nearest is state"),
        ("lable.order=17", "lable.order: is not known; the nearest is label.order"),
        ("label.=17", "label.: is not known; the nearest is label.NAME"),
        ("older=1h", "older: is not known; the nearest is older_than"),
        ("colour=red", "colour: is not known; known are created_before, "),
        ("state=done", "state: must be one of queued, initializing, "),
        ("state=", "state: must be one of"),
        ("store=", "store: must have 1 to 1024 characters"),
        ("store=a&store=b", "store: is given twice"),
        ("store=%00", "store: must have no NUL character"),
        ("label=x", "label: must be NAME=VALUE"),
        ("label=%3Dx", "label: must be NAME=VALUE"),
        ("label.a=1&label=a=2", "label: one name with two values matches nothing"),
        ("older_than=1w", "older_than: must be a number and s, m, h or d, such as '30s' or '24h'"),
        ("older_than=1h&older_than=2h", "older_than: is given twice"),
        ("since=yesterday", "since: must be a duration such as 24h, or a time such as 2026-01-31T12:00:00Z"),
        ("since=2026-01-31", "since: must be"),
        ("since=2026-01-31T12:00:00Z&created_from=2026-01-30T12:00:00Z", "created_from: is given twice"),
        ("created_from=2026-02-30T12:00:00Z", "created_from: must be a date and time with seconds and an offset"),
        ("created_before=2026-01-31T12:00:00", "created_before: must be a date and time"),
        ("limit=5", "limit: is not known"),
        ("&".join(f"label.{n}=1" for n in range(LABELS_MAX + 1)), "label.32: a filter has at most 32 labels"),
        ("&".join(["state=failed"] * 201), "query: has more than 200 parameters"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_parameter(query: str, says: str) -> None:
    with pytest.raises(WrongFilter) as wrong:
        parse(query)
    assert wrong.value.message.startswith(says)
    assert wrong.value.message.isprintable()
    assert isinstance(wrong.value, Refused)
    assert wrong.value.code == ("unknown_field" if "is not known" in says else "invalid")


def test_every_mistake_is_kept() -> None:
    with pytest.raises(WrongFilter) as wrong:
        parse("colour\n=red&store=&state=done")
    assert [each.parameter for each in wrong.value.mistakes] == ["colour\\n", "store", "state"]


def test_options_are_none_of_the_filter() -> None:
    which, options = parse_with_options("state=failed&limit=5&cursor=", ["limit", "cursor", "order"])
    assert (which, options) == (Filter(states=(JobState.FAILED,)), {"limit": "5", "cursor": ""})
    with pytest.raises(WrongFilter, match="limit: is given twice"):
        parse_with_options("limit=5&limit=6", ["limit"])
    with pytest.raises(WrongFilter, match="the nearest is limit"):
        parse_with_options("limt=5", ["limit"])


@given(seconds=AGES)
def test_a_duration_is_read_back_from_its_text(seconds: int) -> None:
    assert duration_s(duration_text(seconds), AGE_MAX_S) == seconds


@given(prefix=TEXT, more=st.text(st.characters(blacklist_categories=("Cs",)), max_size=5))
def test_the_end_of_a_prefix_is_after_all_that_begin_so(prefix: str, more: str) -> None:
    end = first_after(prefix)
    assert end is None or (prefix + more).encode() < end.encode()
    assert end is None or not end.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "end"), [("a", "b"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000")]
)
def test_the_end_of_a_prefix_is_the_first_such_text(prefix: str, end: str | None) -> None:
    assert first_after(prefix) == end


def test_every_parameter_is_documented() -> None:
    text = (Path(__file__).parents[4] / "docs/api.md").read_text()
    assert [name for name in NAMES if f"`{name}" not in text] == []
