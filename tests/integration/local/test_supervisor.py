from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.local.errors import LocalError
from worker.local.process import Child, reason, wait_until
from worker.local.program import Program
from worker.local.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()",
]
WITH_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, signal; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); signal.pause()",
]


def program(folder: Path, name: str, argv: list[str] = SLEEPER, *, grace_s: float = 10) -> Program:
    log = folder / f"{name}.log"
    return Program(name, argv, log=log, ready=lambda: log.exists() and log.stat().st_size > 0, grace_s=grace_s)


def runs(pid: int | None) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stages_are_ready_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    order = tmp_path / "order"
    program_text = (
        "import signal, sys; note = open(sys.argv[1], 'a', buffering=1); name = sys.argv[2];"
        "signal.signal(signal.SIGTERM, lambda *_: (note.write(name + ' down\\n'), sys.exit()));"
        "note.write(name + ' up\\n'); print('up', flush=True); signal.pause()"
    )

    def noting(name: str) -> Program:
        return program(tmp_path, name, [sys.executable, "-c", program_text, str(order), name])

    with Supervisor(tmp_path) as supervisor:
        supervisor.start(noting("base"))
        supervisor.start(noting("top"))
    assert order.read_text().splitlines() == ["base up", "top up", "top down", "base down"]


def test_a_service_that_dies_is_restarted_with_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    with Supervisor(tmp_path, say=said.append) as supervisor:
        service = program(tmp_path, "sleeper")
        supervisor.start(service)
        first = service.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: service.pid != first and service.poll() is None, timeout_s=120)
    assert said == ["sleeper was killed by SIGKILL, starts again in 0.5 s: up"]


def test_pause_before_the_next_start_doubles(tmp_path: Path) -> None:
    said: list[str] = []
    with Supervisor(tmp_path, say=said.append) as supervisor:
        short_lived = [sys.executable, "-c", "input()"]  # ready by its log, then ended at once by its empty input
        log = tmp_path / "short.log"
        log.write_text("old line\n")
        supervisor.start(Program("short", short_lived, log=log))
        assert wait_until(lambda: len(said) == 3, timeout_s=60)
    assert [line.split(":")[0] for line in said] == [
        f"short ended with code 1, starts again in {pause} s" for pause in ("0.5", "1", "2")
    ]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (["FATAL:  lock file is empty", "LOG:  database system is shut down"], "FATAL:  lock file is empty"),
        (
            [
                'LOG: could not bind IPv4 address "127.0.0.1": Address already in use',
                "FATAL: no socket",
                "LOG: shut down",
            ],
            'LOG: could not bind IPv4 address "127.0.0.1": Address already in use',
        ),
        (
            ["initdb: error: write: No space left on device", "initdb: removing"],
            "initdb: error: write: No space left on device",
        ),
        (["Traceback:", "ValueError: wrong"], "ValueError: wrong"),
        ([], "(nothing in its log)"),
    ],
)
def test_reason_of_an_end_is_what_the_machine_refused(tmp_path: Path, log: list[str], why: str) -> None:
    file = tmp_path / "x.log"
    before = "PANIC: No space left on device, the last time\n"
    file.write_text(before + "".join(f"{line}\n" for line in log))
    assert reason(file, 1, len(before)) == why
    assert reason(file, -signal.SIGKILL, len(before)) == (log[-1] if log else why)


def test_another_program_at_the_port_does_not_make_a_service_ready(tmp_path: Path) -> None:
    listener = (
        "import socket, signal; server = socket.create_server(('127.0.0.1', 0));"
        "print(server.getsockname()[1], flush=True); signal.pause()"
    )
    ours = program(tmp_path, "ours", [sys.executable, "-c", listener])
    other = program(tmp_path, "other")
    with Supervisor(tmp_path) as supervisor, socket.create_server(("127.0.0.1", 0)) as foreign:
        supervisor.start(ours, other)
        for service, port in ((ours, int(ours.log.read_text())), (other, foreign.getsockname()[1])):
            service._port = port
        assert ours.is_ready()
        assert not other.is_ready()
        other._port = ours._port
        assert not other.is_ready()


def test_service_that_ends_while_starting_fails_the_start_with_its_last_log_line(tmp_path: Path) -> None:
    broken = program(tmp_path, "broken", [sys.executable, "-c", "import sys; sys.exit('no such database')"])
    broken._ready = lambda: False
    healthy = program(tmp_path, "healthy")
    with pytest.raises(LocalError, match="broken ended with code 1: no such database"), Supervisor(tmp_path) as it:
        it.start(healthy, broken)
    assert not runs(healthy.pid)


def test_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot start /nowhere/program"), Supervisor(tmp_path) as supervisor:
        supervisor.start(Program("ghost", ["/nowhere/program"], log=tmp_path / "ghost.log"))


def test_stubborn_service_is_killed_after_its_grace(tmp_path: Path) -> None:
    service = program(tmp_path, "stubborn", STUBBORN, grace_s=0.2)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(service)
    assert service.poll() == -signal.SIGKILL


def test_children_of_a_service_end_with_it(tmp_path: Path) -> None:
    service = program(tmp_path, "parent", WITH_CHILD)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(service)
        grandchild = int(service.log.read_text())
        assert runs(grandchild)
    assert wait_until(lambda: not runs(grandchild), timeout_s=120)


def test_empty_stage_is_ready(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start()


def test_children_of_a_dead_service_end_before_its_restart(tmp_path: Path) -> None:
    said: list[str] = []
    service = program(tmp_path, "parent", WITH_CHILD)
    with Supervisor(tmp_path, say=said.append) as supervisor:
        supervisor.start(service)
        assert service.pid is not None
        grandchild = int(service.log.read_text())
        os.kill(service.pid, signal.SIGKILL)
        assert wait_until(lambda: bool(said), timeout_s=120)
        assert wait_until(lambda: not runs(grandchild), timeout_s=120)


def test_one_supervisor_a_folder(tmp_path: Path) -> None:
    with (
        Supervisor(tmp_path),
        pytest.raises(LocalError, match=rf"another sliceway \(process {os.getpid()}\) runs on {tmp_path}"),
        Supervisor(tmp_path),
    ):
        pass
    with Supervisor(tmp_path):
        pass


def test_large_log_is_set_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = program(tmp_path, "talker")
    service.log.write_text("x" * 100)
    monkeypatch.setattr(sys.modules[Child.__module__], "LOG_LIMIT_BYTES", 50)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(service)
        assert (tmp_path / "talker.log.1").read_text() == "x" * 100
        assert service.log.read_text() == "up\n"


@pytest.fixture
def owner(tmp_path: Path) -> Callable[[list[str]], subprocess.Popen[str]]:
    """Start a supervisor with one service as a process of its own; its first line is the service's pid."""

    def start(argv: list[str]) -> subprocess.Popen[str]:
        script = textwrap.dedent(f"""
            import pathlib
            from worker.local.program import Program
            from worker.local.supervisor import Supervisor
            log = pathlib.Path({str(tmp_path / "service.log")!r})
            ready = lambda: log.exists() and log.stat().st_size > 0
            with Supervisor(log.parent) as supervisor:
                service = Program("service", {argv!r}, log=log, ready=ready, grace_s=60)
                supervisor.start(service)
                print(service.pid, flush=True)
                supervisor.wait()
                print("stopping", flush=True)
            print("done", flush=True)
        """)
        return subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        )

    return start


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_everything(owner: Callable[[list[str]], subprocess.Popen[str]], signum: signal.Signals) -> None:
    with owner(SLEEPER) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signum)
        assert process.stdout.read() == "stopping\ndone\n"
    assert process.returncode == 0
    assert not runs(pid)


ON_A_TERMINAL = """
import fcntl, pathlib, sys, termios
from worker.local.program import Program
from worker.local.supervisor import Supervisor
fcntl.ioctl(0, termios.TIOCSCTTY)
folder = pathlib.Path(sys.argv[1])
log = folder / "service.log"
argv = [sys.executable, "-c", sys.argv[2], folder / "down"]
with Supervisor(folder) as supervisor:
    service = Program("service", argv, log=log, ready=lambda: log.exists() and log.stat().st_size > 0, grace_s=60)
    supervisor.start(service)
    print("up", flush=True)
    supervisor.wait()
    print("stopping", flush=True)
(folder / "done").touch()
"""
SLOW_TO_END = """
import pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # one that comes before the wait is not lost
print("up", flush=True)
signal.sigwait([signal.SIGTERM])
signal.sigtimedwait([signal.SIGUSR1], 0.5)
pathlib.Path(sys.argv[1]).touch()
"""


def test_closed_terminal_stops_everything_in_order(tmp_path: Path) -> None:
    """Although every write to the terminal fails, and both shell and kernel send SIGHUP."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, tmp_path, SLOW_TO_END],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    os.close(theirs)
    assert os.read(ours, 2) == b"up"
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 0
    assert (tmp_path / "down").exists()
    assert (tmp_path / "done").exists()


def test_signals_that_interrupt_each_other_still_stop_everything(
    owner: Callable[[list[str]], subprocess.Popen[str]],
) -> None:
    with owner(STUBBORN) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for _ in range(500):  # fewer than calls that Python nests
                process.send_signal(signal.SIGHUP)
            assert select.select([process.stdout], [], [], 120)[0]
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(signal.SIGINT)  # kills the service, which would go on for its whole grace
            assert process.wait(120) == 0
        finally:
            process.kill()


def test_second_signal_does_not_wait_for_the_grace(owner: Callable[[list[str]], subprocess.Popen[str]]) -> None:
    with owner(STUBBORN) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "done\n"
    assert not runs(pid)


def test_killed_supervisor_leaves_no_process_behind(
    owner: Callable[[list[str]], subprocess.Popen[str]], tmp_path: Path
) -> None:
    with owner(WITH_CHILD) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        grandchild = int((tmp_path / "service.log").read_text())
        process.kill()
        assert wait_until(lambda: not runs(pid) and not runs(grandchild), timeout_s=120)
