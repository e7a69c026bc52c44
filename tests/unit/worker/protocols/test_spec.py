"""Valid keys and slice sizes, and the canonical name of a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import Refused
from worker.protocols.cos_json import LIMITS
from worker.protocols.spec import KIB, MIB, canonical_target, check_slice_size, normal_key

likely = st.text(alphabet="ab/. ?*:\u00e9\u4e2d\n\x00\u2028\ud800", max_size=12)


@given(st.one_of(st.text(max_size=60), likely))
def test_a_key_that_passes_is_safe_and_passes_again(key: str) -> None:
    refused: Refused | None = None
    normal = ""
    try:
        normal = normal_key(key, LIMITS)
    except Refused as error:
        refused = error
    if refused is not None:
        assert refused.code == "bad_key"
        assert "\n" not in refused.message
        return
    assert normal_key(normal, LIMITS) == normal == key
    parts = normal.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert normal.isprintable()
    assert not set(normal) & set(LIMITS.refused_key_chars)
    assert 0 < len(normal.encode()) <= LIMITS.max_key_bytes


@pytest.mark.parametrize(
    "key", ["a", "a/b/c.mp4", "..a/b..", "...", "\u4e2d\u6587/\u00e9", "a b/c d", "%2e%2e/x", "a" * 850]
)
def test_a_valid_key_is_unchanged(key: str) -> None:
    assert normal_key(key, LIMITS) == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("a//b", "slash"),
        (".", "'..'"),
        ("a/../b", "'..'"),
        ("a/./b", "'..'"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\u2028b", "control"),
        ("\ud800", "control"),
        ("a?b", "does not take ?"),
        ("a:b|c", "does not take : |"),
        ("a/ /b", "one space"),
        ("a" * 851, "longer than 850 bytes"),
        ("\u4e2d" * 284, "longer than 850 bytes"),
    ],
)
def test_an_invalid_key_is_refused_with_the_reason(key: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        normal_key(key, LIMITS)
    assert why in refused.value.message
    assert len(refused.value.message) < 400


def target(endpoint: str, **other: str) -> str:
    place = {"protocol": "cos-json", "account": "1", "bucket": "b", "key": "k"} | other
    return canonical_target(endpoint=endpoint, **place)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://cos",
        "https://cos",
        "http://cos:80",
        "https://cos:443",
        "https://COS",
        "https://cos/",
        "HTTPS://Cos:443/",
    ],
)
def test_all_urls_of_one_place_give_one_name(endpoint: str) -> None:
    assert target(endpoint) == "cos-json://cos/1/b/k"


def test_other_places_have_other_names() -> None:
    names = [
        target("http://cos"),
        target("http://cos:8080"),
        target("https://cos:80"),
        target("http://other"),
        target("http://cos", account="2"),
        target("http://cos", bucket="c"),
        target("http://cos", key="K"),
        target("http://[::1]"),
    ]
    assert len(set(names)) == len(names)


@given(st.sampled_from(["http", "https"]), st.from_regex(r"[a-zA-Z0-9.-]{1,20}", fullmatch=True), st.integers(1, 65535))
def test_case_of_the_host_and_the_default_port_do_not_matter(scheme: str, host: str, port: int) -> None:
    named = target(f"{scheme}://{host}:{port}")
    assert named == target(f"{scheme.upper()}://{host.upper()}:{port}")
    default = {"http": 80, "https": 443}[scheme]
    assert (named == target(f"{scheme}://{host}")) is (port == default)


@pytest.mark.parametrize("size", LIMITS.slice_sizes)
def test_the_sizes_of_the_protocol_are_accepted(size: int) -> None:
    assert check_slice_size(size, LIMITS) == size


@pytest.mark.parametrize("size", [0, -1, 512 * KIB - 1, 4 * MIB, 20 * MIB])
def test_other_sizes_are_refused_with_the_accepted_ones(size: int) -> None:
    with pytest.raises(Refused, match="524288, 1048576, 2097152, 3145728") as refused:
        check_slice_size(size, LIMITS)
    assert refused.value.code == "bad_slice_size"
