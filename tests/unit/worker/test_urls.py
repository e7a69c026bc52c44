"""Every URL of the settings is split into parts that keep the whole password, and never prints it."""

from __future__ import annotations

import ssl
import string
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import parse_url, url_to_parts
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from worker.broker.transport_options import options
from worker.config.broker_url import REDIS_SCHEMES, UNPARSED_SCHEMES, BrokerTls, BrokerUrl, Master
from worker.config.settings import load_settings
from worker.db.pool import conninfo
from worker.db.url import LIBPQ, DatabaseUrl
from worker.errors import SettingsError
from worker.http.proxy import for_httpx
from worker.urls import Endpoint, Host, ProxyUrl, Secret, UrlError

REQUIRED = {"SLICEWAY_DATABASE_URL": "postgresql+psycopg://u@db/s", "SLICEWAY_BROKER_URL": "redis://cache:6379/0"}
SECRET = "SECRETSECRET"
#: Every printable character, and texts that a parser may misread.
HARD = [
    "a%20b",
    "100%",
    "a@b",
    "a:b",
    "a/b",
    "a+b",
    "a b",
    "%",
    "'\\\"",
    ";",
    "?x=y",
    "#",
    "ключ",
    string.printable[:95],
]
passwords = st.one_of(st.sampled_from(HARD), st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1))


@given(passwords)
def test_a_database_gets_the_password_that_was_encoded(password: str) -> None:
    made = DatabaseUrl.of(f"postgresql+psycopg://{quote(password, safe='')}:{quote(password, safe='')}@h:5433/d")
    assert made.keywords() == {"user": password, "password": password, "host": "h", "port": "5433", "dbname": "d"}
    assert conninfo_to_dict(conninfo(made)) == made.keywords()


@given(passwords)
def test_kombu_gets_the_password_that_was_encoded(password: str) -> None:
    made = BrokerUrl.of(f"rediss://:{quote(password, safe='')}@h:7/3?ssl_cert_reqs=CERT_NONE")
    assert made.password == Secret(password)
    seen = parse_url(made.for_kombu())
    assert (seen["password"], seen["hostname"], seen["port"], seen["virtual_host"]) == (password, "h", 7, "3")


@given(passwords)
def test_a_proxy_gets_the_password_that_was_encoded(password: str) -> None:
    made = ProxyUrl.of(f"http://u:{quote(password, safe='')}@proxy:3128")
    assert (made.user, made.password, str(made)) == ("u", Secret(password), "http://proxy:3128")
    passed_on = for_httpx(made)
    assert passed_on is not None
    assert (passed_on.raw_auth, str(passed_on.url)) == ((b"u", password.encode()), "http://proxy:3128")


@pytest.mark.parametrize("password", ["a/b", "a?b", "a#b", "a@b", "a:b", "a b", "12/34", "a%zz"])
def test_a_password_that_was_not_encoded_is_read_as_far_as_possible(password: str) -> None:
    for made in (DatabaseUrl.of(f"postgres://u:{password}@h/d"), BrokerUrl.of(f"redis://u:{password}@h/0")):
        assert (made.user, made.password) == ("u", Secret(password))


@given(st.text(), passwords)
def test_whatever_stands_there_an_error_is_one_line_without_the_password(text: str, password: str) -> None:
    secret = SECRET + password
    for kind in (DatabaseUrl, BrokerUrl, Endpoint, ProxyUrl):
        for url in (f"postgresql://u:{secret}@{text}", f"redis://:{secret}@{text}", f"http://u:{secret}@{text}/{text}"):
            printed = printed_of(kind, url)
            assert SECRET not in printed
            assert "\n" not in printed


def printed_of(kind: Any, url: str) -> str:
    """Return the text of a URL, or of the error that refuses it."""
    try:
        made = kind.of(url)
    except UrlError as error:
        return str(error)
    return f"{made} {made!r}"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgres://h/d", {"host": "h", "dbname": "d"}),
        ("postgresql://h/d", {"host": "h", "dbname": "d"}),
        ("postgresql+psycopg:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        ("postgresql://%2Frun%2Fpg/d", {"host": "/run/pg", "dbname": "d"}),
        ("postgresql://[::1]:5433/d", {"host": "::1", "port": "5433", "dbname": "d"}),
        ("postgresql://a:1,b:2,c/d", {"host": "a,b,c", "port": "1,2,", "dbname": "d"}),
        ("postgresql:///d?host=a:1&host=b:2", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql:///d?host=a,b&port=1,2", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql:///d?host=a,b&port=1", {"host": "a,b", "port": "1,1", "dbname": "d"}),
        ("postgresql://h:5/d?host=a", {"host": "a", "port": "5", "dbname": "d"}),
        ("postgresql:///?user=u&password=p%20w&dbname=d", {"user": "u", "password": "p w", "dbname": "d"}),
        ("postgresql://h?sslmode=require", {"host": "h", "sslmode": "require"}),
        ("postgresql:///d?options=-c%20a=b&options=-c%20c=d", {"dbname": "d", "options": "-c a=b -c c=d"}),
        ("postgresql+psycopg://", {}),
    ],
)
def test_a_database_url_is_what_libpq_and_sqlalchemy_take_it_for(url: str, wanted: dict[str, str]) -> None:
    assert DatabaseUrl.of(url).keywords() == wanted


def test_the_options_of_libpq_are_those_that_it_has_here() -> None:
    parts = {"user", "password", "host", "port", "dbname"}
    assert {option.keyword.decode() for option in Conninfo.get_defaults()} <= LIBPQ | parts


def test_the_schemes_of_brokers_are_kombus() -> None:
    ours = {each.partition("+")[0] for each in UNPARSED_SCHEMES} | {"amqp", "amqps", "pyamqp", "librabbitmq"}
    ours |= set(REDIS_SCHEMES) - {"redis+socket"}
    assert ours == {each.lower() for each in TRANSPORT_ALIASES}


def test_those_of_redis_are_what_kombu_serves_by_its_redis_transport() -> None:
    """Our URL and kombu agree."""
    spoken = {"amqp", "amqps", "pyamqp", "memory", *REDIS_SCHEMES}
    for url in [BrokerUrl.of(f"{scheme}:///{'s' * (scheme == 'redis+socket')}") for scheme in spoken]:
        with Connection(url.for_kombu()) as connection:
            assert (connection.transport.driver_type == "redis") == url.is_redis, url.scheme


#: A variable, a wrong URL for it, and a part of the error.
WRONG = [
    *[
        (name, url, "no scheme")
        for name in ("DATABASE_URL", "DATABASE_DIRECT_URL", "BROKER_URL", "API_URL")
        for url in ("not a url", "h:5432/d", "//h/d", f"u:{SECRET}@h", "://h")
    ],
    *[
        (name, f"{scheme}://u:{SECRET}@h{tail}", text)
        for name, scheme in (("DATABASE_URL", "postgresql"), ("BROKER_URL", "redis"))
        for tail, text in ((":x", "port"), (":0", "port"), (":65536", "port"), (":1:2", "host"), ("#f", "fragment"))
    ],
    ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d\ne", "line break"),
    ("DATABASE_URL", f"mysql://u:{SECRET}@h/d", "the scheme mysql is not served; write postgresql+psycopg://"),
    ("DATABASE_URL", "postgresql+asyncpg://h/d", "the scheme postgresql+asyncpg is not served"),
    ("DATABASE_URL", "postgresql://h/d?sslmod=require", "the nearest that it has is sslmode"),
    ("DATABASE_URL", f"postgresql://u:a@h?{SECRET}=x@h/d", "option that libpq does not have"),
    ("DATABASE_URL", "postgresql:///d?host=a,b&port=1,2,3", "number of ports"),
    ("DATABASE_URL", f"postgresql://u:%ff{SECRET}@h/d", "no UTF-8"),
    ("BROKER_URL", f"http://u:{SECRET}@h", "the scheme http is not served; write redis://"),
    ("BROKER_URL", f"redis://:{SECRET}@h/main", "number of a Redis database"),
    ("BROKER_URL", f"redis://:{SECRET}@h?socket_timeout=5", "an option that is not served; there are ssl_cert_reqs"),
    ("BROKER_URL", "redis://h?ssl_cert_reqs=none", "write rediss://"),
    ("BROKER_URL", "amqp://h//?ssl_cert_reqs=none", "write amqps://"),
    ("BROKER_URL", "rediss://h?ssl_cert_reqs=maybe", "none of required, optional or none"),
    ("BROKER_URL", "rediss://h?ssl_check_hostname=maybe", "none of true or false"),
    ("BROKER_URL", "redis://a;rediss://b", "differ in scheme"),
    ("BROKER_URL", "amqps://a;amqps://b", "several brokers are not served over amqps"),
    ("BROKER_URL", f"redis+socket://:{SECRET}@run/s", "no path of a socket, which begins with a third slash"),
    ("BROKER_URL", f"redis+socket://:{SECRET}@", "no path of a socket"),
    ("BROKER_URL", "redis+socket:///run/s?db=1", "there is virtual_host"),
    ("BROKER_URL", "redis+socket:///run/s?virtual_host=main", "number of a Redis database"),
    ("BROKER_URL", "redis+socket:///a;redis+socket:///b", "several brokers are not served over redis+socket"),
    ("BROKER_URL", f"sentinel://:{SECRET}@a;sentinel://:x@b", "differ in user, password or database"),
    ("BROKER_URL", "sentinel://a/1;sentinel://b/2", "differ in user, password or database"),
    ("BROKER_URL", f"sentinel://:{SECRET}@a/main", "number of a Redis database; write sentinel://"),
    ("BROKER_URL", "sentinel://a,b", "several hosts; write sentinel://"),
    ("BROKER_URL", "sentinel://a?ssl_cert_reqs=none", "TLS by way of sentinels is not served"),
    ("API_URL", "ftp://h", "the scheme ftp is not served"),
    ("API_URL", f"http://u:{SECRET}@h", "a user or a password"),
    ("API_URL", "http://h?x", "query"),
    ("API_URL", "http://h/#x", "fragment"),
    ("API_URL", "http://", "no host"),
]


@pytest.mark.parametrize(("name", "url", "text"), WRONG)
def test_a_url_that_is_wrong_is_refused_by_name(name: str, url: str, text: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(REQUIRED | {f"SLICEWAY_{name}": url})
    assert error.value.message.startswith(f"SLICEWAY_{name} is wrong: ")
    assert text in error.value.message
    assert "\n" not in error.value.message
    assert SECRET not in error.value.message


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", BrokerTls()),
        ("?ssl_cert_reqs=CERT_REQUIRED", BrokerTls()),
        ("?ssl_cert_reqs=required", BrokerTls()),
        ("?ssl_cert_reqs=CERT_OPTIONAL", BrokerTls("optional")),
        ("?ssl_cert_reqs=CERT_NONE", BrokerTls("none")),
        ("?ssl_cert_reqs=none&ssl_check_hostname=false", BrokerTls("none", check_hostname=False)),
        (
            "?ssl_ca_certs=/ca&ssl_certfile=/crt&ssl_keyfile=/key",
            BrokerTls(ca_file="/ca", cert_file="/crt", key_file="/key"),
        ),
    ],
)
def test_the_options_of_tls_are_spelt_as_celery_has_them(query: str, wanted: BrokerTls) -> None:
    for scheme in ("rediss", "amqps"):
        made = BrokerUrl.of(f"{scheme}://h{query}")
        assert made.tls == wanted


def test_kombu_verifies_a_broker_of_which_it_has_the_url_alone() -> None:
    with Connection(BrokerUrl.of("rediss://h?ssl_ca_certs=/c a").for_kombu()) as alone:
        wanted = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": "/c a"}
        assert alone.ssl == wanted


@given(passwords)
def test_a_socket_is_what_kombu_takes_it_for(password: str) -> None:
    made = BrokerUrl.of(f"redis+socket://u:{quote(password, safe='')}@/run/a%20b%3F%25?virtual_host=3")
    assert (made.user, made.password, made.socket, made.place) == ("u", Secret(password), "/run/a b?%", "3")
    assert (str(made), made.is_redis) == ("redis+socket:///run/a b?%", True)
    with Connection(made.for_kombu()) as connection:
        seen = url_to_parts(connection.hostname)  # as kombu's transport splits the host
    assert (seen.username, seen.password, f"/{seen.path}", seen.query) == (
        "u",
        password,
        made.socket,
        {"virtual_host": "3"},
    )


@given(passwords)
def test_each_sentinel_leads_to_the_same_place(password: str) -> None:
    made = BrokerUrl.of(f"sentinel://:{quote(password, safe='')}@a:1;sentinel://b/3;sentinel://[::1]:7")
    assert str(made) == "sentinel://a:1;sentinel://b;sentinel://[::1]:7"
    assert made.address == Host("a", 1)
    for text in made.for_kombu().split(";"):
        seen = parse_url(text)
        assert (seen["password"], seen["virtual_host"]) == (password, "3")
    assert made.others[0].address == Host("b", 26379)


def test_sentinels_are_asked_for_a_server_by_its_name() -> None:
    given = {"SLICEWAY_DATABASE_URL": "postgresql://h/d", "SLICEWAY_BROKER_URL": f"sentinel://:{SECRET}@a/3"}
    with pytest.raises(SettingsError, match=r"^SLICEWAY_BROKER_SENTINEL_MASTER is not set, but .* sentinel://"):
        load_settings(given)
    names = {"SLICEWAY_BROKER_SENTINEL_MASTER": "uploads", "SLICEWAY_BROKER_SENTINEL_PASSWORD": "fake-watcher"}
    made = load_settings(given | names)
    assert made.broker.master == Master("uploads", Secret("fake-watcher"))
    assert {SECRET, "fake-watcher"} <= made.secrets
    given = options(made.broker)
    assert (given["master_name"], given["sentinel_kwargs"]["password"]) == ("uploads", "fake-watcher")
    for name, value in names.items():
        with pytest.raises(SettingsError, match=rf"^{name} is set, but SLICEWAY_BROKER_URL begins with redis://"):
            load_settings(REQUIRED | {name: value})


def test_the_parts_of_a_broker() -> None:
    assert BrokerUrl.of("amqp://guest:guest@h:5673//").place == "/"
    assert parse_url(BrokerUrl.of("amqp://guest:guest@h:5673//").for_kombu())["virtual_host"] == "/"
    assert BrokerUrl.of("redis://[::1]:7").address == Host("::1", 7)
    assert [each.host for each in BrokerUrl.of("redis://a;redis://b;redis://c").others] == ["b", "c"]
    whole = BrokerUrl.of(f"sqs://id:{SECRET}@")
    assert (whole.for_kombu(), SECRET in repr(whole)) == (f"sqs://id:{SECRET}@", False)
    assert Secret(SECRET) in whole.secrets


def test_the_parts_of_an_endpoint() -> None:
    made = Endpoint.of("HTTPS://cos.example:443/base/")
    assert (str(made), made.netloc, made.address) == (
        "https://cos.example:443/base",
        "cos.example",
        ("cos.example", 443),
    )
    assert (made.tls, Endpoint.of("http://h").tls) == (True, False)


def test_settings_name_their_secrets_in_one_place() -> None:
    made = load_settings(
        {
            "SLICEWAY_DATABASE_URL": "postgresql://u:fake%20db@h/d?sslpassword=fake-key",
            "SLICEWAY_DATABASE_DIRECT_URL": "postgresql://u:fake-direct@h/d",
            "SLICEWAY_BROKER_URL": "redis://:fake-one@h;redis://:fake-two@h",
            "SLICEWAY_API_KEY": "fake-api",
        }
    )
    assert made.secrets == {"fake db", "fake-key", "fake-direct", "fake-one", "fake-two", "fake-api"}
    assert "fake" not in repr(made)


def test_sqlalchemy_gets_the_driver_only() -> None:
    from worker.db.session_settings import engine  # noqa: PLC0415

    made = engine(f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    with pytest.raises(Exception, match="connection") as error:
        made.connect()
    assert isinstance(error.value.__cause__, psycopg.OperationalError)
    assert SECRET not in f"{made!r} {error.value} {made.url.render_as_string(hide_password=False)}"
