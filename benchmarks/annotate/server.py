"""The annotation app in a process of its own, as `plumbline annotate` serves it, on a store that is given."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
PROJECT = "support"
SECONDS_TO_START = 60


class Server:
    """A running annotation app; a context manager that ends it.

    Args:
        store: file or URL of the store; made where there is none.
        lease_minutes: how long a task is kept for who opened it.
        port: where it listens; 0 takes a free port.
        log: file that its output goes to.
    """

    def __init__(
        self, store: str, *, lease_minutes: float = 15.0, port: int = 0, workers: int = 1, log: Path | None = None
    ) -> None:
        self.store, self.lease_minutes, self.workers = store, lease_minutes, workers
        self.port = port or free_port()
        self.log = log
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, **environment: str) -> float:
        """Start it; returns the seconds until it answered."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.annotate.server", self.store, "--port", str(self.port)]
        command += ["--lease-minutes", str(self.lease_minutes), "--workers", str(self.workers)]
        paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        with Path(self.log or os.devnull).open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **paths, **environment}, stdout=output, stderr=output
            )
        while not self.answers():
            if self.process.poll() is not None or time.perf_counter() - began > SECONDS_TO_START:
                raise RuntimeError(f"the server did not start; its output is in {self.log}")
            time.sleep(0.05)
        return time.perf_counter() - began

    def answers(self) -> bool:
        """Whether it answers a request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/session", timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """SIGKILL, to it and its workers."""
        for process in reversed(self.processes()):
            process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()

    def processes(self) -> list[psutil.Process]:
        """The server's process and its workers."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory(self) -> int:
        """Resident bytes."""
        return sum(process.memory_info().rss for process in self.processes())


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """What runs in the server's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lease-minutes", type=float, default=15.0)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()

    from annotate_ui.server import serve
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService
    from plumbline.preferences.store import Store

    store = Store.open(arguments.store)
    service = PreferenceService(store, project=PROJECT, lease=timedelta(minutes=arguments.lease_minutes))
    try:
        serve(service, Setup("Support"), host="127.0.0.1", port=arguments.port)
    finally:
        store.close()


if __name__ == "__main__":
    main()
