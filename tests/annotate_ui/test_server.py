"""The server's start and end: loopback only, a port in use, Ctrl-C, SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from annotate_ui.server import address_of, open_listener
from plumbline.errors import UserError
from plumbline.recipe_annotate import AnnotateSection


def test_a_port_in_use_is_told_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use.*annotate.port"):
            open_listener("127.0.0.1", port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "", "::", "example.org", "127.0.0.1.example.org"])
def test_an_address_that_others_could_reach_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="without accounts anybody could sign in"):
        open_listener(host, 0)


@pytest.mark.parametrize("reached", [{"host": "0.0.0.0"}, {"names": ["rank.example.org"]}, {"proxy": "127.0.0.1"}])
def test_whatever_lets_others_in_needs_accounts(reached: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without accounts anybody could sign in"):
        AnnotateSection(**reached)
    AnnotateSection(accounts=True, **reached)
    open_listener("0.0.0.0", 0, accounts=True).close()
    with pytest.raises(UserError):
        open_listener("", 0, accounts=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_address_names_the_port_that_was_given(host: str) -> None:
    with open_listener(host, 0) as listener:
        assert address_of(host, listener) == f"http://{host}:{listener.getsockname()[1]}/"


SCRIPT = """
import sys
from annotate_ui import Setup, serve
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store

service = PreferenceService(Store.open(sys.argv[1]), project="support")
serve(service, Setup("Support"), host="127.0.0.1", port=0)
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_serve_prints_its_address_and_ends_cleanly_on_a_signal(tmp_path: Path, sent: int, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "preferences.db")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "http://" in line)
        address = line.split(" at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"Your name" in answer.read()
        process.send_signal(sent)
        _, rest = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == status
    assert "The annotation app has ended; all acknowledged judgements are stored." in rest
    assert "Traceback" not in rest
