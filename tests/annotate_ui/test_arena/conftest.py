"""An arena with stand-in models, whose texts and pace the tests decide."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from annotate_ui import Setup
from annotate_ui.app import build_app
from annotate_ui.arena import ArenaSetup
from plumbline.conversations import Conversation
from plumbline.errors import UserError
from plumbline.preferences.arena import Arena, Duel, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.arena_votes import read_votes
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import served

ALIGNED = (
    "It left our depot on **Monday**, so it should reach you by Thursday.\n\n"
    "1. Open the tracking page.\n2. Enter `PX-4821`.\n3. Choose *safe place* if nobody is at home.\n\n"
    "Shall I write to the courier for you?"
)
BASELINE = (
    "Parcels can take a while. Please look at the tracking page that we sent to you by e-mail, and wait for two more "
    "days. If it is not there by then, write to us again and we will see what can be done."
)
HELD_OUT = "Where is my parcel? It was meant to come on Tuesday, the number is PX-4821."


class StandIn:
    """Speaks given texts, a few characters at a time; waits at `pause_at` characters until `go` is set."""

    def __init__(self) -> None:
        self.texts = {"sft": BASELINE}
        self.step, self.seconds, self.pause_at = 8, 0.0, 10**9
        self.go, self.closed, self.speaking = threading.Event(), threading.Event(), threading.Semaphore(0)

    def check(self, prompt: Any) -> None:
        if len(prompt[-1]["content"]) > 2000:
            raise UserError("the conversation has too many tokens: shorten your message.")

    def speak(self, duel: Duel) -> Iterator[tuple[Said, Said]]:
        texts = [self.texts.get(one.name, ALIGNED) for one in (duel.left, duel.right)]
        self.speaking.release()
        try:
            for shown in range(self.step, max(map(len, texts)) + self.step, self.step):
                self.closed.wait(self.seconds)
                yield tuple(Said(text[:shown], shown >= len(text)) for text in texts)  # type: ignore[misc]
                while shown >= self.pause_at and not self.go.wait(0.02):
                    yield tuple(Said(text[:shown], shown >= len(text)) for text in texts)  # type: ignore[misc]
        finally:
            self.closed.set()


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def drawn() -> Conversation:
    """The held-out prompt; a test parametrises it to have another."""
    return [{"role": "user", "content": HELD_OUT}]


@pytest.fixture
def arena(service: PreferenceService, drawn: Conversation) -> Arena:
    rules = ArenaRules((Contender("sft"), Contender("dpo")), "sft", prompts=(drawn,), turns=3)
    return Arena(service.store, project="support", rules=rules, chance=random.Random(4))


@pytest.fixture
def app(service: PreferenceService, setup: Setup, arena: Arena, stand_in: StandIn) -> Any:
    return build_app(service, setup, arena=ArenaSetup(arena, stand_in, at_once=1))


@pytest.fixture
def address(app: Any) -> Iterator[str]:
    with served(app) as url:
        yield url


@pytest.fixture
def open_arena(open_page: Any, address: str) -> Any:
    def open_as(name: str, **options: Any) -> Any:
        page = open_page(name, wait_for=".pl-main", **options)
        page.goto(f"{address}arena/")
        page.wait_for_selector("[data-do=draw]:visible")
        return page

    return open_as


def votes_of(service: Any, count: int) -> Any:
    for _ in range(100):
        if len(found := read_votes(service.store, "support")) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} votes, expected {count}")


def whole(page: Any) -> None:
    """Wait until both answers are shown as rendered Markdown."""
    page.wait_for_selector("[data-side=left] .pl-text:not(.pl-plain) p")
    page.wait_for_selector("[data-side=right] .pl-text:not(.pl-plain) p")
