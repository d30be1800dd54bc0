"""Run the annotation app on this machine until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from annotate_ui.app import build_app
from annotate_ui.guard import LOOPBACK
from plumbline.console import console
from plumbline.errors import UserError

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.service import PreferenceService

# Open pages hold a connection; they must not keep the server from ending.
SECONDS_TO_CLOSE = 1


def serve(
    service: PreferenceService,
    setup: Setup,
    *,
    host: str,
    port: int,
    open_browser: bool = False,
) -> None:
    """Serve the annotation app until Ctrl-C; SIGTERM ends it the same way, and the process with status 143.

    Args:
        service: owns every rule and the store.
        setup: how the app is set.
        host: an address of this machine only (127.0.0.1, ::1 or localhost).
        port: the port, or 0 for any that is free.
        open_browser: open the page in the default browser.

    Raises:
        UserError: the setup names no language that is there, the address is not local, the port is in use, or the
            system does not let us open it.
        SystemExit: on SIGTERM.
    """
    app = build_app(service, setup)
    listener = open_listener(host, port)
    address = address_of(host, listener)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_CLOSE)
    console.print(f"The annotation app is open at [bold]{address}[/bold] (Ctrl-C ends it)")
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        # uvicorn closes on either signal, then hands it on.
        with contextlib.suppress(KeyboardInterrupt), _exit_on_sigterm(), listener:
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        console.print("The annotation app has ended; all acknowledged judgements are stored.")


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, with the status that shells give to it, instead of ending the process at once."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def open_listener(host: str, port: int) -> socket.socket:
    """Open the listening socket, so that a port in use is found before anything else starts.

    Raises:
        UserError: see `serve`.
    """
    address = _loopback_address(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Only where the socket names its protocol does asyncio send small packets at once; else each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError as fault:
        listener.close()
        if fault.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} on {host} is in use, perhaps by another annotation app: end that program, "
                "or choose another port with annotate.port=…"
            ) from fault
        raise UserError(
            f"cannot open port {port} on {host} ({fault.strerror}): choose another one with annotate.port=…"
        ) from fault
    return listener


def address_of(host: str, listener: socket.socket) -> str:
    """The address to open in a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"


def _loopback_address(host: str) -> str:
    if host in LOOPBACK:
        return "127.0.0.1" if host == "localhost" else host
    raise UserError(
        f"annotate.host {host!r} could be reached from other machines, and the annotation app has no accounts yet: "
        "anybody could sign in under any name. Use 127.0.0.1, and for a remote machine forward the port: "
        "ssh -L 7860:127.0.0.1:7860 THE_MACHINE"
    )
