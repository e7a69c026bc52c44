"""Which tenants a store or a root is for, and where each may write. Parts of the profiles."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

EVERYBODY = "*"
"""In a list of tenants: whoever has a key, tenants that come later too."""
_TENANT = "{tenant}"


class Tenanted:
    """A profile with a list of tenants."""

    tenants: tuple[str, ...]

    def allows(self, tenant: str) -> bool:
        """Say whether the tenant may use the profile."""
        return EVERYBODY in self.tenants or tenant in self.tenants


class Prefixed(Tenanted):
    """A profile under which each tenant may have a folder of its own."""

    prefix: str | None

    def key_prefix(self, tenant: str) -> str:
        """Return what the tenant's keys must begin with."""
        return _fill(self.prefix or "", tenant)


def _fill(prefix: str, tenant: str) -> str:
    return prefix.replace(_TENANT, tenant)


def _check(prefix: str) -> str:
    names = _fill(prefix, "tenant").split("/")
    if names.pop() or not all(names) or not {".", ".."}.isdisjoint(names):
        raise ValueError("must be folders, each with a / after it, such as {tenant}/")
    if not {"{", "}"}.isdisjoint("".join(names)):
        raise ValueError("may have {tenant} in it, and no other braces")
    return prefix


Prefix = Annotated[str, AfterValidator(_check)]
"""Folders, each with a `/` after it, lest `shop` write to `shop2`; `{tenant}` is the tenant's name."""
