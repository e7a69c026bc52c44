"""The configuration of an emulator, and the settings that may change while it runs."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class StoreAccount:
    """A key pair, the appid of its signatures and the buckets of that appid."""

    appid: str
    buckets: tuple[str, ...]
    secret_id: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """What is fixed while an emulator runs, and the initial values of `RuntimeSettings`."""

    #: The folder of all objects, unfinished uploads and records.
    data_dir: Path
    accounts: tuple[StoreAccount, ...]
    host: str = "127.0.0.1"
    #: 0 lets the system choose; `Emulator.url` has the port.
    port: int = 0
    #: The control endpoint listens on 127.0.0.1 only. 0 lets the system choose.
    control_port: int = 0
    verify_signatures: bool = True
    #: Off: an acknowledged slice survives a kill of the process, but no failure of the machine. For benchmarks.
    fsync: bool = True
    #: Drop slices instead of storing them: a file may be larger than the disk. For benchmarks.
    discard: bool = False
    #: Bytes per second of all uploads together; None is no limit. Downloads have none.
    rate_bytes_per_s: int | None = None
    session_ttl_s: float = 7 * DAY_S
    #: A repeated finish of a session succeeds for this long.
    finished_ttl_s: float = DAY_S
    #: Slice sizes that a client may request; any other is refused with -284.
    slice_sizes: frozenset[int] = frozenset({512 * KIB, MIB, 2 * MIB, 3 * MIB})
    #: Slice size in the response to every init, whatever the client requests.
    forced_slice_size: int | None = None
    #: Require slices in order.
    serial_upload: bool = False
    instant_upload: bool = True
    #: Include the `sha` of an unfinished upload in the list of its slices, and that of an object in stat.
    sha_in_list: bool = True
    sha_in_stat: bool = True
    #: Omit fields that the vendor's tables do not promise: the slice size in the response to an init, the echo of a
    #: slice, the sizes in a list.
    bare_answers: bool = False
    #: Off: an upload into a folder that was not created is refused with -197.
    create_parents: bool = True
    #: Refuse `boundary="quoted"`, as the real service does.
    strict_boundary: bool = False
    #: Compute the SHA-1 of every slice for the journal.
    journal_sha1: bool = False
    #: Append every request and its effect to this file, with the SHA-1 of every slice. None: no file.
    journal_file: Path | None = None
    #: Requests in the journal.
    journal_length: int = 20_000
    #: Close a connection that is idle for this long between requests.
    idle_timeout_s: float = 75.0
    #: Close a connection that stalls for this long within a request.
    stall_timeout_s: float = 300.0


@dataclass(slots=True, kw_only=True)
class RuntimeSettings:
    """The settings that the control endpoint may change while the emulator runs."""

    rate_bytes_per_s: int | None
    verify_signatures: bool
    forced_slice_size: int | None
    serial_upload: bool
    instant_upload: bool
    sha_in_list: bool
    sha_in_stat: bool
    bare_answers: bool
    create_parents: bool
    journal_sha1: bool
    session_ttl_s: float
    #: Added to the clock of the machine for the Date header, signatures and the age of sessions.
    clock_offset_s: float = 0.0

    @classmethod
    def of(cls, config: EmulatorConfig) -> RuntimeSettings:
        """The initial settings of a configuration."""
        names = {each.name for each in dataclasses.fields(config)}
        return cls(**{each.name: getattr(config, each.name) for each in dataclasses.fields(cls) if each.name in names})

    def now(self) -> float:
        """Unix seconds of the emulator's clock."""
        return time.time() + self.clock_offset_s
