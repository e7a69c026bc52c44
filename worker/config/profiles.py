"""The stores file: the stores that uploads go to, and the roots that workers read files from."""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
)

from worker.config.credentials import BY_REFERENCE, read_secrets
from worker.config.fields import EndpointValue, Frozen, Positive, SecretValue, plain
from worker.config.tenants import EVERYBODY, Prefix, Prefixed, Tenanted
from worker.config.variables import PREFIX, nearest
from worker.errors import Refused, SettingsError
from worker.protocols import cos_json
from worker.protocols.spec import MIB, canonical_target, check_slice_size, normal_key
from worker.urls import ProxyUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo

    from worker.protocols.spec import ProtocolLimits

Timeout = Annotated[float, Field(gt=0, le=86_400)]
"""Seconds, a day at most: a claim lasts for several timeouts, and a lease has to have an end."""

PROTOCOLS: Mapping[str, ProtocolLimits] = {"cos-json": cos_json.LIMITS}
"""The limits of each protocol, by the name that a store's table gives as `protocol`."""


class StoreProfile(Frozen, Prefixed):
    """A store that jobs may upload to: `[stores.NAME]` in the stores file.

    Each secret stands there by value, as `secret_key_file` (a path), or as `secret_key_env` (a variable's name).
    """

    name: str
    protocol: Literal["cos-json"]
    endpoint: EndpointValue
    appid: Annotated[str, Field(pattern=r"^[0-9]+$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    secret_id: SecretValue
    secret_key: SecretValue
    tenants: tuple[str, ...] = (EVERYBODY,)
    prefix: Prefix | None = None
    dry_run_sees: Literal["all", "own"] = "all"
    slice_bytes: int = 3 * MIB
    mark: Literal["auto", "always"] = "auto"
    max_in_flight: Positive = 64
    low_speed_bytes_per_s: Positive = 64 * 1024
    connect_timeout_s: Timeout = 5
    answer_timeout_s: Timeout = 30
    finish_timeout_s: Timeout = 120
    signature_ttl_s: Annotated[int, Field(ge=30, le=86400)] = 300
    ca_file: Path | None = None
    proxy: Annotated[ProxyUrl, PlainValidator(ProxyUrl.of)] | None = None

    @field_validator("slice_bytes")
    @classmethod
    def _slice(cls, value: int, info: ValidationInfo) -> int:
        try:
            return check_slice_size(value, PROTOCOLS[info.data["protocol"]]) if "protocol" in info.data else value
        except Refused as refused:
            raise ValueError(refused.message) from None

    def target(self, key: str) -> str:
        """Return the canonical target of ``key`` in this store.

        Raises:
            Refused: ``bad_key``, the key is not allowed.
        """
        return canonical_target(
            protocol=self.protocol,
            endpoint=self.endpoint,
            account=self.appid,
            bucket=self.bucket,
            key=normal_key(key, self.limits),
        )

    @property
    def limits(self) -> ProtocolLimits:
        """The limits of the store's protocol."""
        return PROTOCOLS[self.protocol]

    @property
    def whole_bytes(self) -> int:
        """Size in bytes of the largest file that is uploaded in one request."""
        return min(self.slice_bytes, self.limits.max_whole_bytes)


class RootProfile(Frozen, Tenanted):
    """A folder that workers may read files from: `[roots.NAME]` in the stores file."""

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


class Profiles(Frozen):
    """The named stores and roots of the installation."""

    stores: dict[str, StoreProfile]
    roots: dict[str, RootProfile]

    @cached_property
    def places(self) -> dict[str, str]:
        """Store name -> prefix of the targets in it, before the key."""
        return {name: profile.target("-").removesuffix("-") for name, profile in self.stores.items()}

    @cached_property
    def blind(self) -> frozenset[str]:
        """The stores whose dry runs do not tell of other tenants' jobs."""
        return frozenset(name for name, store in self.stores.items() if store.dry_run_sees == "own")

    @cached_property
    def caps(self) -> dict[str, int]:
        """Store name -> requests of any kind that may be out to it at once."""
        return {name: store.max_in_flight for name, store in self.stores.items()}

    @cached_property
    def whole_bytes(self) -> int:
        """Size in bytes of the largest file that is uploaded to any of the stores in one request."""
        return max((store.whole_bytes for store in self.stores.values()), default=0)


_P = TypeVar("_P", StoreProfile, RootProfile)


def load_profiles(file: Path, environ: Mapping[str, str]) -> Profiles:
    """Read the stores file.

    Raises:
        SettingsError: the file cannot be read, or a table is wrong; the message names table and key.
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
        # report a misspelt key first: a missing key may be the one that is misspelt
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key, what = ".".join(str(part) for part in first["loc"]), plain(first["msg"])
        if first["type"] == "extra_forbidden":
            what = f"is not known{nearest(key, _keys_of(kind))}"
        raise SettingsError(f"{file}: [{table}.{name}] {key}: {what}") from None


def _keys_of(kind: type[BaseModel]) -> list[str]:
    """Return the keys that a table of the stores file may have."""
    referred = [f"{secret}_{how}" for secret in BY_REFERENCE for how in ("file", "env") if secret in kind.model_fields]
    return [*(name for name in kind.model_fields if name != "name"), *referred]
