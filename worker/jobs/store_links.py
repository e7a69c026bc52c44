"""What workers report of the links to the stores, and what the leader keeps of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.documents import LinkCounters
    from worker.jobs.links import Link


def reported_links(tx: Connection) -> list[tuple[UUID, list[LinkCounters]]]:
    """Return what each live worker has reported of its links."""
    return [(row["id"], row["links"]) for row in tx.execute(sql("reported_links"))]


def keep_links(tx: Connection, links: Mapping[str, Link]) -> None:
    """Store what was found out of these links, with the time."""
    rows = [{"store": store, **asdict(link)} for store, link in links.items()]
    tx.execute(sql("keep_links"), {"links": json.dumps(rows)})
