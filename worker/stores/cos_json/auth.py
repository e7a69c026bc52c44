"""Signs each COS JSON request as an `httpx.Auth`, by the store's clock once it is known."""

from __future__ import annotations

import secrets
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

from worker.stores.cos_json.signing import ONCE, file_id, plain_text, token

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from worker.config.profiles import StoreProfile

MAX_SKEW_S = 86_400
"""The largest difference between the clocks that is corrected. A larger one shows a clock that is not set, or a `Date`
that is not the store's: the tokens would be valid on another day."""


class Signer:
    """Makes the tokens of one profile; several threads share it."""

    def __init__(self, profile: StoreProfile, clock: Callable[[], float] = time.time) -> None:
        self._profile = profile
        self._clock = clock
        self._offset_s = 0.0

    def learn(self, date: str | None) -> bool:
        """Set the clock's offset from the `Date` of a response; return whether the date could be used."""
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return False
        offset_s = theirs - self._clock()
        if abs(offset_s) > MAX_SKEW_S:
            return False
        self._offset_s = offset_s
        return True

    def token(self, key: str, *, once: bool) -> str:
        """Return a token for the file, valid for a few minutes or for one request."""
        profile, now = self._profile, int(self._clock() + self._offset_s)
        plain = plain_text(
            appid=profile.appid,
            secret_id=profile.secret_id.get_secret_value(),
            bucket=profile.bucket,
            expires=ONCE if once else now + profile.signature_ttl_s,
            now=now,
            nonce=secrets.randbits(32),
            file=file_id(profile.appid, profile.bucket, key),
        )
        return token(profile.secret_key.get_secret_value(), plain)


class CosJsonAuth(httpx.Auth):
    """Signs a request for one file when it is sent."""

    def __init__(self, signer: Signer, key: str, *, once: bool = False) -> None:
        self._signer = signer
        self._key = key
        self._once = once
        self.token = ""
        """The token of the last request; the client removes it from error texts."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put a new token into the header."""
        request.headers["Authorization"] = self.token = self._signer.token(self._key, once=self._once)
        yield request
