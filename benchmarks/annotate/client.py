"""Simulated browsers: what the annotators' page sends, over one kept connection each, by a client that costs little."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

LEASE = re.compile(r'data-lease="([^"]+)"')
RESPONSE = re.compile(r'data-response="([^"]+)"')
PAUSE = 0.2
"""Seconds before a browser asks again after an error."""


class Refused(Exception):
    """An answer other than 200, or one that carries an error; `status` is 200 for the latter."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status = status
        self.sentence = sentence


class Connection:
    """A kept HTTP/1.1 connection to 127.0.0.1; opened again where the server closed it."""

    def __init__(self, port: int, headers: dict[str, str] | None = None, timeout: float = 60.0) -> None:
        self.port = port
        self.headers = {"Host": f"127.0.0.1:{port}", **(headers or {})}
        self.timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str, bytes]:
        """Send a request; returns status, head and body.

        Raises:
            OSError, EOFError, TimeoutError: there is no server, it went away, or was silent for `timeout` seconds.
        """
        headers = {**self.headers, "Content-Length": str(len(body)), **({"Content-Type": kind} if kind else {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            async with asyncio.timeout(self.timeout):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
                reader, writer = self._streams
                writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                return await self._body(reader, head)
        except BaseException:
            self.close()
            raise

    async def _body(self, reader: asyncio.StreamReader, head: str) -> tuple[int, str, bytes]:
        low = head.lower()
        length = re.search(r"\r\ncontent-length: *(\d+)", low)
        if length:
            content = await reader.readexactly(int(length[1]))
        elif "\r\ntransfer-encoding: chunked" in low:
            content = b""
            while size := int(await reader.readline(), 16):
                content += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            content = b""
        if "\r\nconnection: close" in low:
            self.close()
        return int(head.split(" ", 2)[1]), head, content

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Outcome:
    """What a load came to; times are those of one submit with the next task in its answer, in seconds."""

    times: list[float] = field(default_factory=list)
    fetches: list[float] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Key of an answer that was acknowledged, to its annotator."""
    sent: dict[str, str] = field(default_factory=dict)
    """The same of all that were sent."""
    errors: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    seconds: float = 0.0
    stopped: bool = False

    @property
    def rate(self) -> float:
        """Acknowledged judgements per second, those of the warm-up left out."""
        return len(self.times) / self.seconds if self.seconds else 0.0


class Browser:
    """One annotator's page: signs in, asks for a task, and submits; each answer carries the next task."""

    def __init__(self, port: int, name: str, timeout: float = 60.0, fresh_every: int = 0) -> None:
        self.name = name
        self.fresh_every, self.calls = fresh_every, 0
        self.connection = Connection(port, timeout=timeout)
        self.task: tuple[str, dict[str, int]] | None = None
        """The shown task's lease, and the ranking that will be submitted, also when it has to be sent again."""
        self.notice = ""

    async def sign_in(self) -> None:
        """Sign in by name; the session's cookie is kept."""
        form = urlencode({"name": self.name}).encode()
        status, head, _ = await self.connection.request("POST", "/sign-in", form, "application/x-www-form-urlencoded")
        if status != 303:
            raise Refused(status, "not signed in")
        cookies = re.findall(r"\r\nset-cookie: *([^;\r]+)", head, re.IGNORECASE)
        self.connection.headers["Cookie"] = "; ".join(cookies)

    async def call(self, action: str, message: dict[str, Any]) -> dict[str, Any]:
        """What the page's script does: POST JSON, read JSON.

        Raises:
            Refused: the answer is no success.
        """
        self.calls += 1
        if self.fresh_every and self.calls % self.fresh_every == 0:
            self.connection.close()
        body = json.dumps(message).encode()
        status, _, content = await self.connection.request("POST", f"/annotate-work/{action}", body, "application/json")
        try:
            reply: dict[str, Any] = json.loads(content)
        except ValueError:
            reply = {"error": content[:80].decode(errors="replace")}
        if status != 200 or "error" in reply:
            raise Refused(status, reply.get("error", ""))
        self._show(reply.get("html", ""))
        return reply

    def _show(self, html: str) -> None:
        lease, responses = LEASE.search(html), RESPONSE.findall(html)
        ranks = random.sample(range(1, len(responses) + 1), len(responses))
        self.task = (lease[1], dict(zip(responses, ranks, strict=True))) if lease else None

    async def next(self) -> None:
        """Ask for a task."""
        await self.call("next", {})

    async def judge(self, key: str) -> None:
        """Submit the random ranking of the shown task; shows the next one."""
        assert self.task is not None
        lease, ranking = self.task
        await self.call("judge", {"lease_id": lease, "key": key, "ranking": ranking, "seconds": 1.0})


async def annotate(browser: Browser, outcome: Outcome, until: float, pace: float, delay: float) -> None:
    """Judge until the clock (`time.monotonic`) says `until`; after an error, send the same answer again.

    Args:
        pace: seconds from one submit to the next; 0 submits as soon as the next task is there.
        delay: seconds to wait before the first one, so that annotators do not start together.
    """
    await asyncio.sleep(delay)
    key, signed_in = "", False
    while time.monotonic() < until and not outcome.stopped:
        began = time.perf_counter()
        try:
            if not signed_in:
                await browser.sign_in()
                signed_in = True
            elif browser.task is None:
                await browser.next()
                outcome.fetches.append(time.perf_counter() - began)
                if browser.task is None:
                    outcome.empty += 1
                    return
                key = ""
                await _pause(pace, until)
            else:
                key = key or uuid.uuid4().hex
                outcome.sent[key] = browser.name
                await browser.judge(key)
                outcome.times.append(time.perf_counter() - began)
                outcome.acknowledged[key] = browser.name
                key = ""
                await _pause(pace - (time.perf_counter() - began), until)
        except (OSError, EOFError, TimeoutError) as fault:
            outcome.errors[type(fault).__name__] += 1
            await asyncio.sleep(PAUSE)
        except Refused as refused:
            outcome.refusals[str(refused)] += 1
            if refused.status == 401:
                signed_in = False
            elif refused.status == 200:
                browser.task, key = None, ""
            await asyncio.sleep(PAUSE)


async def _pause(seconds: float, until: float) -> None:
    if seconds > 0:
        await asyncio.sleep(max(0.0, min(seconds, until - time.monotonic())))


async def load(
    port: int,
    annotators: int,
    seconds: float,
    *,
    pace: float = 0.0,
    warm_up: float = 0.0,
    fresh_every: int = 0,
    meanwhile: Callable[[Outcome], Coroutine[Any, Any, None]] | None = None,
) -> Outcome:
    """Let `annotators` work for `seconds`; of what they do in the `warm_up` before, no times are kept.

    Args:
        fresh_every: calls after which a browser opens a new connection, which may reach another server process.
        meanwhile: runs beside them.
    """
    outcome = Outcome()
    began = time.monotonic()
    until = began + warm_up + seconds
    browsers = [Browser(port, f"annotator {number}", fresh_every=fresh_every) for number in range(annotators)]
    spread = pace or min(1.0, seconds / 10)
    tasks = [
        annotate(browser, outcome, until, pace, spread * number / annotators) for number, browser in enumerate(browsers)
    ]

    async def forget_warm_up() -> None:
        await asyncio.sleep(warm_up)
        outcome.times.clear()

    beside = [forget_warm_up()] if warm_up else []
    if meanwhile is not None:
        beside.append(meanwhile(outcome))
    await asyncio.gather(*tasks, *beside)
    outcome.seconds = time.monotonic() - began - warm_up
    for browser in browsers:
        browser.connection.close()
    return outcome
