"""Workers where nothing can be written, no other user can read files, and the user has neither name nor home."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.environ import QUICK
from tests.support.installation import MIB
from tests.support.processes import PARENT
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation

UNNAMED_UID = "54321"
READ_ONLY = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--", "sh", "-ec")
"""A namespace of its own, so that the mounts below are this process's alone."""
NOTHING_TO_WRITE = """
  mount --make-rprivate /
  for place in / /tmp /var/tmp /dev/shm; do
    mountpoint --quiet "$place" || mount --bind "$place" "$place"
    mount -o remount,bind,ro "$place"
  done
  umask 077
  if touch "$0/written" 2>/dev/null; then echo "it can be written to" >&2; exit 1; fi
  exec "$@" """
MAY_READ = "+dac_read_search"
AS_UNNAMED = (
    *("setpriv", f"--reuid={UNNAMED_UID}", f"--regid={UNNAMED_UID}", "--clear-groups"),
    *(f"--inh-caps={MAY_READ}", f"--ambient-caps={MAY_READ}", "--"),
)
"""Root becomes a user that the system's files do not know, and may read what lies in folders of root's alone."""


@pytest.mark.parametrize("user", ["same", *(["unnamed"] if os.geteuid() == 0 else [])])  # only root may become another
def test_workers_need_no_place_to_write_no_home_and_no_name(site: Installation, user: str) -> None:
    site.know_links()
    as_user = AS_UNNAMED if user == "unnamed" else ()
    environ = {name: value for name, value in (site.environ | QUICK).items() if name not in {"HOME", "USER", "LOGNAME"}}
    environ |= {"SLICEWAY_WORKER_PROCESSES": "2"}
    key = site.fresh_key()
    let_go = site.store.hold("data", key)
    job = site.enqueue(2 * MIB, key)
    parent = site.start_worker(environ, (*READ_ONLY, NOTHING_TO_WRITE, str(site.folder), *as_user, *PARENT))
    assert site.known(parent), parent.text()
    site.store.held("data", key)
    os.kill(parent.children()[0], signal.SIGKILL)
    let_go()
    result = job.succeeds()
    assert result["slices"]["slices"] == -(-2 * MIB // SLICE_BYTES)
    assert "Traceback" not in parent.text()
    assert "Read-only file system" not in parent.text()
