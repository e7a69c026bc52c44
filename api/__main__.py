"""`python -m api`: the front door in a process of its own."""

from __future__ import annotations

import sys

from api.app import server
from worker.errors import SlicewayError
from worker.log import set_up
from worker.settings import load_settings


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = load_settings()
        set_up(settings.log_format, settings.log_level)
        server(settings).run()
    except SlicewayError as error:
        sys.stderr.write(f"sliceway api: {error.message}; {error.advice}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
