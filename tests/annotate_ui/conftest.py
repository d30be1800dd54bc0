"""A real store in a temporary folder, the app served on a free loopback port, and a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from annotate_ui.app import build_app
from annotate_ui.server import address_of, open_listener
from annotate_ui.setup import Setup
from plumbline.preferences.records import JudgementRecord, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store

TEXTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def new_task(prompt: str, responses: Sequence[str] | int = 4) -> NewTask:
    """A task of one user's message; a number of responses makes that many, each from a policy of its own."""
    texts = [f"{prompt}: response {name}" for name in TEXTS[:responses]] if isinstance(responses, int) else responses
    return NewTask(
        prompt=[{"role": "user", "content": prompt}],
        responses=[NewResponse(text=text, source=f"policy-{index}") for index, text in enumerate(texts)],
        project="support",
    )


def judgements(service: PreferenceService, count: int) -> list[JudgementRecord]:
    """The judgements in the store, as soon as there are `count`."""
    for _ in range(100):
        found = list(service.judgements())
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} judgements in the store, expected {count}")


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def names_its_page(page: Any, request: Any) -> bool:
    """Whether a call says whose page it comes from, so that it is never taken as another's."""
    badge = page.evaluate("document.documentElement.dataset.badge")
    return bool(badge) and request.headers["x-plumbline-badge"] == badge


def ranks_as_shown(record: JudgementRecord) -> list[int]:
    """The ranks of a judgement in the order in which the annotator saw the cards: A, B, C, …"""
    return [record.ranking[response_id] for response_id in record.shown_order]


class _Unmounted:
    """Stands where Gradio makes the web app of a page twice before the one that is mounted; nothing asks these two."""

    @staticmethod
    def create_app(*arguments: Any, **settings: Any) -> _Unmounted:
        return _Unmounted()


@pytest.fixture(autouse=True, scope="session")
def gradio_makes_each_app_once() -> Iterator[None]:
    """Making one takes a tenth of a second, and most tests make three pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.blocks.App", _Unmounted)
        yield


@pytest.fixture
def setup() -> Setup:
    """How the app is set; a test parametrises it to have it otherwise."""
    return Setup("Support")


@pytest.fixture
def store(tmp_path: Path, new_file: Path) -> Iterator[Store]:
    opened = Store.open(shutil.copy(new_file, tmp_path / "preferences.db"))
    yield opened
    opened.close()


@pytest.fixture
def service(store: Store, setup: Setup) -> PreferenceService:
    return PreferenceService(store, project="support", rules=Rules(rubric=setup.rubric, edit=setup.edit))


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application in a thread; gives its address."""
    listener = open_listener("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield address_of("127.0.0.1", listener)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@pytest.fixture
def address(service: PreferenceService, setup: Setup) -> Iterator[str]:
    with served(build_app(service, setup)) as url:
        yield url


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the app in a fresh browser profile, signed in under a name; keeps the addresses it asked for."""
    contexts = []

    def open_as(name: str, *, wait_for: str = ".pl-card", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # milliseconds; a busy machine is slow, not wrong
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address)
        page.fill("#name", name)
        page.click("button[type=submit]")
        page.wait_for_selector(wait_for)
        return page

    yield open_as
    for context in contexts:
        context.close()
