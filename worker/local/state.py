"""The folder in which everything of one machine lives, and what is remembered there from one start to the next."""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.local.account import make_folder, server_account
from worker.local.errors import LocalError
from worker.local.ports import free_port
from worker.local.secret import write_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APPID, BUCKET, SECRET_ID = "1250000000", "uploads", "AKID0up0local0key"
_OLD_SECRET_ID = "local"  # noqa: S105 - its name, and of an emulator
"""Of state folders that 0.1 has made: as short as it is, it is blanked wherever the word stands."""
_KEPT = "# kept by `sliceway up`"
_STORES = """\
# Where uploads may go, and where files may come from. Add your own stores and roots, then start again.

[stores.main]
protocol = "cos-json"
{endpoint}
appid = "{appid}"
bucket = "{bucket}"
secret_id = "{secret_id}"
secret_key_file = "emulator-key"

[roots.files]
path = {files}
"""


def default_state(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the state folder is unless someone says otherwise: beside other programs' state; for root, the system's.

    Raises:
        LocalError: this user has no home.
    """
    if named := environ.get("SLICEWAY_STATE_DIR"):
        return Path(named)
    if os.geteuid() == 0 and "XDG_STATE_HOME" not in environ:
        return Path("/var/lib/sliceway")
    if beside := environ.get("XDG_STATE_HOME"):
        return Path(beside) / "sliceway"
    try:
        return Path.home() / ".local/state/sliceway"
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        raise LocalError(
            f"the user with the number {os.geteuid()} has no home folder, and no other is named",
            advice="Set SLICEWAY_STATE_DIR or HOME.",
        ) from error


@dataclass(frozen=True, slots=True)
class Up:
    """What `sliceway up` runs, and what of others it uses; no secret is in it.

    Attributes:
        api_url: where its API is reached.
        api_port: the port of that.
        stores_file: which it uses.
        database: the database of another's that it uses, without user and password; None is its own.
        broker: the same of the broker.
    """

    api_url: str
    api_port: int
    stores_file: str
    database: str | None = None
    broker: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The names in a state folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> State:
        """The state in `folder`, made if it is not there.

        Raises:
            LocalError: the folder cannot be made, or cannot be used by the servers.
        """
        account = server_account()
        make_folder(folder.absolute(), account)
        state = cls(folder.absolute())
        for sub in (state.logs, state.files, state.objects):
            make_folder(sub, None)
        return state

    @property
    def logs(self) -> Path:
        """A log for each role."""
        return self.folder / "logs"

    @property
    def files(self) -> Path:
        """The root `files`: what is put here can be uploaded."""
        return self.folder / "files"

    @property
    def objects(self) -> Path:
        """What the emulator keeps."""
        return self.folder / "emulator"

    @property
    def api_key(self) -> Path:
        """The first API key."""
        return self.folder / "api-key"

    @property
    def flower_password(self) -> Path:
        """What Flower asks for."""
        return self.folder / "flower-password"

    @property
    def emulator_key(self) -> Path:
        """The secret that uploads to the emulator are signed with."""
        return self.folder / "emulator-key"

    @property
    def secret_id(self) -> str:
        """What the emulator's key is called: in a folder that is there already, as its stores file has it."""
        old = f'secret_id = "{_OLD_SECRET_ID}"'
        return _OLD_SECRET_ID if self.stores.exists() and old in self.stores.read_text() else SECRET_ID

    @property
    def stores(self) -> Path:
        """The stores file."""
        return self.folder / "stores.toml"

    def ports(self, wanted: Mapping[str, int], say: Callable[[str], None] = lambda _: None) -> dict[str, int]:
        """A free port for each name: that of last time, else the one wanted, else any.

        Args:
            wanted: name -> port for the first time; 0 is any.
            say: told in one line of a port that is taken.
        """
        memory = self.folder / "ports.json"
        last = json.loads(memory.read_text()) if memory.exists() else {}
        wished = {name: last.get(name, port) for name, port in wanted.items()}
        ports = {name: free_port(port) for name, port in wished.items()}
        for name, port in wished.items():
            if port not in {0, ports[name]}:
                say(f"Port {port} is taken by another program: {name} listens on {ports[name]} from now on.")
        write_secret(memory, json.dumps(last | ports))
        return ports

    def write_up(self, up: Up) -> None:
        """Remember what `sliceway up` runs, for commands in other terminals."""
        write_secret(self._up, json.dumps(asdict(up)))

    def up(self) -> Up:
        """What `sliceway up` ran last.

        Raises:
            OSError, ValueError, TypeError, KeyError: it never ran on this folder, or the folder is not ours to read.
        """
        if self._up.exists():
            return Up(**json.loads(self._up.read_text()))
        ports = json.loads((self.folder / "ports.json").read_text())  # as 0.1 has left it
        return Up(f"http://127.0.0.1:{ports['api']}", ports["api"], str(self.stores))

    @property
    def _up(self) -> Path:
        return self.folder / "up.json"

    def runs(self) -> bool:
        """Whether something runs on this folder now."""
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def write_stores(self, emulator_port: int) -> None:
        """See to it that the store `main` leads to the emulator at this port.

        The stores file is written once; afterwards it belongs to whoever runs the system, and only that one line of
        it is kept up to date.
        """
        endpoint = f'endpoint = "http://127.0.0.1:{emulator_port}"  {_KEPT}'
        if self.stores.exists():
            kept = re.compile(rf"^endpoint = .*{re.escape(_KEPT)}$", re.MULTILINE)
            text = kept.sub(endpoint, self.stores.read_text())
        else:
            text = _STORES.format(
                endpoint=endpoint, bucket=BUCKET, appid=APPID, secret_id=SECRET_ID, files=_quoted(self.files)
            )
        write_secret(self.stores, text)


def _quoted(path: Path) -> str:
    """A TOML string; those of JSON are such, but for characters beyond the basic plane, which need no escape."""
    return json.dumps(str(path), ensure_ascii=False)
