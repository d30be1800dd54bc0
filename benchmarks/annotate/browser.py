"""From submit to the next item on screen, in a real Chromium on this machine.

    python -m benchmarks.annotate.browser [--items 200] [--responses 4] [--words 150] [--rubric] [--chromium PATH]

The page is used by keyboard: every response gets a rank, then Enter. The time runs from the Enter key's event to the
frame in which the next item is painted: the first animation frame after the page holds other cards, and then the task
after that frame. Where it goes is measured too: the server's answer (fetch), the page's own work, and the painting.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any

import uvicorn

from annotate_ui.app import build_app
from annotate_ui.server import address_of, open_listener
from annotate_ui.setup import Setup
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import RubricAxis

WARM_UP = 5
WORDS = (
    "the",
    "parcel",
    "arrives",
    "tomorrow",
    "please",
    "check",
    "your",
    "address",
    "and",
    "we",
    "refund",
    "delivery",
)
RUBRIC = (RubricAxis(name="helpful", question="Is it helpful?"), RubricAxis(name="polite", question="Is it polite?"))
ARGUMENTS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-background-networking"]

WATCH = """() => {
    window.turns = [];
    let turn = null;
    const lease = () => document.querySelector("[data-lease]")?.dataset.lease;
    document.addEventListener("keydown", (event) => {
        if (event.key === "Enter") turn = { began: performance.now(), lease: lease() };
    }, { capture: true });
    const asked = window.fetch;
    window.fetch = async (...request) => {
        const answer = await asked(...request);
        if (turn && String(request[0]).endsWith("/annotate-work/judge")) {
            const read = answer.json.bind(answer);
            answer.json = async () => { const body = await read(); turn.answered = performance.now(); return body; };
        }
        return answer;
    };
    new MutationObserver(() => {
        if (!turn?.answered || turn.shown || lease() === turn.lease) return;
        const done = turn;
        done.shown = performance.now();
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => window.turns.push({ ...done, painted: performance.now() });
            channel.port2.postMessage(null);
        });
        turn = null;
    }).observe(document.body, { childList: true, subtree: true });
}"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--words", type=int, default=150)
    parser.add_argument("--rubric", action="store_true", help="also show two axes to score")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = parser.parse_args()
    if given.chromium is None:
        parser.error("Chromium is not installed; or name it with --chromium")
    with tempfile.TemporaryDirectory() as folder:
        turns = measure(Path(folder), given)
    report(turns, given)


def measure(folder: Path, given: argparse.Namespace) -> list[dict[str, float]]:
    """Rank `items` items in a browser; milliseconds of every submit, those of the warm-up left out."""
    from playwright.sync_api import sync_playwright

    store = Store.open(folder / "preferences.db")
    setup = Setup("Support", rubric=RUBRIC if given.rubric else ())
    service = PreferenceService(store, project="support", rules=Rules(rubric=setup.rubric))
    # One more than is ranked, so that the last one too is followed by an item.
    service.add_tasks(new_task(number, given) for number in range(given.items + WARM_UP + 1))
    listener = open_listener("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(build_app(service, setup), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address_of("127.0.0.1", listener))
            page.fill("#name", "Ada")
            page.click("button[type=submit]")
            page.wait_for_selector(".pl-card")
            page.evaluate(WATCH)
            for number in range(given.items + WARM_UP):
                rank(page, given)
                page.wait_for_function("count => window.turns.length >= count", arg=number + 1)
            turns: list[dict[str, float]] = page.evaluate("window.turns")
            browser.close()
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        store.close()
    return turns[WARM_UP:]


def rank(page: Any, given: argparse.Namespace) -> None:
    """Rank the shown responses as 1, 2, 3, …, score them where asked, and submit."""
    for digit in range(1, given.responses + 1):
        page.keyboard.press(str(digit))
    for _ in range(given.responses * len(RUBRIC) if given.rubric else 0):
        page.keyboard.press("3")
    page.keyboard.press("Enter")


def new_task(number: int, given: argparse.Namespace) -> NewTask:
    """A task with responses of random words in three paragraphs."""
    words = random.Random(number)

    def text() -> str:
        paragraph = given.words // 3
        return "\n\n".join(" ".join(words.choices(WORDS, k=paragraph)) for _ in range(3))

    responses = [NewResponse(f"{text()} {index}", f"policy-{index}") for index in range(given.responses)]
    return NewTask([{"role": "user", "content": f"Where is parcel {number}?"}], responses, "support")


def report(turns: list[dict[str, float]], given: argparse.Namespace) -> None:
    """Print percentiles and the machine."""
    spans = {
        "Enter to painted": [turn["painted"] - turn["began"] for turn in turns],
        "of it, the server's answer": [turn["answered"] - turn["began"] for turn in turns],
        "of it, the page's work": [turn["shown"] - turn["answered"] for turn in turns],
        "of it, layout and painting": [turn["painted"] - turn["shown"] for turn in turns],
    }
    print(f"{len(turns)} items, {given.responses} responses of {given.words} words, 1280 x 900; milliseconds")
    print(f"{'':30}{'p50':>8}{'p95':>8}{'p99':>8}{'most':>8}")
    for name, times in spans.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        print(f"{name:30}{cuts[49]:8.1f}{cuts[94]:8.1f}{cuts[98]:8.1f}{max(times):8.1f}")
    print(
        f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}; server, browser and driver on it"
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
