"""The settings: one frozen class, read once at start from the `SLICEWAY_…` variables; and the stores file."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
)

from worker.config.api_limits import ApiLimits
from worker.config.cgroup import processors
from worker.config.credentials import hide_environment
from worker.config.fields import EndpointValue, Positive, PositiveFloat, SecretValue, plain, variable
from worker.config.imports import ModuleNames
from worker.config.live_profiles import LiveProfiles
from worker.config.servers import ServerSettings
from worker.config.timeouts import Timers
from worker.config.variables import given, nearest
from worker.errors import SettingsError
from worker.telemetry.redact import hide
from worker.urls import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo

    from worker.config.profiles import Profiles
    from worker.db.url import DatabaseUrl


RootPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]


class Settings(ServerSettings, ApiLimits):
    """All settings. `docs/settings.md` has the same table, and a test compares the two.

    The field `api_port` has the value of `SLICEWAY_API_PORT`. Durations are seconds, sizes bytes.
    """

    stores_file: Path | None = Field(default=None, description="TOML file with `[stores.NAME]` and `[roots.NAME]`.")
    state_dir: Path | None = Field(default=None, description="Folder of `sliceway up`: embedded servers, logs, keys.")
    api_host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="Port of the API.")
    api_url: EndpointValue = Field(
        default=Endpoint("http", "127.0.0.1", 8080), description="Where the command line finds the API."
    )
    api_key: SecretValue | None = Field(default=None, description="The key that the command line sends.")
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
        default=None, description="Slices of one job dispatched at once; unset, twice what all workers can send."
    )
    heartbeat_s: PositiveFloat = Field(default=2.0, description="How often a worker says that it lives.")
    dead_after_s: PositiveFloat = Field(default=10.0, description="Silence after which a worker counts as dead.")
    lead_s: PositiveFloat = Field(default=3.0, description="How long a dispatcher leads without renewing.")
    time_scale: PositiveFloat = Field(
        default=1.0,
        description="Multiplies the timers of `worker/config/timeouts.py`; only for a database named `test…`.",
    )
    retry_for_s: Positive = Field(
        default=86_400, description="Time in failure after which a job fails, if it names none."
    )
    wait_for_s: Positive = Field(
        default=604_800, description="Time that a job waits for an unusable store or an unmounted root before it fails."
    )
    flower_host: str = Field(default="127.0.0.1", description="Address that Flower listens on.")
    flower_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=5555, description="Port of Flower.")
    flower_basic_auth: SecretValue | None = Field(
        default=None, description="`user:password` for Flower; it does not start without."
    )
    flower_root_path: RootPath | None = Field(
        default=None, description="Path below which Flower serves, such as `/flower`; its proxy passes it on."
    )
    celery: Literal["auto", "stock"] = Field(
        default="auto",
        description="`auto`: Sliceway's short path with the Celery and kombu it was written for; `stock`: theirs.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`json`, `text`, or `auto`: text on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    import_: ModuleNames = Field(
        default=(), description="Modules that API, workers and Flower import first, parted by commas; for tracing."
    )

    @field_validator("time_scale")
    @classmethod
    def _only_in_tests(cls, value: float, info: ValidationInfo) -> float:
        url: DatabaseUrl | None = info.data.get("database_url")
        if value != 1 and not (url and (url.database or "").startswith("test")):
            raise ValueError("is for tests: the name of the database does not begin with test; unset it")
        return value

    @cached_property
    def timers(self) -> Timers:
        """The durations of the engine."""
        return Timers(self.heartbeat_s, self.dead_after_s, self.lead_s).scaled(self.time_scale)

    @cached_property
    def live_profiles(self) -> LiveProfiles:
        """The stores and roots of this process, which can be read again.

        Raises:
            SettingsError: the file cannot be read, or a table is wrong; the message names table and key.
        """
        return LiveProfiles(self.stores_file, os.environ)

    @property
    def profiles(self) -> Profiles:
        """The stores and roots, as the stores file had them when this process read it last.

        Raises:
            SettingsError: as `live_profiles`, at the first reading.
        """
        return self.live_profiles.profiles


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a variable is missing, wrong or unknown; the message names it.
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
        what = "is not set" if first["type"] == "missing" else f"is wrong: {plain(first['msg'])}"
        raise SettingsError(f"{variable(field)} {what}") from None
    hide(*made.secrets)
    made.broker  # noqa: B018 - a wrong file or master is reported at start, and not when a worker connects
    return made
