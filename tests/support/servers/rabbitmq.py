"""RabbitMQ on loopback: a node of its own, with a port mapper of its own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "fake-secret-rabbitmq"
_ANSWERS_WITHIN_S = 180


class RabbitServer:
    """One node, whose user `sliceway` may do everything in the virtual host `/`."""

    def __init__(self, folder: Path, program: Path) -> None:
        """Configure it.

        Args:
            folder: its own.
            program: `rabbitmq-server`, the one that takes its environment as it is.
        """
        self.port = free_port()
        self._folder, self._program = folder, program
        self._epmd_port = free_port()
        lines = [
            f"listeners.tcp.default = 127.0.0.1:{self.port}",
            "default_user = sliceway",
            f"default_pass = {PASSWORD}",
        ]
        (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (folder / "plugins").write_text("[].\n")
        self._environ = {
            "PATH": f"{os.defpath}:/usr/sbin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"sliceway-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2",
        }
        self.url = f"amqp://sliceway:{PASSWORD}@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        log = self._folder / "rabbitmq.log"
        self._child = Child([self._program], log=log, env=self._environ, cwd=self._folder)
        ready = wait_until(
            lambda: "Server startup complete" in log.read_text(errors="replace"),
            timeout_s=_ANSWERS_WITHIN_S,
            poll_s=0.2,
            alive=lambda: self._child.poll() is None,
        )
        assert ready, log.read_text(errors="replace")

    def stop(self) -> None:
        """Stop it, and its port mapper."""
        self._child.stop(grace_s=20)
        subprocess.run(["epmd", "-kill"], env=self._environ, capture_output=True, check=False)
