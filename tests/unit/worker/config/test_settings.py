"""Settings name the wrong variable, show no secret, and are all in the manual."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from worker.config.api_limits import ApiLimits
from worker.config.fields import variable
from worker.config.profiles import Profiles, StoreProfile, load_profiles
from worker.config.settings import Settings, load_settings
from worker.config.timeouts import Timers
from worker.errors import SettingsError
from worker.protocols.spec import MIB
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

MANUAL = Path(__file__).parents[4] / "docs" / "settings.md"
REQUIRED = {
    "SLICEWAY_DATABASE_URL": "postgresql+psycopg://sliceway:fake-secret-db@db/sliceway",
    "SLICEWAY_BROKER_URL": "redis://:fake-secret-broker@cache:6379/0",
}
STORE = """
[stores.main]
protocol = "cos-json"
endpoint = "https://cos.example"
appid = "10055004"
bucket = "uploads"
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stores.toml"


def profiles(file: Path, text: str, environ: dict[str, str] | None = None) -> Profiles:
    file.write_text(text)
    return load_profiles(file, environ or {})


def refused(file: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as error:
        profiles(file, text, environ)
    assert "\n" not in error.value.message
    assert "fake-secret" not in error.value.message
    return error.value.message


# --- variables ---


def test_the_required_variables_are_enough() -> None:
    made = load_settings(REQUIRED)
    assert (str(made.database_url), str(made.broker)) == ("postgresql://db/sliceway", "redis://cache:6379")
    assert (made.api_port, made.window, made.heartbeat_s, made.log_format) == (8080, None, 2.0, "auto")
    assert made.profiles == Profiles(stores={}, roots={})


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"^{missing} is not set$"):
        load_settings({name: value for name, value in REQUIRED.items() if name != missing})


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings(REQUIRED | {"SLICEWAY_API_PORT": ""}).api_port == 8080
    with pytest.raises(SettingsError, match=r"^SLICEWAY_BROKER_URL is not set$"):
        load_settings(REQUIRED | {"SLICEWAY_BROKER_URL": ""})


WRONG = {
    "api_port": ("70000", "-1", "x"),
    "api_threads": ("0", "many"),
    "api_connections": ("0",),
    "api_connections_per_address": ("0", "-1"),
    "api_head_max_bytes": ("1023", "32k"),
    "api_url_max_bytes": ("255",),
    "api_head_timeout_s": ("0", "10s"),
    "api_keep_alive_s": ("0",),
    "api_body_timeout_s": ("-1",),
    "api_low_speed_bytes_per_s": ("0",),
    "api_send_timeout_s": ("0",),
    "api_linger_s": ("0",),
    "max_live_jobs": ("0",),
    "worker_processes": ("0", "1.5"),
    "worker_threads": ("-1",),
    "worker_nice": ("-1", "20"),
    "window": ("0",),
    "heartbeat_s": ("0", "soon"),
    "dead_after_s": ("-1",),
    "lead_s": ("0",),
    "time_scale": ("0", "0.1"),
    "retry_for_s": ("0", "24h"),
    "wait_for_s": ("-5",),
    "flower_port": ("65536",),
    "root_path": ("sliceway", "/", "/sliceway/", "/a b", "//a"),
    "flower_root_path": ("flower/",),
    "celery": ("short", "STOCK"),
    "log_format": ("xml",),
    "log_level": ("loud", "INFO"),
    "import_": ("ops-tracing", "ops tracing", "a,,b", "a.b,", ".ops", "1st", "ops.py.", "/etc/ops.py"),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_wrong_variable_is_named(field: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable(field)} is wrong: ") as error:
        load_settings(REQUIRED | {variable(field): value})
    assert "\n" not in error.value.message


def test_every_bounded_variable_has_a_wrong_value_here() -> None:
    free = {"database_url", "database_direct_url", "broker_url", "stores_file", "state_dir", "api_host", "api_url"}
    free |= {"broker_ca_file", "broker_cert_file", "broker_key_file", "broker_sentinel_master"}
    free |= {"broker_sentinel_password", "api_key", "flower_host", "flower_basic_auth"}
    assert set(Settings.model_fields) == free | set(WRONG)


def test_the_names_of_modules_are_parted_by_commas() -> None:
    assert load_settings(REQUIRED).import_ == ()
    assert load_settings(REQUIRED | {"SLICEWAY_IMPORT": "b, ops.a ,b2"}).import_ == ("b", "ops.a", "b2")


def test_the_timers_are_scaled_for_a_test_database_only() -> None:
    scaled = {"SLICEWAY_TIME_SCALE": "0.5", "SLICEWAY_HEARTBEAT_S": "3"}
    test = REQUIRED | scaled | {"SLICEWAY_DATABASE_URL": "postgresql+psycopg://u@h/test_1"}
    timers = load_settings(test).timers
    assert timers == Timers(1.5, 5.0, 1.5, 15.0, 7.5, 7.5, 2.5, 2.5, 30.0, 2.5, 1.0, 0.5, 0.5)
    assert timers.wait(timedelta(seconds=5)) == timedelta(seconds=2.5)
    with pytest.raises(SettingsError, match=r"^SLICEWAY_TIME_SCALE is wrong: is for tests: .* unset it$"):
        load_settings(REQUIRED | scaled)
    assert load_settings(REQUIRED).timers == Timers(2.0, 10.0, 3.0)


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^SLICEWAY_API_PROT is not a setting; did you mean SLICEWAY_API_PORT\?$"):
        load_settings(REQUIRED | {"SLICEWAY_API_PROT": "8080"})


SERVICE = {
    "_SERVICE_HOST": "10.0.0.1",
    "_SERVICE_PORT": "8080",
    "_SERVICE_PORT_HTTP": "8080",
    "_PORT": "tcp://10.0.0.1:8080",
    "_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "_PORT_8080_TCP_PROTO": "tcp",
    "_PORT_8080_TCP_PORT": "8080",
    "_PORT_8080_TCP_ADDR": "10.0.0.1",
}
"""The variables that Kubernetes adds for a Service, without its name."""


@pytest.mark.parametrize("service", ["SLICEWAY", "SLICEWAY_API", "SLICEWAY_FLOWER", "SLICEWAY_DATABASE"])
def test_the_variables_of_a_service_of_our_name_are_no_settings(service: str) -> None:
    made = load_settings(REQUIRED | {service + ending: value for ending, value in SERVICE.items()})
    assert (made.api_port, made.flower_port) == (8080, 5555)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SLICEWAY_DATABSE_URL", "postgresql://h/d", "is not a setting; did you mean SLICEWAY_DATABASE_URL?"),
        ("SLICEWAY_PORT", "8080", "is not a setting; did you mean SLICEWAY_API_PORT?"),
        ("SLICEWAY_PORT_8080", "8080", "is not a setting; did you mean SLICEWAY_API_PORT?"),
        ("SLICEWAY_API_PORT", "http://10.0.0.1", "is wrong: "),
    ],
)
def test_a_variable_that_only_resembles_a_service_is_refused_by_name(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(REQUIRED | {name: value})
    assert error.value.message.startswith(f"{name} {said}")


def test_white_space_and_a_byte_order_mark_around_a_value_are_removed() -> None:
    around = {name: f"\ufeff {value}\r\n" for name, value in REQUIRED.items()}
    made = load_settings(around | {"SLICEWAY_API_KEY": " fake-secret-key\n", "SLICEWAY_API_PORT": "81\n"})
    assert made.broker.password is not None
    assert made.broker.password.reveal() == "fake-secret-broker"
    assert made.api_key is not None
    assert (made.api_key.get_secret_value(), made.api_port) == ("fake-secret-key", 81)


@pytest.mark.parametrize("name", ["SLICEWAY_API_KEY", "SLICEWAY_FLOWER_BASIC_AUTH"])
@pytest.mark.parametrize(
    ("secret", "said"), [(" \n", "is empty"), ("fake-secret-1\nfake-secret-2", "has a character"), ("a\x00b", "has a")]
)
def test_a_secret_that_can_be_none_is_refused_by_name(name: str, secret: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is wrong: {said}") as error:
        load_settings(REQUIRED | {name: secret})
    assert "fake-secret" not in error.value.message


def test_variables_of_other_programs_are_ignored() -> None:
    load_settings(REQUIRED | {"PATH": "/bin", "SLICEWAYPOOL_PID": "7", "API_PORT": "x"})


def test_settings_cannot_be_changed() -> None:
    made = load_settings(REQUIRED)
    with pytest.raises(ValueError, match="frozen"):
        made.window = 9


def test_no_secret_is_printed() -> None:
    given = {name: f"fake-secret-{name}" for name in ("SLICEWAY_API_KEY", "SLICEWAY_FLOWER_BASIC_AUTH")}
    made = load_settings(REQUIRED | given | {"SLICEWAY_DATABASE_DIRECT_URL": "postgresql://s:fake-secret-direct@db/s"})
    assert "fake-secret" not in repr(made)
    assert "fake-secret" not in str(made)


def test_no_secret_is_printed_in_an_error() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(REQUIRED | {"SLICEWAY_API_KEY": "fake-secret", "SLICEWAY_WINDOW": "fake-secret-window"})
    assert "fake-secret" not in error.value.message


# --- stores and roots ---


def test_a_store_has_what_its_table_says(file: Path) -> None:
    store = profiles(file, STORE + 'tenants = ["a"]\nslice_bytes = 1048576\nmax_in_flight = 3').stores["main"]
    assert (store.name, str(store.endpoint), store.slice_bytes, store.max_in_flight) == (
        "main",
        "https://cos.example",
        MIB,
        3,
    )
    assert store.allows("a")
    assert not store.allows("b")
    assert store.target("k/x") == "cos-json://cos.example/10055004/uploads/k/x"
    assert store.whole_bytes == MIB


def test_a_store_is_open_to_every_tenant_unless_it_says_so(file: Path) -> None:
    assert profiles(file, STORE).stores["main"].allows("any")


@pytest.mark.parametrize(
    ("line", "begins"), [("", ""), ('prefix = "{tenant}/"', "a/"), ('prefix = "in/{tenant}-up/"', "in/a-up/")]
)
def test_a_store_says_what_a_tenants_keys_begin_with(file: Path, line: str, begins: str) -> None:
    assert profiles(file, STORE + line).stores["main"].key_prefix("a") == begins


def test_a_root_has_what_its_table_says(file: Path) -> None:
    root = profiles(file, '[roots.media]\npath = "/srv/media"\ntenants = ["a"]').roots["media"]
    assert (root.name, root.path) == ("media", Path("/srv/media"))
    assert root.allows("a")
    assert not root.allows("b")


@pytest.mark.parametrize("secret", ["secret_id", "secret_key"])
@pytest.mark.parametrize("how", ["value", "file", "relative file", "env"])
def test_a_secret_by_value_file_and_variable(file: Path, tmp_path: Path, secret: str, how: str) -> None:
    kept = tmp_path / "kept"
    kept.write_text("fake-secret-kept\n")
    lines = {
        "value": f'{secret} = "fake-secret-kept"',
        "file": f'{secret}_file = "{kept}"',
        "relative file": f'{secret}_file = "kept"',
        "env": f'{secret}_env = "KEPT"',
    }
    text = "\n".join(line for line in STORE.splitlines() if not line.startswith(secret))
    store = profiles(file, f"{text}\n{lines[how]}", {"KEPT": "fake-secret-kept"}).stores["main"]
    assert getattr(store, secret).get_secret_value() == "fake-secret-kept"
    assert "fake-secret" not in repr(store)


def test_a_secret_given_twice_is_refused(file: Path) -> None:
    assert "secret_key is given more than once" in refused(file, STORE + 'secret_key_env = "KEPT"', {"KEPT": "x"})


def test_a_secret_that_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    text = "\n".join(line for line in STORE.splitlines() if not line.startswith("secret_key"))
    assert "[stores.main] secret_key:" in refused(file, text)
    assert "[stores.main] secret_key_env: the variable KEPT is not set" in refused(
        file, text + '\nsecret_key_env = "KEPT"'
    )
    assert "[stores.main] secret_key_file cannot be read" in refused(
        file, text + f'\nsecret_key_file = "{tmp_path / "nothing"}"'
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "[stores.main] secret_key_file cannot be read" in refused(file, text + '\nsecret_key_file = "binary"')


@pytest.mark.parametrize("how", ["value", "file", "env"])
@pytest.mark.parametrize(
    ("secret", "said"),
    [("\ufeff \n", "is empty"), ("fake-secret-1\n\nfake-secret-2\n", "has a character that cannot be printed")],
)
def test_a_secret_of_a_store_that_can_be_none_is_refused_by_name(
    file: Path, tmp_path: Path, how: str, secret: str, said: str
) -> None:
    (tmp_path / "kept").write_text(secret)
    lines = {
        "value": f"secret_key = {json.dumps(secret)}",
        "file": 'secret_key_file = "kept"',
        "env": 'secret_key_env = "KEPT"',
    }
    text = "\n".join(line for line in STORE.splitlines() if not line.startswith("secret_key"))
    message = refused(file, f"{text}\n{lines[how]}", {"KEPT": secret})
    assert re.search(rf"\[stores.main\] secret_key(_file: kept|_env: the variable KEPT|:) {said}", message), message


def test_a_byte_order_mark_is_taken(file: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("\ufefffake-secret-kept\r\n")
    text = "\ufeff" + STORE.replace('secret_key = "fake-secret-key"', 'secret_key_file = "kept"')
    assert profiles(file, text).stores["main"].secret_key.get_secret_value() == "fake-secret-kept"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ('endpiont = "http://cos"', "endpoint"),
        ('secret_key_flie = "kept"', "secret_key_file"),
        ("max_inflight = 3", "max_in_flight"),
        ('tenant = ["a"]', "tenants"),
    ],
)
def test_a_misspelt_key_of_a_store_is_refused_with_the_known_one(file: Path, line: str, meant: str) -> None:
    key = line.split(" ", maxsplit=1)[0]
    text = "\n".join(old for old in STORE.splitlines() if not old.startswith(meant))
    assert f"[stores.main] {key}: is not known; did you mean {meant}?" in refused(file, f"{text}\n{line}")


def test_a_misspelt_key_of_a_root_is_refused_with_the_known_one(file: Path) -> None:
    said = refused(file, '[roots.media]\npaht = "/x"\nsecret_key = "fake-secret-1"')
    assert "[roots.media] paht: is not known; did you mean path?" in said


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('protocol = "ftp"', "protocol"),
        ('endpoint = "cos.example"', "endpoint"),
        ('endpoint = "http://"', "endpoint"),
        ('endpoint = "http://cos:many"', "endpoint"),
        ('endpoint = "http://cos:99999"', "endpoint"),
        ('endpoint = "http://[::1"', "endpoint"),
        ('endpoint = "ftp://cos"', "endpoint: the scheme ftp is not served"),
        ('endpoint = "http://user:fake-secret-1@cos"', "endpoint: it has a user or a password"),
        ('endpoint = "http://cos?fake-secret-1"', "endpoint: it has a query or a fragment"),
        ('endpoint = "http://cos#fake-secret-1"', "endpoint: it has a query or a fragment"),
        ('proxy = "user:fake-secret-1@proxy:3128"', "proxy: it is no URL, for no scheme:// begins it"),
        ('proxy = "proxy:3128"', "proxy: it is no URL"),
        ('proxy = "socks5://user:fake-secret-1@proxy"', "proxy: a proxy of the kind socks5 is not served"),
        ('proxy = "http://user:fake-secret-1@proxy:many"', "proxy: its port is no number"),
        ('proxy = "http://user:fake-secret-1@proxy/path"', "proxy: a proxy has no path, query or fragment"),
        ('proxy = "http://"', "proxy: it names no host"),
        ('appid = "x"', "appid"),
        ('bucket = "Uploads"', "bucket"),
        ("slice_bytes = 5", "slice_bytes"),
        ("max_in_flight = 0", "max_in_flight"),
        ("low_speed_bytes_per_s = 0", "low_speed_bytes_per_s"),
        ("connect_timeout_s = 0", "connect_timeout_s"),
        ("connect_timeout_s = inf", "connect_timeout_s: Input should be less than or equal to 86400"),
        ("answer_timeout_s = nan", "answer_timeout_s: Input should be less than or equal to 86400"),
        ("finish_timeout_s = 86401", "finish_timeout_s: Input should be less than or equal to 86400"),
        ("signature_ttl_s = 5", "signature_ttl_s"),
        ('mark = "never"', "mark"),
        ('prefix = "{tenant}"', "prefix"),
        ('prefix = "/{tenant}/"', "prefix"),
        ('prefix = "{tenant}//"', "prefix"),
        ('prefix = "a/../{tenant}/"', "prefix"),
        ('prefix = "{tenants}/"', "prefix"),
        ('prefix = "{{tenant}}/"', "prefix"),
        ('prefix = "/"', "prefix"),
        ('endpiont = "http://cos"', "endpiont"),
    ],
)
def test_a_wrong_key_of_a_store_is_named_with_its_file_and_table(file: Path, line: str, named: str) -> None:
    key = line.split(" ", maxsplit=1)[0]
    text = "\n".join(old for old in STORE.splitlines() if not old.startswith(f"{key} "))
    message = refused(file, f"{text}\n{line}")
    assert f"{file}: [stores.main] " in message
    assert named in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[roots.media]\npath = "media"', "[roots.media] path"),
        ("[roots.media]", "[roots.media] path"),
        ('[root.media]\npath = "/x"', "[root] is not known"),
        ('stores = "x"', "stores"),
        ('[stores]\nmain = "x"', "[stores.main] is not a table"),
        ("[stores.main", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(file: Path, text: str, named: str) -> None:
    message = refused(file, text)
    assert str(file) in message
    assert named in message


def test_a_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    made = load_settings(REQUIRED | {"SLICEWAY_STORES_FILE": str(tmp_path / "nothing.toml")})
    with pytest.raises(SettingsError, match=r"^SLICEWAY_STORES_FILE .*nothing.toml cannot be read"):
        _ = made.profiles


def test_secrets_of_a_profile_are_never_printed() -> None:
    store = StoreProfile(
        name="main", protocol="cos-json", endpoint="https://cos", appid="1", bucket="b",
        secret_id=SecretStr("fake-secret-id"), secret_key=SecretStr("fake-secret-key"),
        proxy="http://user:fake-secret-proxy@proxy:3128",
    )  # fmt: skip
    for text in (repr(store), str(store), repr(Profiles(stores={"main": store}, roots={}))):
        assert "fake-secret" not in text


# --- the manual ---


def default_of(model: Any, name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "one a processor"
    default = field.default
    if default in (None, ()):
        return "unset"
    return f"`{', '.join(default) if isinstance(default, tuple) else default}`"


def table(names: Iterable[str]) -> str:
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    rows += [
        f"| `{variable(name)}` | {default_of(Settings, name)} | {Settings.model_fields[name].description} |"
        for name in names
    ]
    return "\n".join(rows)


def store_rows() -> list[str]:
    return [f"| `{name}` | {default_of(StoreProfile, name)} |" for name in StoreProfile.model_fields if name != "name"]


def test_the_manual_has_the_tables_of_the_class() -> None:
    manual = MANUAL.read_text()
    assert table(name for name in Settings.model_fields if name not in ApiLimits.model_fields) in manual
    assert table(ApiLimits.model_fields) in manual


def test_the_manual_has_every_key_of_a_store() -> None:
    lines = MANUAL.read_text().splitlines()
    assert [row for row in store_rows() if not any(line.startswith(row) for line in lines)] == []


def test_the_manuals_example_is_a_stores_file(file: Path, tmp_path: Path) -> None:
    example = MANUAL.read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "main.key").write_text("fake-secret-key")
    made = profiles(file, example, os.environ | {"MEDIA_SECRET_ID": "fake-secret-id"})
    assert made.stores
    assert made.roots


def test_the_user_of_flower_is_no_secret() -> None:
    load_settings({**REQUIRED, "SLICEWAY_FLOWER_BASIC_AUTH": "sliceway:fake-secret-AbCdEfGh"})
    assert redact("`sliceway migrate`, sliceway:fake-secret-AbCdEfGh") == "`sliceway migrate`, sliceway:***"
