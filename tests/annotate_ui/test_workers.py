"""Several server processes on one address: any of them knows every session."""

from __future__ import annotations

import http.client
import os
import pickle
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from annotate_ui.server import AppFactory, check_workers, server_config
from annotate_ui.setup import Setup
from plumbline.errors import UserError
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.postgres import new_database, postgres_server

SCRIPT = """
import sys
from annotate_ui import Setup, serve
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import AnnotateSection

service = PreferenceService(Store.open(sys.argv[1]), project="support")
settings = AnnotateSection(accounts=True, workers=2)
serve(service, Setup("Support"), host="127.0.0.1", port=0, settings=settings)
"""


def test_several_processes_on_sqlite_are_refused_with_what_to_do(service: PreferenceService) -> None:
    check_workers(service.store, 1)
    with pytest.raises(UserError, match=r"annotate.workers is 4.*set workers to 1, or annotate.store to a PostgreSQL"):
        check_workers(service.store, 4)


def test_an_arena_is_refused_with_several_processes(
    service: PreferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.store, "is_sqlite", False)
    check_workers(service.store, 4)
    check_workers(service.store, 1, arena=True)
    with pytest.raises(UserError, match=r"arena needs a server of one process.*annotate.workers is 4: set it to 1"):
        check_workers(service.store, 4, arena=True)


def test_what_a_process_needs_travels_to_it(tmp_path: Path) -> None:
    factory = AppFactory("store.db", "support", timedelta(minutes=15), Rules(), Setup("Support"), AnnotateSection())
    assert pickle.loads(pickle.dumps(factory)) == factory


def test_forwarded_headers_count_only_from_the_named_proxy() -> None:
    alone = server_config(None, AnnotateSection())
    behind = server_config(None, AnnotateSection(accounts=True, proxy="192.0.2.9"))
    assert not alone.proxy_headers
    assert (behind.proxy_headers, behind.forwarded_allow_ips) == (True, "192.0.2.9")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as folder:
        yield new_database(folder)


class Connection:
    """One connection stays with one process; a new one may reach another."""

    def __init__(self, address: str, cookie: str = "") -> None:
        self.http = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=180)
        self.cookie = cookie

    def ask(self, method: str, path: str, body: str = "", kind: str = "application/json") -> tuple[int, str]:
        origin = f"http://{self.http.host}:{self.http.port}"
        headers = {"content-type": kind, "origin": origin, "cookie": self.cookie}
        self.http.request(method, path, body or None, headers)
        answer = self.http.getresponse()
        if cookie := answer.getheader("set-cookie"):
            self.cookie = cookie.partition(";")[0]
        return answer.status, answer.read().decode()


@pytest.mark.postgres
def test_a_session_moves_between_two_processes_and_ends_in_both(database: str) -> None:
    store = Store.open(database)
    PreferenceService(store, project="support").add_tasks([new_task(f"task {number}") for number in range(3)])
    Accounts(store, passwords=cheap_passwords()).create("Ada", password=PASSWORD)
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, database],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "http://" in line)
        address = line.split(" at ")[1].split()[0]
        first = Connection(address)
        form = urllib.parse.urlencode({"name": "Ada", "password": PASSWORD})
        assert first.ask("POST", "/sign-in", form, "application/x-www-form-urlencoded")[0] == 303
        others: list[Connection] = []
        while len({pid for pid in children(process.pid) if established(pid)}) < 2:  # the second may still be starting
            assert len(others) < 2000
            others.append(Connection(address, first.cookie))
            status, body = others[-1].ask("POST", "/annotate-work/next", "{}")
            assert (status, "data-lease" in body) == (200, True)
        first.ask("POST", "/sign-out")
        assert {connection.ask("POST", "/annotate-work/next", "{}")[0] for connection in others} == {401}
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "The annotation app has ended" in rest
    assert "Traceback" not in rest


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def established(pid: int) -> int:
    """How many connections a process holds: its sockets among the established ones of IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    open_ones = {f"socket:[{row[9]}]" for row in rows if row[3] == "01"}
    links = list(Path(f"/proc/{pid}/fd").iterdir())
    return sum(target in open_ones for target in map(_target, links))


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
