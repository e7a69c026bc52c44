"""The broker connection begins with TLS and verifies it; a failure is reported by name."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.certificate import Authority
from tests.support.peer import Server, keep_first_bytes
from tests.support.tls import CLIENT_HELLO, TlsRelay
from worker.config.settings import load_settings
from worker.doctor.findings import Level
from worker.doctor.servers import broker
from worker.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Row = dict[str, str]

SECRET = "fake-secret-broker"
LENGTH = "from worker.celery import app; from worker.broker.publisher import Broker; print(Broker(app).length())"
#: What is wrong: scheme, host, the trusted authority, and the message.
WRONG = [
    ("rediss", "localhost", None, "the broker's certificate is not trusted: self-signed certificate"),
    ("rediss", "localhost", "other", "the broker's certificate is not trusted: self-signed certificate"),
    ("rediss", "127.0.0.1", "authority", "the broker's certificate is for another host: IP address mismatch"),
    ("amqps", "localhost", None, "the broker's certificate is not trusted: self-signed certificate"),
    ("amqps", "127.0.0.1", "authority", "the broker's certificate is for another host: IP address mismatch"),
]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_port(authority: Authority, broker_url: str) -> Iterator[int]:
    """A broker that accepts TLS only, and requires a client certificate."""
    port = urlsplit(broker_url).port or 0
    with closing(TlsRelay(port, authority.identity("localhost"), client_authority=authority.file)) as relay:
        yield relay.port


@pytest.fixture
def given(tmp_path: Path, authority: Authority, tls_port: int, broker_url: str) -> Callable[..., Row]:
    """Return the variables of the settings."""
    Authority(tmp_path, "other")

    def settings(
        scheme: str = "rediss", host: str = "localhost", trusts: str | None = "authority", query: str = ""
    ) -> Row:
        files = {"CA": tmp_path / f"{trusts}.pem"} if trusts else {}
        if "ssl_certfile" not in query:
            files["CERT"] = authority.identity("worker.test")
        password = urlsplit(broker_url).password
        return {
            "SLICEWAY_DATABASE_URL": "postgresql://127.0.0.1:1/none",
            "SLICEWAY_BROKER_URL": f"{scheme}://:{password}@{host}:{tls_port}/0{query}",
        } | {f"SLICEWAY_BROKER_{name}_FILE": str(path) for name, path in files.items()}

    return settings


def findings(given: Row) -> list[Any]:
    return list(broker(load_settings(given).broker))


def read_length(given: Row) -> subprocess.CompletedProcess[str]:
    """Read the queue's length, as the dispatcher does, in a process of its own."""
    command = [sys.executable, "-c", LENGTH]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=240, check=False)


def test_a_broker_of_our_own_authority_is_trusted(
    given: Callable[..., Row],
) -> None:
    assert {each.level for each in findings(given())} == {Level.OK}
    assert (done := read_length(given())).stdout == "0\n", done.stderr


def test_celerys_options_in_the_url_mean_the_same(given: Callable[..., Row], authority: Authority) -> None:
    own = authority.identity("worker.test")
    query = f"?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={authority.file}&ssl_certfile={own}&ssl_keyfile={own}"
    spelt = given(trusts=None, query=query)
    assert {each.level for each in findings(spelt)} == {Level.OK}
    assert (done := read_length(spelt)).stdout == "0\n", done.stderr


@pytest.mark.parametrize("spelt", ["CERT_NONE", "none"])
def test_a_certificate_that_is_not_to_be_checked_is_a_note(given: Callable[..., Row], spelt: str) -> None:
    unchecked = given(host="127.0.0.1", trusts=None, query=f"?ssl_cert_reqs={spelt}")
    [note] = [each for each in findings(unchecked) if each.level is not Level.OK]
    assert (note.check, note.level, "can pose as the broker" in note.text) == ("broker certificate", Level.NOTE, True)
    assert (done := read_length(unchecked)).stdout == "0\n", done.stderr


@pytest.mark.parametrize(("scheme", "host", "trusts", "said"), WRONG)
def test_a_broker_that_does_not_prove_itself_is_refused_by_name(
    given: Callable[..., Row], scheme: str, host: str, trusts: str | None, said: str
) -> None:
    wrong = given(scheme, host, trusts)
    [found] = findings(wrong)
    assert (found.level, said in found.text, f"{scheme}://{host}:" in found.text) == (Level.FAILED, True, True), found
    assert ("SLICEWAY_BROKER_" in found.advice, "\n" in found.text) == (True, False)
    assert (done := read_length(wrong)).returncode == 1, done.stdout
    password = urlsplit(wrong["SLICEWAY_BROKER_URL"]).password or "none"
    assert password not in found.text + done.stderr


def test_a_broker_without_tls_is_refused(given: Callable[..., Row], broker_url: str) -> None:
    plain = given() | {"SLICEWAY_BROKER_URL": broker_url.replace("redis://", "rediss://")}
    [found] = findings(plain)
    assert (found.level, "(TLS is spoken)" in found.text, "the port" in found.advice) == (Level.FAILED, True, True)


class OneHandshake:
    """A server that makes one TLS handshake on ``port`` (the attribute), and keeps the first bytes after it."""

    def __init__(self, identity: Path, client_authority: Path | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity)
        if client_authority is not None:
            self._context.load_verify_locations(client_authority)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listener, suppress(OSError), self._listener.accept()[0] as plain, plain.dup() as kept:
            spoken = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            with spoken:
                try:
                    spoken.do_handshake()
                    self.received = spoken.recv(8)
                except ssl.SSLError:
                    while kept.recv(4096):  # unread bytes would make the close discard our alert
                        pass

    def join(self) -> None:
        self._thread.join(240)
        assert not self._thread.is_alive()


def test_the_connection_to_rabbitmq_uses_tls(given: Callable[..., Row], authority: Authority) -> None:
    rabbit = OneHandshake(authority.identity("localhost"))
    settings = given() | {"SLICEWAY_BROKER_URL": f"amqps://u:{SECRET}@localhost:{rabbit.port}//"}
    [found] = findings(settings)
    rabbit.join()
    assert (found.level, SECRET in found.text) == (Level.FAILED, False)
    assert rabbit.received == b"AMQP\0\0\x09\x01"


def test_a_certificate_that_a_broker_asks_for_in_vain_is_named(given: Callable[..., Row], authority: Authority) -> None:
    asking = OneHandshake(authority.identity("localhost"), authority.file)
    settings = given() | {"SLICEWAY_BROKER_URL": f"rediss://:{SECRET}@localhost:{asking.port}/0"}
    del settings["SLICEWAY_BROKER_CERT_FILE"]
    [found] = findings(settings)
    asking.join()
    assert "the broker does not take our certificate: tlsv13 alert certificate required" in found.text
    assert "SLICEWAY_BROKER_CERT_FILE" in found.advice


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_the_first_bytes_sent_are_a_client_hello(scheme: str) -> None:
    recorder = Server(keep_first_bytes)
    url = f"{scheme}://:{SECRET}@127.0.0.1:{recorder.port}/0"
    given = {"SLICEWAY_DATABASE_URL": "postgresql://127.0.0.1:1/none", "SLICEWAY_BROKER_URL": url}
    with suppress(Exception):
        findings(given)
    by_doctor = len(recorder.heard)
    assert read_length(given).returncode == 1
    recorder.close()
    assert 0 < by_doctor < len(recorder.heard)
    assert {each[0] for each in recorder.heard} == {CLIENT_HELLO}
    assert not any(SECRET.encode() in each for each in recorder.heard)


# files


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CA": "none.pem"}, r"SLICEWAY_BROKER_CA_FILE .*none.pem cannot be read: No such file"),
        ({"CA": "text.pem"}, r"SLICEWAY_BROKER_CA_FILE .*text.pem holds no certificate in PEM"),
        ({"CERT": "none.pem"}, r"SLICEWAY_BROKER_CERT_FILE .*none.pem cannot be read: No such file"),
        ({"CERT": "authority.pem"}, r"SLICEWAY_BROKER_CERT_FILE .*authority.pem cannot be used"),
        (
            {"CERT": "authority.pem", "KEY": "text.pem"},
            r"_CERT_FILE .*pem or SLICEWAY_BROKER_KEY_FILE .*text",
        ),
        ({"KEY": "text.pem"}, r"SLICEWAY_BROKER_KEY_FILE is set without a certificate"),
    ],
)
@pytest.mark.usefixtures("authority")
def test_a_file_that_cannot_be_used_is_named_at_start(tmp_path: Path, variables: Row, said: str) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    files = {f"SLICEWAY_BROKER_{name}_FILE": str(tmp_path / file) for name, file in variables.items()}
    given = {"SLICEWAY_DATABASE_URL": "postgresql://h/d", "SLICEWAY_BROKER_URL": f"rediss://:{SECRET}@h/0"}
    with pytest.raises(SettingsError, match=said) as error:
        load_settings(given | files)
    assert SECRET not in error.value.message
    with pytest.raises(SettingsError, match=r"which speaks no TLS"):
        load_settings(given | files | {"SLICEWAY_BROKER_URL": "redis://h/0"})


@pytest.mark.usefixtures("authority")
def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    given = {"SLICEWAY_DATABASE_URL": "postgresql://h/d", "SLICEWAY_BROKER_CA_FILE": str(file)}
    with pytest.raises(SettingsError, match=r"^SLICEWAY_BROKER_CA_FILE is set, and .* ssl_ca_certs"):
        load_settings(given | {"SLICEWAY_BROKER_URL": f"rediss://h/0?ssl_ca_certs={file}"})
