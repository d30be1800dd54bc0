"""Makes pages and the app slow, to find browser tests that look before a page has done its work.

    pytest -p tests.slow_browser -m browser

Processors of pages run at a quarter of their speed, and every call waits for a moment at random, once before it reaches
the app and once before its reply goes out. A test that fails with this alone looks too early.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

TIMES_SLOWER = 4
LONGEST_WAIT = 0.3  # seconds


@pytest.fixture(autouse=True, scope="session")
def slow_pages() -> Iterator[None]:
    """Slow down every page that Playwright opens and every app that uvicorn serves."""
    browser_context = pytest.importorskip("playwright.sync_api").BrowserContext
    new_page = browser_context.new_page

    def slow_page(context: Any) -> Any:
        page = new_page(context)
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": TIMES_SLOWER})
        return page

    def slow_config(app: Any, *arguments: Any, **settings: Any) -> uvicorn.Config:
        return config(app if isinstance(app, str) else slow(app), *arguments, **settings)

    config = uvicorn.Config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser_context, "new_page", slow_page)
        patch.setattr(uvicorn, "Config", slow_config)
        yield


def slow(app: Any) -> Any:
    """An ASGI application that waits before each HTTP request and before each reply."""

    async def slowed(scope: Any, receive: Any, send: Any) -> None:
        async def send_later(message: Any) -> None:
            if message["type"] == "http.response.start":
                await wait()
            await send(message)

        if scope["type"] == "http":
            await wait()
        await app(scope, receive, send_later if scope["type"] == "http" else send)

    return slowed


async def wait() -> None:
    """A moment, at random."""
    await asyncio.sleep(LONGEST_WAIT * random.random())
