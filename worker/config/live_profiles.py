"""The profiles that a process works with, and how it reads its stores file again without a restart."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from worker.config.credentials import BY_REFERENCE
from worker.config.profiles import Profiles, load_profiles
from worker.errors import SettingsError
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.urls import ProxyUrl

log = get_logger(__name__)

REFUSED_ADVICE = (
    "The profiles from before stay in use. Correct it, see with `sliceway doctor`, then run `sliceway stores reload`."
)


class LiveProfiles:
    """The profiles of one process. Safe for all its threads: a reload replaces `profiles` as a whole.

    The profile of a store that a reload has not changed stays the same object: whoever holds one sees by `is` whether
    it is still in use.
    """

    def __init__(self, file: Path | None, environ: Mapping[str, str]) -> None:
        """Read the stores file; None is an installation without stores.

        Raises:
            SettingsError: the file cannot be read, or a table is wrong; the message names table and key.
        """
        self._file, self._environ = file, environ
        self._reading = threading.Lock()
        self._version: tuple[Profiles, str | None, str] | None = None
        self.profiles = self._load()
        self._authorities = _authorities(self.profiles)

    def reload(self, check: Callable[[Profiles], None] | None = None) -> frozenset[str] | None:
        """Read the file and the secrets that it names again, and use what they say from now on.

        Args:
            check: raises `SettingsError` for profiles that this process cannot use.

        Returns:
            The names of the stores that are new, changed (a `ca_file` with other content included) or gone; None if
            nothing has changed.

        Raises:
            SettingsError: as at the start; the profiles from before stay in use.
        """
        with self._reading:
            before, read = self.profiles, self._load()
            if check is not None:
                check(read)
            authorities = _authorities(read)
            kept = {
                name: profile
                for name, profile in before.stores.items()
                if read.stores.get(name) == profile and authorities[name] == self._authorities[name]
            }
            if kept.keys() == before.stores.keys() == read.stores.keys() and read.roots == before.roots:
                return None
            self._authorities = authorities
            self.profiles = Profiles.model_construct(
                stores={name: kept.get(name, profile) for name, profile in read.stores.items()}, roots=read.roots
            )
            return frozenset((before.stores.keys() | read.stores.keys()) - kept.keys())

    def version(self, key: str | None) -> str:
        """Return a short digest of the profiles, which is the same for the same content; no secret follows from it.

        The part after the hyphen is of the secrets: HMAC-SHA-256, cut to 16 bits, so that even who has the key cannot
        confirm a guess.

        Args:
            key: of the installation, from the database; without it the part of the secrets is left out.
        """
        profiles, known = self.profiles, self._version
        if known is None or known[0] is not profiles or known[1] != key:
            known = self._version = (profiles, key, _digest(profiles, key))
        return known[2]

    def _load(self) -> Profiles:
        return load_profiles(self._file, self._environ) if self._file else Profiles(stores={}, roots={})


class LiveCaps(Mapping[str, int]):
    """Store name -> requests of any kind that may be out to it at once, by the profiles in use now."""

    def __init__(self, live: LiveProfiles) -> None:
        self._live = live

    def __getitem__(self, store: str) -> int:
        return self._live.profiles.caps[store]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live.profiles.caps)

    def __len__(self) -> int:
        return len(self._live.profiles.caps)


class Reloader:
    """Reads the stores file again when SIGHUP or the database asks for it. One thread calls `look`."""

    def __init__(self, live: LiveProfiles, check: Callable[[Profiles], None] | None = None) -> None:
        """Begin with the profiles as they are.

        Args:
            live: the process's profiles.
            check: as in `LiveProfiles.reload`.
        """
        self._live, self._check = live, check
        self.asked = False
        self.generation = 0
        """The number of the last reload that was asked for in the database and that this process has done."""
        self.error: str | None = None
        """Why the file was refused when it was read last."""

    def ask(self) -> None:
        """Have the next `look` read the file. For signal handlers: a flag takes no lock."""
        self.asked = True

    def look(self, generation: int = 0, key: str | None = None) -> frozenset[str] | None:
        """Read the file if that was asked for since the last call.

        A process that has just started reads it once more if any reload was ever asked for: its own first reading may
        have come before that.

        Args:
            generation: the number of the latest reload that was asked for in the database.
            key: for the version in the log.

        Returns:
            The names of the stores that have changed; None if the profiles are those from before.
        """
        if not self.asked and generation <= self.generation:
            return None
        self.asked = False  # before the file is read: a signal that comes meanwhile counts
        try:
            changed = self._live.reload(self._check)
        except SettingsError as error:
            self.error = error.message
            log.error("stores.refused", error=error.message, advice=REFUSED_ADVICE)  # noqa: TRY400 - no traceback helps
            changed = None
        else:
            self.error = None
            if changed is not None:
                log.info("stores.reloaded", version=self._live.version(key), changed=sorted(changed))
        self.generation = max(generation, self.generation)
        return changed


def _authorities(profiles: Profiles) -> dict[str, bytes | None]:
    """Return a digest of each store's `ca_file`; None if it has none, or if it cannot be read."""
    return {name: _content(profile.ca_file) for name, profile in profiles.stores.items()}


def _content(file: Path | None) -> bytes | None:
    try:
        return None if file is None else hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return None


def _digest(profiles: Profiles, key: str | None) -> str:
    public = {
        "stores": {
            name: {
                field: str(value) for field, value in profile if field not in BY_REFERENCE
            }  # a proxy without password
            for name, profile in profiles.stores.items()
        },
        "roots": {name: {field: str(value) for field, value in root} for name, root in profiles.roots.items()},
    }
    digest = hashlib.sha256(_canonical(public)).hexdigest()[:8]
    if key is None:
        return digest
    secret = {
        name: [*(getattr(profile, field).get_secret_value() for field in BY_REFERENCE), _login(profile.proxy)]
        for name, profile in profiles.stores.items()
    }
    return f"{digest}-{hmac.new(key.encode(), _canonical(secret), hashlib.sha256).hexdigest()[:4]}"


def _login(proxy: ProxyUrl | None) -> list[str | None] | None:
    if proxy is None:
        return None
    return [proxy.user, None if proxy.password is None else proxy.password.reveal()]


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
