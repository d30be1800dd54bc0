"""The picture of the lead's page in docs/images, taken from the app on a store with planted annotators.

python -m benchmarks.annotate.lead_screenshots [--to docs/images] [--tabs quality,queue] [--all]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from annotate_ui.app import build_app
from annotate_ui.server import address_of, open_listener
from annotate_ui.setup import Setup
from benchmarks.annotate import planted_store
from benchmarks.annotate.screenshots import ARGUMENTS, GUIDELINE
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store

LOOKS = (("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360))


def main() -> None:
    """Take the picture of the docs; with `--all`, each tab light and dark, wide and narrow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[2] / "docs" / "images")
    parser.add_argument("--tabs", default="quality")
    parser.add_argument("--all", action="store_true", help="in every look, as TAB-LOOK-WIDTH.png")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = parser.parse_args()
    if given.chromium is None:
        parser.error("Chromium is not installed; or name it with --chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, served() as address:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
        for scheme, width in LOOKS if given.all else LOOKS[:1]:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = signed_in(context.new_page(), address)
            for tab in given.tabs.split(","):
                name = f"{tab}-{scheme}-{width}.png" if given.all else f"{tab}.png"
                shoot(page, address, tab, given.to / name)
            context.close()
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """The app on a new store; its address."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "preferences.db")
        planted_store.fill(store, datetime.now(UTC))
        service = PreferenceService(store, project=planted_store.PROJECT, rules=Rules(adjudicate_above=0.6))
        service.guidelines.publish(GUIDELINE)
        listener = open_listener("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(build_app(service, Setup("Support")), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield address_of("127.0.0.1", listener)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            store.close()


def signed_in(page: Any, address: str) -> Any:
    """The page, with a lead's session."""
    page.set_default_timeout(60_000)  # milliseconds
    page.goto(address)
    page.fill("#name", "Lea")
    page.click("button[type=submit]")
    page.wait_for_load_state("networkidle")
    return page


def shoot(page: Any, address: str, tab: str, file: Path) -> None:
    """Take the picture of a tab when all of its figures are there."""
    page.goto(f"{address}lead/#{tab}")
    page.wait_for_selector(f"[data-panel={tab}]:not([hidden]) :is(.pl-tiles, .pl-decided, .pl-form)")
    page.wait_for_function("!document.querySelector('[data-soon]')")
    page.screenshot(path=file, full_page=True, animations="disabled")


if __name__ == "__main__":
    main()
