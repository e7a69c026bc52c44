"""Signing of COS JSON requests as `httpx.Auth`: afresh for every request, by the store's clock once it is known."""

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

SKEW_MAX_S = 86_400
"""A clock further off is not skewed but unset, and a `Date` further off is no store's: it would make us sign tokens
that are good on some other day."""


class Signer:
    """Makes the tokens of one profile; shared by threads."""

    def __init__(self, profile: StoreProfile, clock: Callable[[], float] = time.time) -> None:
        self._profile = profile
        self._clock = clock
        self._offset_s = 0.0

    def learn(self, date: str | None) -> bool:
        """Take the store's clock from the `Date` of its answer; say whether it could be taken."""
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return False
        offset_s = theirs - self._clock()
        if abs(offset_s) > SKEW_MAX_S:
            return False
        self._offset_s = offset_s
        return True

    def token(self, key: str, *, once: bool) -> str:
        """Return a token for the file: good for a few minutes, or for one request."""
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
    """Signs a request for one file at the moment it is sent."""

    def __init__(self, signer: Signer, key: str, *, once: bool = False) -> None:
        self._signer = signer
        self._key = key
        self._once = once
        self.token = ""
        """What the request was signed with, for those who keep it out of what they show."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put a fresh token into the header."""
        request.headers["Authorization"] = self.token = self._signer.token(self._key, once=self._once)
        yield request
