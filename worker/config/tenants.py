"""Which tenants may use a store or a root, and under which prefix. Base classes of the profiles."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

EVERYBODY = "*"
"""In a list of tenants: all tenants, future ones included."""
_TENANT = "{tenant}"


class Tenanted:
    """A profile with a list of tenants."""

    tenants: tuple[str, ...]

    def allows(self, tenant: str) -> bool:
        """Say whether the tenant may use the profile."""
        return EVERYBODY in self.tenants or tenant in self.tenants


class Prefixed(Tenanted):
    """A profile that may give each tenant a folder of its own."""

    prefix: str | None

    def key_prefix(self, tenant: str) -> str:
        """Return the prefix that the tenant's keys must have."""
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
"""Folders, each with a `/` after it, so that `shop` cannot write to `shop2`; `{tenant}` is the tenant's name."""
