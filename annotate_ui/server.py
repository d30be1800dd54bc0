"""Run the annotation app until Ctrl-C or SIGTERM, in one process or in several."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from annotate_ui.app import build_app
from plumbline.console import console
from plumbline.errors import UserError
from plumbline.preferences.retention import Daily
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.webhook_sender import Sender
from plumbline.preferences.webhooks import subscriptions_of
from plumbline.recipe_annotate import LOOPBACK, AnnotateSection

if TYPE_CHECKING:
    from fastapi import FastAPI

    from annotate_ui.arena import ArenaSetup
    from annotate_ui.setup import Setup
    from plumbline.preferences.rules import Rules

# Open pages hold a connection; they must not keep the server from ending.
SECONDS_TO_CLOSE = 1

# Longer than most judgements take, so that an answer need not open a connection first.
SECONDS_KEPT_ALIVE = 120

# A server process that says nothing for so long is replaced; it says nothing while it imports Gradio.
SECONDS_TO_START = 120


@dataclass(frozen=True)
class AppFactory:
    """What a server process of its own needs to make the app: plain values, and a store that it opens itself."""

    store: str
    project: str
    lease: timedelta
    rules: Rules
    setup: Setup
    settings: AnnotateSection

    def __call__(self) -> FastAPI:
        """The app, on a store that stays open as long as the process lives."""
        store = Store.open(self.store, create=False)
        service = PreferenceService(store, project=self.project, lease=self.lease, rules=self.rules)
        start_webhooks(service, self.settings)
        start_retention(service, self.settings)
        return build_app(service, self.setup, self.settings)


def serve(
    service: PreferenceService,
    setup: Setup,
    *,
    arena: ArenaSetup | None = None,
    host: str,
    port: int,
    open_browser: bool = False,
    settings: AnnotateSection | None = None,
) -> None:
    """Serve the annotation app until Ctrl-C; SIGTERM ends it the same way, and the process with status 143.

    Args:
        service: owns every rule and the store.
        setup: how the pages are set.
        arena: the models of the arena, where there is one; it needs a server of one process.
        host: an address of this machine; without accounts, of its loopback (127.0.0.1, ::1 or localhost).
        port: the port, or 0 for any that is free.
        open_browser: open the page in the default browser.
        settings: the recipe's section `annotate`: accounts, host names, a proxy, the number of server processes.

    Raises:
        UserError: the setup names no language that is there, the address is not local and there are no accounts, the
            port is in use, the system does not let us open it, or several processes are asked for on SQLite or for an
            arena.
        SystemExit: on SIGTERM.
    """
    settings = settings or AnnotateSection()
    setup.texts  # noqa: B018  # read them before anything is opened
    check_workers(service.store, settings.workers, arena=arena is not None)
    subscriptions_of(settings.webhooks)  # a secret that is missing is told before anything else starts
    listener = open_listener(host, port, accounts=settings.accounts)
    address = address_of(host, listener)
    console.print(f"The annotation app is open at [bold]{address}[/bold] (Ctrl-C ends it)")
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt), _exit_on_sigterm(), listener:
            if settings.workers > 1:
                _run_several(_factory(service, setup, settings), settings, listener)
            else:
                start_webhooks(service, settings)
                start_retention(service, settings)
                app = build_app(service, setup, settings, arena=arena)
                # uvicorn closes on either signal, then hands it on.
                uvicorn.Server(server_config(app, settings)).run(sockets=[listener])
    finally:
        console.print("The annotation app has ended; all acknowledged judgements are stored.")


def start_webhooks(service: PreferenceService, settings: AnnotateSection) -> Sender | None:
    """Tell the recipe's webhooks of what happens, from a thread of this process; None where there are none.

    Raises:
        UserError: a secret is missing, or an address is none.
    """
    subscriptions = subscriptions_of(settings.webhooks)
    service.store.subscriptions = subscriptions
    if not subscriptions:
        return None
    sender = Sender(service.store, project=service.project, subscriptions=subscriptions, clock=service.clock)
    sender.start()
    return sender


def start_retention(service: PreferenceService, settings: AnnotateSection) -> Daily | None:
    """Clear old records once a day, from a thread of this process; None where the recipe keeps everything."""
    if settings.retention.names_days is None and settings.retention.records_days is None:
        return None
    daily = Daily(service.store, settings.retention, clock=service.clock)
    daily.start()
    return daily


def server_config(app: Any, settings: AnnotateSection, **more: Any) -> uvicorn.Config:
    """How the app is served. Only the proxy that the recipe names is believed what it says of its clients."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_CLOSE,
        timeout_keep_alive=SECONDS_KEPT_ALIVE,
        proxy_headers=settings.proxy is not None,
        forwarded_allow_ips=settings.proxy or [],
        **more,
    )


def check_workers(store: Store, workers: int, *, arena: bool = False) -> None:
    """Refuse several server processes on SQLite, and with an arena.

    Raises:
        UserError: see above.
    """
    if workers > 1 and store.is_sqlite:
        raise UserError(
            f"annotate.workers is {workers}, and the store {store.place} is SQLite, which only one process can write "
            "at a time: set workers to 1, or annotate.store to a PostgreSQL database (postgresql://…)."
        )
    if workers > 1 and arena:
        raise UserError(
            f"the arena needs a server of one process, where its models and conversations are, and annotate.workers is "
            f"{workers}: set it to 1, or leave annotate.arena out."
        )


def _factory(service: PreferenceService, setup: Setup, settings: AnnotateSection) -> AppFactory:
    store = service.store.engine.url.render_as_string(hide_password=False)
    return AppFactory(store, service.project, service.lease, service.rules, setup, settings)


def _run_several(factory: AppFactory, settings: AnnotateSection, listener: socket.socket) -> None:
    """Server processes on one listening socket, each with the whole app; one that dies is replaced."""
    config = server_config(
        factory, settings, factory=True, workers=settings.workers, timeout_worker_healthcheck=SECONDS_TO_START
    )
    supervisor = _Supervisor(config, [listener])
    supervisor.run()
    if supervisor.ended_by is None:
        raise UserError("the server processes could not start: what stopped them is told above.")
    if supervisor.ended_by == signal.SIGTERM:
        sys.exit(128 + signal.SIGTERM)


class _Supervisor(Multiprocess):
    """Remembers which signal ended it; None where the processes could not start."""

    ended_by: signal.Signals | None = None

    def handle_int(self) -> None:
        self.ended_by = signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        self.ended_by = signal.SIGTERM
        super().handle_term()


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, with the status that shells give to it, instead of ending the process at once."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def open_listener(host: str, port: int, *, accounts: bool = False) -> socket.socket:
    """Open the listening socket, so that a port in use is found before anything else starts.

    Raises:
        UserError: see `serve`.
    """
    address = _checked_address(host, accounts=accounts)
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


def _checked_address(host: str, *, accounts: bool) -> str:
    if host in LOOPBACK:
        return "127.0.0.1" if host == "localhost" else host
    if accounts and host:
        return host
    raise UserError(
        f"annotate.host {host!r} could be reached from other machines, and without accounts anybody could sign in "
        "under any name: set annotate.accounts to true, or use 127.0.0.1 and forward the port: "
        "ssh -L 7860:127.0.0.1:7860 THE_MACHINE"
    )
