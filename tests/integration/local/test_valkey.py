from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.local.errors import LocalError
from worker.local.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "with space")
    server.start()
    yield server
    server.kill()


def test_it_never_evicts_and_asks_for_the_password(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    port = int(valkey.url.rsplit(":", 1)[1].split("/")[0])
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_secrets_are_in_files_of_ours_alone(valkey: EmbeddedValkey) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in valkey.folder.iterdir() if path.suffix != ".log"} == {
        "password": 0o600,
        "valkey.conf": 0o600,
    }


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_durable_one_keeps_its_data(durable: EmbeddedValkey, end: str) -> None:
    with redis.Redis.from_url(durable.url) as client:
        client.set("kept", "7")
    getattr(durable, end)()
    durable.start()
    with redis.Redis.from_url(durable.url) as client:
        assert client.get("kept") == b"7"


def test_ephemeral_one_forgets(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, durable=False)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("lost", "7")
    server.stop()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("lost") is None
    server.stop()


def test_paused_one_is_silent_until_resumed(durable: EmbeddedValkey) -> None:
    durable.pause()
    assert not durable.is_ready()
    durable.resume()
    assert durable.is_ready()


def test_paused_one_can_be_stopped(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, durable=False)
    server.start()
    server.pause()
    server.stop(grace_s=0.1)
    assert server.poll() == -signal.SIGKILL


def test_broken_file_is_reported_in_one_line(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    server.kill()
    for file in (tmp_path / "appendonlydir").glob("*.manifest"):
        file.write_text("nonsense\n")
    with pytest.raises(LocalError, match=r"valkey ended with code 1: .*log: ") as caught:
        server.start()
    assert "\n" not in caught.value.message
