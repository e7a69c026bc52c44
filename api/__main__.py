"""`python -m api`: the API in a process of its own."""

from __future__ import annotations

import gc
import signal
import sys

from api.app import server
from worker.config.credentials import warn_of_short_secrets
from worker.config.settings import load_settings
from worker.db.upgrade import refuse_unexpected_pooler
from worker.errors import SlicewayError
from worker.signals import run_on_after_hangup
from worker.telemetry.log import set_up
from worker.telemetry.redact import redact

_COLLECT_AFTER = 50_000
"""Objects, some megabytes: more than one batch makes. With 700, Python's default, the collector would run several times
during each batch."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops cleanly, then raises the signal again
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        set_up(settings.log_format, settings.log_level)
        served = server(settings)
        warn_of_short_secrets()
        refuse_unexpected_pooler(settings.database_url, settings.database_direct_url)
        run_on_after_hangup(served.app_state.stores.ask_reload)
        gc.freeze()  # these objects stay: collecting them was a fifth of the time of a large batch
        gc.set_threshold(_COLLECT_AFTER)
        served.run()
    except SlicewayError as error:
        sys.stderr.write(redact(f"sliceway: {error.message}. {error.advice}") + "\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
