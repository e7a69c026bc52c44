"""The store is consistent under concurrent clients."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.integration.emulator.client import SLICE


def test_one_of_many_concurrent_inits_wins(cos: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(lambda _: cos.init("a.bin", SLICE).json()["code"], range(16)))
    assert codes == [-4019] * 15 + [0]


def test_slices_in_any_order_from_many_clients_make_the_file(cos: Any) -> None:
    data = os.urandom(20 * SLICE - 7)
    session = cos.begin("a.bin", len(data))
    offsets = list(range(0, len(data), SLICE)) * 2
    with ThreadPoolExecutor(6) as pool:
        codes = pool.map(lambda at: cos.send("a.bin", session, at, data[at : at + SLICE]).json()["code"], offsets)
        assert set(codes) == {0}
    assert cos.finish("a.bin", session, len(data)).json()["code"] == 0
    assert cos.get("a.bin").content == data


def test_two_versions_of_a_slice_never_mix(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    versions = [bytes([value]) * SLICE for value in range(6)]
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda data: cos.send("a.bin", session, 0, data).json()["code"], versions))
    assert sorted(codes) == [-4026] * 5 + [0]
    cos.finish("a.bin", session, SLICE)
    assert cos.get("a.bin").content == versions[codes.index(0)]


def test_concurrent_finishes_make_one_object(cos: Any) -> None:
    session = cos.begin("a.bin", SLICE)
    cos.send("a.bin", session, 0, bytes(SLICE))
    with ThreadPoolExecutor(8) as pool:
        codes = set(pool.map(lambda _: cos.finish("a.bin", session, SLICE).json()["code"], range(8)))
    assert codes == {0}
    assert len(cos.control.objects("uploads")) == 1


def test_a_delete_during_slices_leaves_no_content(cos: Any, tmp_path: Any) -> None:
    for _ in range(5):
        session = cos.begin("a.bin", 6 * SLICE)
        with ThreadPoolExecutor(4) as pool:
            sends = [pool.submit(cos.send, "a.bin", session, at * SLICE, bytes(SLICE)) for at in range(6)]
            assert cos.delete("a.bin").json()["code"] == 0
        assert {send.result().json()["code"] for send in sends} <= {0, -4013}
    assert cos.control.uploads("uploads") == []
    assert list((tmp_path / "data" / "content").iterdir()) == []
