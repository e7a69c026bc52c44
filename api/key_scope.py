"""Which holds and limits of stores and tenants a key may see and change."""

from api.state import AppState
from worker.errors import Forbidden
from worker.jobs.api_keys import ApiKey, Scope


def check_admin(key: ApiKey) -> None:
    """Refuse a key without the scope `admin`.

    Raises:
        Forbidden: it lacks the scope.
    """
    if not key.may(Scope.ADMIN):
        raise Forbidden("the key lacks the scope admin", advice="Use a key with the scope admin.")


def concerns(kind: str, name: str, key: ApiKey, app_state: AppState) -> bool:
    """Say whether jobs that the key sees may wait for what an operator has set for the queue, a store or a tenant."""
    if key.may(Scope.ADMIN) or kind == "queue":
        return True
    if kind == "tenant":
        return name == key.tenant
    store = app_state.settings.profiles.stores.get(name)
    return store is not None and store.allows(key.tenant)
