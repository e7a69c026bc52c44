"""Finds the secrets in settings, also in wrong ones: the error that refuses a setting must not show its secret.

A URL that cannot be parsed may still have a password, so this module takes each place where one can stand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from worker.config.variables import PREFIX, stripped
from worker.errors import SettingsError
from worker.telemetry.log import get_logger
from worker.telemetry.redact import hide, short_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BY_REFERENCE = ("secret_id", "secret_key")
"""Secrets of a store's profile that the stores file may name as `…_file` or `…_env`."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")

_WHOLE = frozenset({"secret_id", "secret_key", "api_key", "broker_sentinel_password"})
"""Settings whose whole value is a secret."""
_USER_AND_PASSWORD = frozenset({"flower_basic_auth"})
_LIKE_A_URL = re.compile(r"(?:url|proxy|endpoint)$|://")
_SECRET_OPTION = re.compile(r"pass|secret|token|api_?key", re.IGNORECASE)
_NAMES_A_ROLE = re.compile(r"\s*postgres", re.IGNORECASE)
"""A database URL may have a role without a password. In other URLs, text without a colon before @ may be a token."""
_TOKEN_MIN_CHARS = 16
SHORT = "a secret of fewer than 8 characters is blanked as a whole word, even where that is an ordinary one"
SHORT_ADVICE = "Choose a random secret of 24 characters or more."
log = get_logger(__name__)


def hide_environment(environ: Mapping[str, str]) -> None:
    """Hide the secrets of our variables from logs and errors. Call it before the variables are validated."""
    hide_secrets({name: value for name, value in environ.items() if name.startswith(PREFIX)}, prefix=PREFIX)


def hide_secrets(settings: Mapping[str, Any], *, prefix: str = "", where: str = "") -> None:
    """Hide the secrets of these settings from logs and errors.

    Args:
        settings: name -> unvalidated value.
        prefix: the prefix of each name.
        where: the location for messages, before the name.
    """
    for name, value in settings.items():
        hide(*secrets_in(name.removeprefix(prefix).lower(), value), setting=f"{where}{name}")


def warn_of_short_secrets() -> None:
    """Log at the start of a role which settings have a secret that is too short to be found in pieces."""
    if short := short_settings():
        log.warning("settings.short_secret", settings=short, message=SHORT, advice=SHORT_ADVICE)


def read_secrets(file: Path, store: str, table: Any, environ: Mapping[str, str]) -> Any:
    """Return a store's table with its secrets instead of `secret_key_file` and `secret_key_env`, and hide them.

    Raises:
        SettingsError: a secret cannot be read, or the table has it more than once.
    """
    if not isinstance(table, dict):
        return table
    values = dict(table)
    hide_secrets(values, where=f"{file}: [stores.{store}] ")
    for secret in BY_REFERENCE:
        path, env = values.pop(f"{secret}_file", None), values.pop(f"{secret}_env", None)
        where = f"{file}: [stores.{store}] {secret}"
        if sum(given is not None for given in (path, env, values.get(secret))) > 1:
            raise SettingsError(f"{where} is given more than once; keep one of the value, _file and _env")
        if path is not None:
            try:
                text = (file.parent / path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{where}_file cannot be read: {error}") from error
            values[secret] = _usable(text, f"{where}_file: {path}")
        elif env is not None:
            if not environ.get(env):
                # a value that is no variable's name may be the secret itself
                named = env if _VARIABLE.fullmatch(str(env)) else "that it names"
                raise SettingsError(f"{where}_env: the variable {named} is not set")
            values[secret] = _usable(environ[env], f"{where}_env: the variable {env}")
    hide_secrets(values, where=f"{file}: [stores.{store}] ")
    return values


def checked_secret(text: str) -> str:
    """Return a secret without the white space around it.

    Raises:
        ValueError: the secret is empty, or has a control character.
    """
    secret = stripped(text)
    if not secret:
        raise ValueError("is empty")
    if not secret.isprintable():
        raise ValueError("has a character that cannot be printed, such as a line break")
    return secret


def _usable(text: str, where: str) -> str:
    hide(stripped(text))
    try:
        return checked_secret(text)
    except ValueError as error:
        raise SettingsError(f"{where} {error}") from None


def secrets_in(name: str, value: Any) -> Iterator[str]:
    """Yield every secret that a setting may hold, as written and decoded.

    Args:
        name: name of the setting, in lower case, without a prefix.
        value: the unvalidated value, of any type.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            yield from secrets_in(str(key), part)
    elif isinstance(value, list):
        for part in value:
            yield from secrets_in(name, part)
    elif isinstance(value, str):
        yield from filter(None, (stripped(each) for each in _secrets_in_text(name, value)))


def _secrets_in_text(name: str, text: str) -> Iterator[str]:
    if name in _WHOLE:
        yield text
    elif name in _USER_AND_PASSWORD:
        user, colon, password = text.partition(":")
        yield password if colon else user
    elif _LIKE_A_URL.search(name) or _LIKE_A_URL.search(text):
        several = text.split(";")  # Celery accepts a list of brokers
        for url in several if all("://" in each for each in several) else [text]:
            for secret in _secrets_in_url(url):
                yield secret
                yield unquote(secret)


def _secrets_in_url(url: str) -> Iterator[str]:
    scheme, marked, rest = url.partition("://")
    if not marked:
        scheme, rest = "", url
    # up to the last @: an unencoded password may have any character, and a file's name in the path may have an @
    userinfo, at, _ = rest.rpartition("@")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    for given in {userinfo, authority.rpartition("@")[0]}:
        user, colon, password = given.partition(":")
        if colon:
            yield password
        elif len(user) >= _TOKEN_MIN_CHARS and not _NAMES_A_ROLE.match(scheme):
            yield user
    if not at and (port := authority.rpartition(":")[2]) != authority and not re.fullmatch(r"[0-9]*|.*\]", port):
        yield port  # user:password without a host behind it
        yield rest.partition(":")[2]
    for given in rest.partition("?")[2].split("&"):
        option, _, value = given.partition("=")
        if _SECRET_OPTION.search(option):
            yield value
