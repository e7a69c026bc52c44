"""The brokers and databases of the matrix: each starts its servers and says which settings lead there."""

from __future__ import annotations

import string
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.support.certificate import Authority
from tests.support.redis_servers import PASSWORD, Sentinels, Server, on_a_socket
from tests.support.servers.postgres import PgBouncer, PostgresServer
from tests.support.servers.programs import debian, npm_postgres
from tests.support.servers.rabbitmq import RabbitServer
from worker.local.account import server_account
from worker.local.binaries import postgres_home
from worker.local.ports import free_port
from worker.local.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import redis

PRINTABLE = "fake-secret-" + "".join(char for char in string.printable if char.isprintable()) + "%20"
"""A password with every printable character of ASCII."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where it is.

    Attributes:
        settings: what leads there.
        url: for the harness, past any pooler.
        version: PostgreSQL's major version.
        schema: in which the tables are to be.
    """

    settings: dict[str, str]
    url: str
    version: int
    schema: str = "public"
    ignored: PgBouncer | None = field(default=None, repr=False)


Settings = dict[str, str]


def _folder(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    made.chmod(0o711)
    return made


# databases


def home(version: int) -> Path:
    """Return the installation of a PostgreSQL release."""
    if version == 18:
        return postgres_home(server_account())
    if version == 15:
        return debian("initdb", "postgresql-15").resolve().parent.parent
    return npm_postgres(version)


@contextmanager
def _postgres(folder: Path, version: int, identity: Path | None = None) -> Iterator[PostgresServer]:
    server = PostgresServer(_folder(folder, "postgres"), home(version), identity=identity)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def postgres(version: int) -> Callable[[Path], AbstractContextManager[Database]]:
    """Return the variant of a release as it is."""

    @contextmanager
    def plain(folder: Path) -> Iterator[Database]:
        with _postgres(folder, version) as server:
            yield Database({"SLICEWAY_DATABASE_URL": server.url()}, server.url(), version)

    return plain


@contextmanager
def verify_full(folder: Path) -> Iterator[Database]:
    """`sslmode=verify-full`, with an authority of one's own."""
    authority = Authority(folder, "postgres-authority")
    with _postgres(folder, 17, authority.identity("localhost")) as server:
        url = server.url(f"sslmode=verify-full&sslrootcert={quote(str(authority.file))}").replace(
            "127.0.0.1", "localhost"
        )
        yield Database({"SLICEWAY_DATABASE_URL": url}, url, 17)


@contextmanager
def schema(folder: Path) -> Iterator[Database]:
    """A schema that only the URL's options name."""
    with _postgres(folder, 18) as server:
        server.run("CREATE SCHEMA media")
        url = server.url("options=-csearch_path%3Dmedia")
        yield Database({"SLICEWAY_DATABASE_URL": url}, url, 18, "media")


@contextmanager
def printable_password(folder: Path) -> Iterator[Database]:
    """A password of every printable character, of a role that is no superuser."""
    with _postgres(folder, 16) as server:
        server.role("uploader", PRINTABLE)
        url = server.url(role="uploader", password=PRINTABLE)
        yield Database({"SLICEWAY_DATABASE_URL": url}, url, 16)


@contextmanager
def _bouncer(folder: Path, server: PostgresServer, name: str, **settings: str) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(_folder(folder, name), debian("pgbouncer", "pgbouncer"), server, **settings)
    bouncer.start()
    try:
        yield bouncer
    finally:
        bouncer.stop()


@contextmanager
def pgbouncer(folder: Path) -> Iterator[Database]:
    """PgBouncer in transaction mode, and a URL past it."""
    with _postgres(folder, 15) as server, _bouncer(folder, server, "pgbouncer") as bouncer:
        settings = {"SLICEWAY_DATABASE_URL": bouncer.url, "SLICEWAY_DATABASE_DIRECT_URL": server.url()}
        yield Database(settings, server.url(), 15)


@contextmanager
def pgbouncer_alone(folder: Path) -> Iterator[Database]:
    """PgBouncer in transaction mode without a URL past it, one that refuses options and one that drops them."""
    with (
        _postgres(folder, 18) as server,
        _bouncer(folder, server, "refuses") as bouncer,
        _bouncer(folder, server, "drops", ignore_startup_parameters="options") as ignoring,
    ):
        yield Database({"SLICEWAY_DATABASE_URL": bouncer.url}, server.url(), 18, ignored=ignoring)


# brokers


@contextmanager
def valkey(folder: Path) -> Iterator[Settings]:
    """Valkey of the wheel, with a password."""
    server = EmbeddedValkey(folder / "valkey", durable=False)
    server.start()
    try:
        yield {"SLICEWAY_BROKER_URL": server.url}
    finally:
        server.kill()


@contextmanager
def _redis(folder: Path, settings: str = "", **way: Any) -> Iterator[tuple[redis.Redis, int]]:
    """Yield a client of a Redis with a password, and its port."""
    port = free_port()
    listens = "" if way else f"port {port}\n"
    settings = f'bind 127.0.0.1\n{listens}requirepass {PASSWORD}\nsave ""\n{settings.format(port=port)}'
    way = {"host": "127.0.0.1", "port": port, "password": PASSWORD} | way
    server = Server(folder / "redis", settings, program=debian("redis-server", "redis-server"), **way)
    try:
        yield server.client, port
    finally:
        server.kill()


@contextmanager
def redis_password(folder: Path) -> Iterator[Settings]:
    """Redis 7 with a password."""
    with _redis(folder) as (_, port):
        yield {"SLICEWAY_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}/0"}


@contextmanager
def redis_acl(folder: Path) -> Iterator[Settings]:
    """Redis 7 with a user of an ACL who may not use CONFIG."""
    with _redis(folder, f"user sliceway on >{PASSWORD} ~* &* +@all -config\n") as (_, port):
        yield {"SLICEWAY_BROKER_URL": f"redis://sliceway:{PASSWORD}@127.0.0.1:{port}/0"}


@contextmanager
def redis_database(folder: Path) -> Iterator[Settings]:
    """Redis 7, its database 3; nothing may be in the others."""
    with _redis(folder) as (client, port):
        yield {"SLICEWAY_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}/3"}
        assert {name for name in client.info("keyspace") if name != "db3"} == set()


@contextmanager
def redis_tls(folder: Path) -> Iterator[Settings]:
    """Redis 7 over TLS, with an authority of one's own."""
    authority = Authority(folder, "redis-authority")
    files = {"ca-cert": authority.file, **dict.fromkeys(("cert", "key"), authority.identity("localhost", "127.0.0.1"))}
    settings = "".join(f"tls-{name}-file {path}\n" for name, path in files.items())
    settings += "port 0\ntls-port {port}\ntls-auth-clients no\n"
    with _redis(folder, settings, ssl=True, ssl_ca_certs=str(authority.file)) as (_, port):
        url = f"rediss://:{PASSWORD}@localhost:{port}/0"
        yield {"SLICEWAY_BROKER_URL": url, "SLICEWAY_BROKER_CA_FILE": str(authority.file)}


@contextmanager
def redis_socket(folder: Path) -> Iterator[Settings]:
    """Redis 7 on a Unix socket."""
    with on_a_socket(_folder(folder, "redis"), debian("redis-server", "redis-server")) as (_, path):
        yield {"SLICEWAY_BROKER_URL": f"redis+socket://:{PASSWORD}@{quote(path)}?virtual_host=0"}


@contextmanager
def sentinel(folder: Path) -> Iterator[Settings]:
    """Redis 7 behind Sentinel."""
    with Sentinels(_folder(folder, "redis"), debian("redis-server", "redis-server")) as sentinels:
        yield sentinels.environ


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Settings]:
    """RabbitMQ."""
    server = RabbitServer(_folder(folder, "rabbitmq"), debian("rabbitmq-server", "rabbitmq-server"))
    server.start()
    try:
        yield {"SLICEWAY_BROKER_URL": server.url}
    finally:
        server.stop()
