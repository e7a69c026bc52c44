"""TLS to the broker: checks its files at start, makes the options of each library, and explains failures."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker.config.broker_url import FILE_OPTIONS
from worker.errors import SettingsError
from worker.telemetry.redact import chain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.config.broker_url import BrokerTls, BrokerUrl

_VARIABLES = {name: f"SLICEWAY_BROKER_{name.upper()}" for name in FILE_OPTIONS}
_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def completed(url: BrokerUrl, files: Mapping[str, Path | None]) -> BrokerUrl:
    """Return the URL with the files of the settings, after a check that all of its files can be used.

    Raises:
        SettingsError: a file is named twice, cannot be used, or is named for a URL without TLS; names the variable.
    """
    given: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    if url.tls is None:
        if given:
            variable = _VARIABLES[next(iter(given))]
            raise SettingsError(
                f"{variable} is set, but SLICEWAY_BROKER_URL begins with {url.scheme}://, which speaks no TLS",
                advice="Write rediss:// (RabbitMQ: amqps://), or unset it.",
            )
        return url
    for name in given:
        if getattr(url.tls, name) is not None:
            raise SettingsError(
                f"{_VARIABLES[name]} is set, and SLICEWAY_BROKER_URL has {FILE_OPTIONS[name]}",
                advice="Keep one of them.",
            )
    tls = replace(url.tls, **given)
    in_url = {name: f"SLICEWAY_BROKER_URL: {option}" for name, option in FILE_OPTIONS.items() if name not in given}
    _check_files(tls, _VARIABLES | in_url)
    return replace(url, tls=tls, others=tuple(replace(each, tls=tls) for each in url.others))


def _check_files(tls: BrokerTls, names: Mapping[str, str]) -> None:
    if tls.ca_file is not None:
        try:
            ssl.create_default_context(cafile=tls.ca_file)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{names['ca_file']} {tls.ca_file} {_why(error, 'holds no certificate in PEM')}",
                advice="Name the file of the authority that has signed the broker's certificate.",
            ) from None
    if tls.key_file is not None and tls.cert_file is None:
        raise SettingsError(
            f"{names['key_file']} is set without a certificate", advice="Set SLICEWAY_BROKER_CERT_FILE."
        )
    if tls.cert_file is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tls.cert_file, tls.key_file, password="")
        except (OSError, ValueError) as error:
            which = f"{names['cert_file']} {tls.cert_file}"
            which += f" or {names['key_file']} {tls.key_file}" if tls.key_file is not None else ""
            why = _why(error, "cannot be used: no certificate and its key in PEM, or the key has a passphrase")
            raise SettingsError(
                f"{which} {why}", advice="Name a certificate and its key without a passphrase."
            ) from None


def _why(error: Exception, otherwise: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror}"
    return otherwise


def for_kombu(url: BrokerUrl) -> dict[str, Any] | bool:
    """Return the value of Celery's `broker_use_ssl`: False without TLS."""
    tls = url.tls
    if tls is None:
        return False
    if url.is_redis:
        return tls.for_redis()
    named = {"ca_certs": tls.ca_file, "certfile": tls.cert_file, "keyfile": tls.key_file}
    if tls.check_hostname and tls.verify != "none":  # py-amqp checks the host name only if it gets one
        named["server_hostname"] = url.host
    return {"cert_reqs": _VERIFY[tls.verify]} | {name: value for name, value in named.items() if value is not None}


def failure(error: BaseException) -> tuple[str, str] | None:
    """Return the text and the advice for a failure of TLS; None for any other failure."""
    for each in chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            if "ostname mismatch" in each.verify_message or "IP address mismatch" in each.verify_message:
                what = f"the broker's certificate is for another host: {each.verify_message.rstrip('.')}"
                return what, "Write the host in SLICEWAY_BROKER_URL that its certificate is for."
            what = f"the broker's certificate is not trusted: {each.verify_message}"
            return what, "Set SLICEWAY_BROKER_CA_FILE to the certificate of the authority that has signed it."
        if isinstance(each, ssl.SSLError):
            reason = (each.reason or str(each)).replace("_", " ").lower()
            if "alert" in reason and "certificate" in reason:
                what = f"the broker does not take our certificate: {reason}"
                return what, "Set SLICEWAY_BROKER_CERT_FILE and SLICEWAY_BROKER_KEY_FILE to what it asks for."
            what = f"TLS with the broker fails: {reason}"
            return what, "See that the port in SLICEWAY_BROKER_URL is the one for TLS."
    return None
