"""How fast the emulator takes slices, beside the barest server that could do the same work.

    python tests/benchmarks/emulator_throughput.py [--rounds 5] [--mib 384] [--folder DIR]

The bare server receives into one buffer, hashes it with SHA-1 and writes it at its offset: no HTTP parsing to speak of,
no form, no signature, no records. Both get the same bytes from the same client over two connections, in turn; figures
are medians, and only the ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

MIB = 1024 * 1024
CONNECTIONS = 2
BOUNDARY = "benchmark-boundary"
SECRET_ID, SECRET_KEY = "fake-secret-id", "fake-secret-key"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve_bare(file: Path, *, fsync: bool) -> None:
    """The yardstick: prints its address and serves for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    say(f"http://127.0.0.1:{listener.getsockname()[1]}")
    fd = os.open(file, os.O_RDWR | os.O_CREAT)

    def converse(sock: socket.socket) -> None:
        buffer = bytearray(4 * MIB)
        view = memoryview(buffer)
        while True:
            end = 0
            while (head_end := buffer.find(b"\r\n\r\n", 0, end)) < 0:
                received = sock.recv_into(view[end:])
                if not received:
                    return
                end += received
            headers = dict(line.split(b": ", 1) for line in bytes(buffer[:head_end]).split(b"\r\n")[1:])
            total = head_end + 4 + int(headers[b"Content-Length"])
            while end < total:
                end += sock.recv_into(view[end:total])
            hashlib.sha1(view[head_end + 4 : total]).hexdigest()  # noqa: S324 - the protocol's
            os.pwrite(fd, view[head_end + 4 : total], int(headers[b"X-Offset"]))
            if fsync:
                os.fdatasync(fd)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=converse, args=(sock,), daemon=True).start()


def signature() -> str:
    now = int(time.time())
    plain = f"a=1&b=bench&k={SECRET_ID}&e={now + 600}&t={now}&r=1&f=".encode()
    return base64.b64encode(hmac.digest(SECRET_KEY.encode(), plain, "sha1") + plain).decode()


def form(fields: dict[str, object], content_bytes: int = 0) -> tuple[bytes, bytes]:
    """What stands before and after the file part's bytes."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    if content_bytes:
        parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="filecontent"\r\n\r\n')
    return "".join(parts).encode(), (f"\r\n--{BOUNDARY}--\r\n" if content_bytes else f"--{BOUNDARY}--\r\n").encode()


def begin(url: str, slice_bytes: int, total_bytes: int) -> tuple[str, str]:
    """Begins an upload at the emulator and returns its path and session."""
    path = f"/files/v2/1/bench/{time.monotonic_ns()}"
    head, tail = form({"op": "upload_slice_init", "filesize": total_bytes, "slice_size": slice_bytes})
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    connection.request("POST", path, head + tail, {"Authorization": signature(), "Content-Type": content_type})
    answer = connection.getresponse().read().decode()
    connection.close()
    return path, answer.split('"session": "')[1].split('"')[0]


class Sender:
    """Sends one file in slices to the emulator, or to the bare server."""

    def __init__(self, url: str, slice_bytes: int, total_bytes: int, *, bare: bool) -> None:
        self.address = urlsplit(url)
        self.slice_bytes = slice_bytes
        self.total_bytes = total_bytes
        self.bare = bare
        self.payload = memoryview(os.urandom(slice_bytes))
        self.path, self.session = ("/", "") if bare else begin(url, slice_bytes, total_bytes)
        self.token = signature()
        self.failures: list[bytes] = []

    def run(self) -> float:
        """Sends everything over the connections and returns the seconds it took."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CONNECTIONS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - began
        if self.failures:
            raise RuntimeError(self.failures[0].decode())
        return took_s

    def _work(self, first: int) -> None:
        with socket.create_connection((self.address.hostname or "", self.address.port or 0)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for offset in range(first * self.slice_bytes, self.total_bytes, CONNECTIONS * self.slice_bytes):
                before, after = self._request(offset)
                sock.sendall(before)
                sock.sendall(self.payload)
                if after:
                    sock.sendall(after)
                answer = sock.recv(4096)
                if not answer.startswith(b"HTTP/1.1 200"):
                    self.failures.append(answer)
                    return

    def _request(self, offset: int) -> tuple[bytes, bytes]:
        before, after = b"", b""
        if not self.bare:
            fields = {"op": "upload_slice_data", "session": self.session, "offset": offset}
            before, after = form(fields, self.slice_bytes)
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.address.netloc}",
            f"Content-Length: {len(before) + self.slice_bytes + len(after)}",
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
            f"Authorization: {self.token}",
            f"X-Offset: {offset}",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + before, after


def start(folder: Path, *, bare: bool, fsync: bool) -> tuple[subprocess.Popen[str], str]:
    if bare:
        command = [sys.executable, __file__, "--bare", str(folder / "bare"), *([] if fsync else ["--no-fsync"])]
    else:
        command = [sys.executable, "-m", "worker.emulator", "--data-dir", str(folder / "emulator"), "--appid", "1"]
        command += ["--bucket", "bench", "--secret-id", SECRET_ID, "--secret-key", SECRET_KEY]
        command += [] if fsync else ["--no-fsync"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = next(part for part in process.stdout.readline().split() if part.startswith("http"))
    return process, url


def measure(folder: Path, slice_bytes: int, total_bytes: int, *, bare: bool, fsync: bool) -> float:
    """MB/s of one run against a fresh server on a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    process, url = start(folder, bare=bare, fsync=fsync)
    try:
        return total_bytes / Sender(url, slice_bytes, total_bytes, bare=bare).run() / 1e6
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=384, help="bytes sent in each run, in MiB")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--no-fsync", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        serve_bare(given.bare, fsync=not given.no_fsync)
    folder = Path(tempfile.mkdtemp(dir=given.folder)) / "run"
    for fsync in (False, True):
        for slice_mib in (1, 3):
            total_bytes = given.mib // slice_mib * slice_mib * MIB
            results: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(given.rounds):
                for bare in (True, False):
                    results[bare].append(measure(folder, slice_mib * MIB, total_bytes, bare=bare, fsync=fsync))
            bare_rate, rate = statistics.median(results[True]), statistics.median(results[False])
            sync = "synced" if fsync else "not synced"
            say(
                f"{slice_mib} MiB slices, {CONNECTIONS} connections, {sync:>10}: "
                f"bare {bare_rate:5.0f} MB/s, emulator {rate:5.0f} MB/s, ratio {rate / bare_rate:.2f}"
            )
    folder.parent.rmdir()


if __name__ == "__main__":
    main()
