"""The clients of others: fetched for one run into a temporary folder, none of it kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from measure import out

SDK = ("qcloud_cos_v4==0.0.26", "requests==2.27.1", "urllib3==1.26.20", "chardet==4.0.0", "idna==2.10")
SDK_NEEDS = "certifi==2021.10.8"
SDK_PY3 = "qcloud-cos-py3==0.1.4"
_FOR_PYTHON_2 = (
    "--no-deps", "--python-version=2.7", "--implementation=py", "--abi=none", "--platform=any", "--only-binary=:all:",
)  # fmt: skip


def python2() -> Path | None:
    """Return a Python 2.7, in PATH or among pyenv's; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: list[Path | str | None] = [*sorted(pyenv.glob("2.7*/bin/python2.7")), shutil.which("python2.7")]
    for python in (each for each in found if each):
        asked = subprocess.run([python, "-c", "import ssl"], check=False, capture_output=True)
        if asked.returncode == 0:
            return Path(python)
    return None


def fetch(folder: Path, *arguments: str) -> Path | None:
    """Install packages into a folder of their own; None, and a line that says so, if they cannot be had."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(folder),
    ]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return folder
    out.print(f"  not compared: {arguments[-1]} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    return None


def sdk(folder: Path) -> tuple[Path, Path] | None:
    """Return the Python and the folder of the vendor's SDK; None if either is missing."""
    python = python2()
    if python is None:
        out.print("  not compared: the vendor's SDK needs a python2.7, and there is none")
        return None
    where = fetch(folder / "sdk", *_FOR_PYTHON_2, SDK_NEEDS, *reversed(SDK))
    return None if where is None else (python, where)


def sdk_py3(folder: Path) -> Path | None:
    """Return the folder of qcloud-cos-py3; None if it cannot be had."""
    return fetch(folder / "py3", SDK_PY3)


def version_of(requirement: str) -> str:
    """Return what stands before and after ``==`` as people write it."""
    return requirement.replace("==", " ")
