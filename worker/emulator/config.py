"""What an emulator is told when it starts, and what may be changed while it runs."""

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
    """One key pair, the appid that it signs for and the buckets that exist there."""

    appid: str
    buckets: tuple[str, ...]
    secret_id: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """What is fixed while an emulator runs, and the initial values of `RuntimeSettings`."""

    #: Objects, unfinished uploads and their records live below this folder and nowhere else.
    data_dir: Path
    accounts: tuple[StoreAccount, ...]
    host: str = "127.0.0.1"
    #: 0 lets the system choose; `Emulator.url` tells which it was.
    port: int = 0
    #: The control endpoint listens on 127.0.0.1 only. 0 lets the system choose.
    control_port: int = 0
    verify_signatures: bool = True
    #: Off: an acknowledged slice survives the death of the process but not of the machine. For benchmarks.
    fsync: bool = True
    #: Slices are received and forgotten, so that a file may be larger than the disk. For benchmarks.
    discard: bool = False
    #: Bytes a second that all uploads together may send; None is no limit. Downloads are never held back.
    rate_bytes_per_s: int | None = None
    session_ttl_s: float = 7 * DAY_S
    #: How long a repeated finish of the same session still succeeds.
    finished_ttl_s: float = DAY_S
    #: Sizes a client may ask for; any other is refused with -284.
    slice_sizes: frozenset[int] = frozenset({512 * KIB, MIB, 2 * MIB, 3 * MIB})
    #: Answer every init with this slice size, whatever was asked.
    forced_slice_size: int | None = None
    #: Tell clients to send slices one after the other, and refuse them out of order.
    serial_upload: bool = False
    instant_upload: bool = True
    #: Name the sha that an upload was begun with in the list of its slices; that of a file in stat.
    sha_in_list: bool = True
    sha_in_stat: bool = True
    #: Leave out what the vendor's tables do not promise: the slice size in the answer to an init, the echo of a slice,
    #: the sizes in a list.
    bare_answers: bool = False
    #: Off: an upload into a folder that nobody created is refused with -197.
    create_parents: bool = True
    #: Refuse `boundary="quoted"`, as the real service does.
    strict_boundary: bool = False
    #: Note the SHA-1 of every slice in the request journal. Costs a hash a slice.
    journal_sha1: bool = False
    #: Every request and what became of it is appended to this file, with the SHA-1 of every slice. None: nowhere.
    journal_file: Path | None = None
    #: Requests that the journal remembers.
    journal_length: int = 20_000
    #: A connection that is silent this long between requests is closed.
    idle_timeout_s: float = 75.0
    #: A connection that stalls this long within a request is closed.
    stall_timeout_s: float = 300.0


@dataclass(slots=True, kw_only=True)
class RuntimeSettings:
    """What the control endpoint may change while the emulator runs."""

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
    #: Added to this machine's clock: in the Date header, in signature checks and in the age of sessions.
    clock_offset_s: float = 0.0

    @classmethod
    def of(cls, config: EmulatorConfig) -> RuntimeSettings:
        """The settings that an emulator of this configuration starts with."""
        names = {each.name for each in dataclasses.fields(config)}
        return cls(**{each.name: getattr(config, each.name) for each in dataclasses.fields(cls) if each.name in names})

    def now(self) -> float:
        """Unix seconds by the emulator's own clock."""
        return time.time() + self.clock_offset_s
