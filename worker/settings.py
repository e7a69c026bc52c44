"""What the installation is: one frozen class, read once at start, from `SLICEWAY_…` variables and the stores file."""

from __future__ import annotations

import os
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
)

from worker.api_limits import ApiLimits
from worker.cgroup import processors
from worker.credentials import BY_REFERENCE, checked_secret, hide_environment, read_secrets
from worker.errors import Refused, SettingsError
from worker.limits import MIB, PROTOCOLS, canonical_target, check_slice_size, normal_key
from worker.redact import hide, redact
from worker.server_settings import ServerSettings
from worker.tenants import EVERYBODY, Prefix, Prefixed, Tenanted
from worker.timers import Timers
from worker.urls import Endpoint, ProxyUrl
from worker.variables import PREFIX, given, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo

    from worker.database_url import DatabaseUrl


Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
RootPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]
_Endpoint = Annotated[Endpoint, PlainValidator(Endpoint.of)]
_Secret = Annotated[SecretStr, AfterValidator(lambda value: SecretStr(checked_secret(value.get_secret_value())))]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class StoreProfile(_Frozen, Prefixed):
    """A place that jobs may be written to: `[stores.NAME]` in the stores file.

    Each secret is given by value, or as `secret_key_file` (a path), or as `secret_key_env` (a variable's name).
    """

    name: str
    protocol: Literal["cos-json"]
    endpoint: _Endpoint
    appid: Annotated[str, Field(pattern=r"^[0-9]+$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    secret_id: _Secret
    secret_key: _Secret
    tenants: tuple[str, ...] = (EVERYBODY,)
    prefix: Prefix | None = None
    dry_run_sees: Literal["all", "own"] = "all"
    slice_bytes: int = 3 * MIB
    mark: Literal["auto", "always"] = "auto"
    max_in_flight: Positive = 64
    low_speed_bytes_per_s: Positive = 64 * 1024
    connect_timeout_s: PositiveFloat = 5
    answer_timeout_s: PositiveFloat = 30
    finish_timeout_s: PositiveFloat = 120
    signature_ttl_s: Annotated[int, Field(ge=30, le=86400)] = 300
    ca_file: Path | None = None
    proxy: Annotated[ProxyUrl, PlainValidator(ProxyUrl.of)] | None = None

    @field_validator("slice_bytes")
    @classmethod
    def _slice(cls, value: int, info: ValidationInfo) -> int:
        try:
            return check_slice_size(value, info.data["protocol"]) if "protocol" in info.data else value
        except Refused as refused:
            raise ValueError(refused.message) from None

    def target(self, key: str) -> str:
        """Return the canonical name of the place that ``key`` has in this store; checks the key.

        Raises:
            Refused: ``bad_key``.
        """
        return canonical_target(
            protocol=self.protocol,
            endpoint=self.endpoint,
            account=self.appid,
            bucket=self.bucket,
            key=normal_key(key, self.protocol),
        )

    @property
    def whole_bytes(self) -> int:
        """The largest file, in bytes, that goes up in one request."""
        return min(self.slice_bytes, PROTOCOLS[self.protocol].whole_bytes)


class RootProfile(_Frozen, Tenanted):
    """A folder that files may be read from: `[roots.NAME]` in the stores file."""

    name: str
    path: Path
    tenants: tuple[str, ...] = (EVERYBODY,)
    fingerprint: Literal["strict", "size-mtime"] = "strict"

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value


class Settings(ServerSettings, ApiLimits):
    """Everything that can be set; `docs/settings.md` has the same table, and a test compares the two.

    A field named `api_port` is read from `SLICEWAY_API_PORT`. Durations are seconds, sizes bytes.
    """

    stores_file: Path | None = Field(default=None, description="TOML file with `[stores.NAME]` and `[roots.NAME]`.")
    state_dir: Path | None = Field(default=None, description="Folder of `sliceway up`: embedded servers, logs, keys.")
    api_host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="Port of the API.")
    api_url: _Endpoint = Field(
        default=Endpoint("http", "127.0.0.1", 8080), description="Where the command line finds the API."
    )
    api_key: _Secret | None = Field(default=None, description="The key that the command line sends.")
    root_path: RootPath | None = Field(
        default=None, description="Path below which a proxy publishes the API, such as `/sliceway`."
    )
    api_threads: Positive = Field(default=16, description="Requests that one API process serves at once.")
    max_live_jobs: Positive = Field(default=100_000, description="Live jobs a tenant may have.")
    worker_processes: Positive = Field(
        default_factory=processors,
        description="Worker processes that `sliceway worker` keeps; counted are the processors that it may use.",
    )
    worker_threads: Positive | None = Field(
        default=None, description="Slices that one worker process sends at once; unset, 8 to 16: as many as pay."
    )
    worker_nice: Annotated[int, Field(ge=0, le=19)] = Field(
        default=10, description="How far uploads yield the processors to the API and all else; 0: not at all."
    )
    window: Positive | None = Field(
        default=None, description="Slices of one job handed out at once; unset, twice what all workers can send."
    )
    heartbeat_s: PositiveFloat = Field(default=2.0, description="How often a worker says that it lives.")
    dead_after_s: PositiveFloat = Field(default=10.0, description="Silence after which a worker counts as dead.")
    lead_s: PositiveFloat = Field(default=3.0, description="How long a dispatcher leads without renewing.")
    time_scale: PositiveFloat = Field(
        default=1.0, description="Multiplies the timers of `worker/timers.py`; only for a database named `test…`."
    )
    retry_for_s: Positive = Field(
        default=86_400, description="Time in failure after which a job fails, if it names none."
    )
    wait_for_s: Positive = Field(
        default=604_800, description="Time that a job waits for an unusable store or an unmounted root before it fails."
    )
    flower_host: str = Field(default="127.0.0.1", description="Address that Flower listens on.")
    flower_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=5555, description="Port of Flower.")
    flower_basic_auth: _Secret | None = Field(
        default=None, description="`user:password` for Flower; it does not start without."
    )
    flower_root_path: RootPath | None = Field(
        default=None, description="Path below which Flower serves, such as `/flower`; its proxy passes it on."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`json`, `text`, or `auto`: text on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    @field_validator("time_scale")
    @classmethod
    def _only_in_tests(cls, value: float, info: ValidationInfo) -> float:
        url: DatabaseUrl | None = info.data.get("database_url")
        if value != 1 and not (url and (url.database or "").startswith("test")):
            raise ValueError("is for tests: the name of the database does not begin with test; unset it")
        return value

    @cached_property
    def timers(self) -> Timers:
        """The durations that the engine goes by."""
        return Timers(self.heartbeat_s, self.dead_after_s, self.lead_s).scaled(self.time_scale)

    @cached_property
    def profiles(self) -> Profiles:
        """The stores and roots, read from the stores file once.

        Raises:
            SettingsError: the file cannot be read, or names the table and key that is wrong.
        """
        return load_profiles(self.stores_file, os.environ) if self.stores_file else Profiles(stores={}, roots={})


class Profiles(_Frozen):
    """The named stores and roots of the installation."""

    stores: dict[str, StoreProfile]
    roots: dict[str, RootProfile]

    @cached_property
    def places(self) -> dict[str, str]:
        """What the targets in each store begin with; the key follows."""
        return {name: profile.target("-").removesuffix("-") for name, profile in self.stores.items()}


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    return PREFIX + field.upper()


_P = TypeVar("_P", StoreProfile, RootProfile)


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a variable is missing, wrong or unknown; names it.
    """
    hide_environment(environ)
    known = {variable(field): field for field in Settings.model_fields}
    values = given(environ)
    if unknown := sorted(set(values) - set(known)):
        meant = nearest(unknown[0], known)
        raise SettingsError(f"{unknown[0]} is not a setting{meant}", advice="Correct its name or remove it.")
    try:
        made = Settings.model_validate({known[name]: value for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        what = "is not set" if first["type"] == "missing" else f"is wrong: {_plain(first['msg'])}"
        raise SettingsError(f"{variable(field)} {what}") from None
    hide(*made.secrets)
    made.broker  # noqa: B018 - judged now, and not where a worker connects
    return made


def load_profiles(file: Path, environ: Mapping[str, str]) -> Profiles:
    """Read the stores file.

    Raises:
        SettingsError: the file cannot be read, or a table in it is wrong; names the table and the key.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{PREFIX}STORES_FILE {file} cannot be read: {error}") from error
    if unknown := sorted(set(document) - {"stores", "roots"}):
        raise SettingsError(f"{file}: [{unknown[0]}] is not known; there are [stores.NAME] and [roots.NAME]")
    if loose := [table for table, profiles in document.items() if not isinstance(profiles, dict)]:
        raise SettingsError(f"{file}: {loose[0]} is not a table; write [{loose[0]}.NAME]")
    stores = {
        name: _profile(StoreProfile, file, "stores", name, read_secrets(file, name, table, environ))
        for name, table in document.get("stores", {}).items()
    }
    roots = {
        name: _profile(RootProfile, file, "roots", name, table) for name, table in document.get("roots", {}).items()
    }
    return Profiles(stores=stores, roots=roots)


def _profile(kind: type[_P], file: Path, table: str, name: str, values: Any) -> _P:
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: [{table}.{name}] is not a table")
    try:
        return kind.model_validate({**values, "name": name})
    except ValidationError as error:
        # a misspelt key first: what then seems to be missing is there under another name
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key, what = ".".join(str(part) for part in first["loc"]), _plain(first["msg"])
        if first["type"] == "extra_forbidden":
            what = f"is not known{nearest(key, _keys_of(kind))}"
        raise SettingsError(f"{file}: [{table}.{name}] {key}: {what}") from None


def _keys_of(kind: type[BaseModel]) -> list[str]:
    """Return what may stand in a table of the stores file."""
    referred = [f"{secret}_{how}" for secret in BY_REFERENCE for how in ("file", "env") if secret in kind.model_fields]
    return [*(name for name in kind.model_fields if name != "name"), *referred]


def _plain(message: str) -> str:
    return redact(message.removeprefix("Value error, "))
