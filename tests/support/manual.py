"""Code of the manual, for tests that run it as it stands there."""

from __future__ import annotations

from pathlib import Path

_OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def snippet(name: str) -> str:
    """Return the code block of docs/operating.md that begins with the name of its file."""
    [code] = [each for each in _OPERATING.read_text().split("```python\n")[1:] if each.startswith(f"# {name};")]
    return code.partition("```")[0]
