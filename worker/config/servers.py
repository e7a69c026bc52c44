"""The settings of the servers' addresses and credentials: a part of `Settings`."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainValidator, SecretStr

from worker.config.broker_tls import completed
from worker.config.broker_url import SENTINEL, SENTINEL_EXAMPLE, BrokerUrl, Master
from worker.config.credentials import secrets_in
from worker.config.fields import Frozen
from worker.db.url import DatabaseUrl
from worker.errors import SettingsError
from worker.urls import Secret


class ServerSettings(Frozen):
    """Addresses of database and broker. Each URL is parsed once, here, into parts."""

    database_url: Annotated[DatabaseUrl, PlainValidator(DatabaseUrl.of)] = Field(
        description="Where jobs live: `postgresql+psycopg://user:password@host/database`."
    )
    database_direct_url: Annotated[DatabaseUrl, PlainValidator(DatabaseUrl.of)] | None = Field(
        default=None,
        description="A URL past the pooler that the other leads to, for LISTEN and `migrate`; unset: there is none.",
    )
    broker_url: Annotated[BrokerUrl, PlainValidator(BrokerUrl.of)] = Field(
        description="The Celery broker: `redis://:password@host:6379/0`; `rediss://` and `amqps://` speak TLS."
    )
    broker_sentinel_master: str | None = Field(
        default=None, description="Name of the Redis that the sentinels of a `sentinel://` URL are asked for."
    )
    broker_sentinel_password: SecretStr | None = Field(
        default=None, description="Password that the sentinels want; that of Redis stands in the URL."
    )
    broker_ca_file: Path | None = Field(
        default=None, description="Certificates of authorities to trust the broker's by, beside the system's."
    )
    broker_cert_file: Path | None = Field(default=None, description="Certificate to show the broker if it asks.")
    broker_key_file: Path | None = Field(default=None, description="Key of that certificate, without a passphrase.")

    @cached_property
    def broker(self) -> BrokerUrl:
        """The broker's URL with the files that the settings name, and with the master for the sentinels.

        Raises:
            SettingsError: a file or the master is missing, cannot be used, or does not fit the URL.
        """
        names = ("ca_file", "cert_file", "key_file")
        url = completed(self.broker_url, {name: getattr(self, f"broker_{name}") for name in names})
        return self._with_master(url)

    def _with_master(self, url: BrokerUrl) -> BrokerUrl:
        name, password = self.broker_sentinel_master, self.broker_sentinel_password
        if url.scheme != SENTINEL:
            if name is not None or password is not None:
                which = "MASTER" if name is not None else "PASSWORD"
                raise SettingsError(
                    f"SLICEWAY_BROKER_SENTINEL_{which} is set, but SLICEWAY_BROKER_URL begins with {url.scheme}://",
                    advice=f"Write {SENTINEL_EXAMPLE}, or unset it.",
                )
            return url
        if name is None:
            raise SettingsError(
                "SLICEWAY_BROKER_SENTINEL_MASTER is not set, but SLICEWAY_BROKER_URL begins with sentinel://",
                advice="Set it to the name that the sentinels have for the server: `sentinel monitor NAME …`.",
            )
        secret = None if password is None else Secret(password.get_secret_value())
        return replace(url, master=Master(name, secret))

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets of all settings. A store's profile has the store's own."""
        found: set[str] = set()
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                found.update(secrets_in(name, value.get_secret_value()))
            elif isinstance(value, DatabaseUrl | BrokerUrl):
                found.update(secret.reveal() for secret in value.secrets)
        return frozenset(found - {""})
