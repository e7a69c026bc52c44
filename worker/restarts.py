"""When a supervisor starts a process again that has ended: `sliceway worker` and `sliceway up` have the same rule."""

from __future__ import annotations

from dataclasses import dataclass

STEADY_S = 10.0
"""A process that ran for so long is in no crash loop."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 15.0


@dataclass(slots=True)
class RestartBackoff:
    """The pauses of one process: none after a steady run, else half a second that doubles with each quick end."""

    next_s: float = FIRST_PAUSE_S

    def pause_s(self, ran_s: float) -> float:
        """Return the seconds until the next start of the process, which ran for `ran_s` seconds."""
        if ran_s >= STEADY_S:
            self.next_s = FIRST_PAUSE_S
            return 0.0
        pause_s, self.next_s = self.next_s, min(MAX_PAUSE_S, 2 * self.next_s)
        return pause_s
