"""How long a test waits."""

DEADLINE_S = 240.0
"""For what must come. Only a failure takes so long: a loaded machine is none."""
