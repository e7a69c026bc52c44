"""The state folder of `sliceway up`: its files, and the ports and settings that one start leaves for the next."""

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
"""In state folders of release 0.1. The redaction blanks such a short secret wherever the word stands."""
_KEPT = "# kept by `sliceway up`"
_STORES = """\
# Where uploads may go, and where files may come from. Add your own stores and roots, then run `sliceway stores reload`.

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
    """The default state folder: `SLICEWAY_STATE_DIR`, the user's folder for state, or for root /var/lib/sliceway.

    Raises:
        LocalError: this user has no home folder.
    """
    if named := environ.get("SLICEWAY_STATE_DIR"):
        return Path(named)
    if os.geteuid() == 0 and "XDG_STATE_HOME" not in environ:
        return Path("/var/lib/sliceway")
    if state_home := environ.get("XDG_STATE_HOME"):
        return Path(state_home) / "sliceway"
    try:
        return Path.home() / ".local/state/sliceway"
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        raise LocalError(
            f"the user with the number {os.geteuid()} has no home folder, and no other is named",
            advice="Set SLICEWAY_STATE_DIR or HOME.",
        ) from error


@dataclass(frozen=True, slots=True)
class Up:
    """What `sliceway up` runs, and which external servers it uses; has no secret.

    Attributes:
        api_url: URL of its API.
        api_port: port of its API.
        stores_file: path of its stores file.
        database: URL of an external database, without user and password; None: it runs its own.
        broker: URL of an external broker, without user and password; None: it runs its own.
    """

    api_url: str
    api_port: int
    stores_file: str
    database: str | None = None
    broker: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A state folder and the paths in it."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> State:
        """The state in `folder`, which is made if it is missing.

        Raises:
            LocalError: the folder cannot be made, or the servers' account cannot use it.
        """
        account = server_account()
        make_folder(folder.absolute(), account)
        state = cls(folder.absolute())
        for sub in (state.logs, state.files, state.objects):
            make_folder(sub, None)
        return state

    @property
    def logs(self) -> Path:
        """The folder with a log for each role."""
        return self.folder / "logs"

    @property
    def files(self) -> Path:
        """The folder of the root `files`."""
        return self.folder / "files"

    @property
    def objects(self) -> Path:
        """The emulator's data folder."""
        return self.folder / "emulator"

    @property
    def api_key(self) -> Path:
        """The file of the first API key."""
        return self.folder / "api-key"

    @property
    def flower_password(self) -> Path:
        """The file of Flower's password."""
        return self.folder / "flower-password"

    @property
    def emulator_key(self) -> Path:
        """The file of the secret key for the emulator."""
        return self.folder / "emulator-key"

    @property
    def secret_id(self) -> str:
        """The secret id for the emulator, by an existing stores file."""
        old = f'secret_id = "{_OLD_SECRET_ID}"'
        return _OLD_SECRET_ID if self.stores.exists() and old in self.stores.read_text() else SECRET_ID

    @property
    def stores(self) -> Path:
        """The stores file."""
        return self.folder / "stores.toml"

    def ports(self, first: Mapping[str, int], say: Callable[[str], None] = lambda _: None) -> dict[str, int]:
        """A free port for each name: the port of the last start, else the one in `first`, else any.

        Args:
            first: name -> port of a first start; 0 is any.
            say: gets a line for each port that another program has taken.
        """
        file = self.folder / "ports.json"
        last = json.loads(file.read_text()) if file.exists() else {}
        wanted = {name: last.get(name, port) for name, port in first.items()}
        ports = {name: free_port(port) for name, port in wanted.items()}
        for name, port in wanted.items():
            if port not in {0, ports[name]}:
                say(f"Port {port} is taken by another program: {name} listens on {ports[name]} from now on.")
        write_secret(file, json.dumps(last | ports))
        return ports

    def write_up(self, up: Up) -> None:
        """Write what `sliceway up` runs, for commands in other terminals."""
        write_secret(self._up, json.dumps(asdict(up)))

    def up(self) -> Up:
        """What `sliceway up` ran last.

        Raises:
            OSError, ValueError, TypeError, KeyError: it never ran on this folder, or this user cannot read the folder.
        """
        if self._up.exists():
            return Up(**json.loads(self._up.read_text()))
        ports = json.loads((self.folder / "ports.json").read_text())  # a folder of release 0.1
        return Up(f"http://127.0.0.1:{ports['api']}", ports["api"], str(self.stores))

    @property
    def _up(self) -> Path:
        return self.folder / "up.json"

    def runs(self) -> bool:
        """Whether a `sliceway up` runs on this folder now."""
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
        """Write the stores file, or update the line in it that has the emulator's port.

        An existing file belongs to the operator: no other line changes.
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
    """A TOML string: a JSON string is one if characters beyond the basic plane are not escaped."""
    return json.dumps(str(path), ensure_ascii=False)
