from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_interrupted_demo_says_so_and_leaves_nothing_behind(server_folder: Path) -> None:
    place = server_folder / "demo"
    place.mkdir()
    place.chmod(0o711)
    demo = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(place)},
    )
    assert demo.stdout is not None
    while "POST" not in (line := demo.stdout.readline()):
        assert line, demo.communicate()[1]
    assert [path.name.startswith("sliceway-demo-") for path in place.iterdir()] == [True]
    demo.send_signal(signal.SIGINT)
    _, error = demo.communicate(timeout=240)
    assert "the demo was interrupted" in error
    assert error.count("\n") == 1
    assert demo.returncode == 130
    assert list(place.iterdir()) == []
