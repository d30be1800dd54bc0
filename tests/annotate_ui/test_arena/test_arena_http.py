"""The arena's routes as a page uses them, and as somebody uses them who should not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from annotate_ui.arena import desk
from annotate_ui.arena.stage import Stage
from annotate_ui.calls import AT_ONCE_ON_SQLITE
from annotate_ui.sessions import Session, Sessions
from annotate_ui.setup import Setup
from plumbline.errors import StoreUnavailable
from plumbline.preferences.arena_votes import read_votes
from plumbline.preferences.erasure import erase
from plumbline.preferences.leaderboard import leaderboard
from plumbline.preferences.source_names import MASK
from tests.annotate_ui.test_arena.conftest import ALIGNED, BASELINE, HELD_OUT

TEXTS = {ALIGNED, BASELINE}


class Visitor:
    """A signed-in browser."""

    def __init__(self, address: str, name: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=30)
        self.http.post("/sign-in", data={"name": name})

    def ask(self, action: str, **message: Any) -> dict[str, Any]:
        return dict(self.http.post(f"/arena-work/{action}", json=message).json())

    def start(self, prompt: str = "Where is my parcel?", **more: Any) -> str:
        return str(self.ask("start", prompt=prompt, **more)["battle"])

    def lines(self, battle: str) -> Iterator[dict[str, Any]]:
        with self.http.stream("POST", "/arena-work/listen", json={"battle": battle}) as answer:
            yield from map(json.loads, answer.iter_lines())

    def answered(self) -> str:
        battle = self.start()
        assert "done" in list(self.lines(battle))[-1]
        return battle


@pytest.fixture
def ada(address):
    return Visitor(address, "Ada")


@pytest.fixture
def bo(address):
    return Visitor(address, "Bo")


@pytest.fixture
def votes(service):
    return lambda: read_votes(service.store, "support")


def test_a_conversation_from_the_prompt_to_the_names(ada, service):
    drawn = ada.ask("draw")
    assert drawn["prompt"] == HELD_OUT
    turn = ada.ask("start", prompt=drawn["prompt"], drawn=drawn["drawn"])
    lines = list(ada.lines(turn["battle"]))
    said = {side: "".join(line.get(side, "") for line in lines) for side in ("left", "right")}
    assert set(said.values()) == TEXTS
    assert all(side["finished"] for side in lines[-1]["done"].values())
    better = "left" if said["left"] == ALIGNED else "right"
    assert "<strong>Monday</strong>" in lines[-1]["done"][better]["html"]
    assert not any(name in json.dumps([turn, lines]) for name in ("sft", "dpo"))
    voted = ada.ask("vote", battle=turn["battle"], vote=better, seconds=4.2)
    assert (voted["vote"], voted["goes_on"]) == (better, True)
    following = ada.ask("go_on", battle=turn["battle"], prompt="Yes, please.")
    assert "Shall I write to the courier" in following["talk"]
    assert (following["number"], following["turns"]) == (2, 3)
    reveal = ada.ask("end", battle=following["battle"])["reveal"]
    assert reveal.count("dpo") == reveal.count("sft") == 2
    (record,) = service.judgements()
    best = min(record.responses, key=lambda response: record.ranking[response.response_id])
    assert (best.text, best.source, record.purpose, record.seconds) == (ALIGNED, "dpo", "arena", 4.2)


def test_both_sides_grow_in_step(ada, stand_in):
    stand_in.texts["dpo"] = "x" * len(BASELINE)
    grown = {"left": 0, "right": 0}
    for line in ada.lines(ada.start()):
        for side in grown:
            grown[side] += len(line.get(side, ""))
        assert abs(grown["left"] - grown["right"]) <= stand_in.step  # a word that may become a name is held back


def test_a_vote_stops_the_models_and_keeps_what_was_seen(ada, stand_in, votes, service):
    stand_in.pause_at = 32
    battle = ada.start()
    voter = Visitor(str(ada.http.base_url), "Ada")
    listening = ada.lines(battle)
    seen = {"left": "", "right": ""}
    while len(seen["right"]) < 24:
        line = next(listening)
        seen = {side: seen[side] + line[side] for side in seen}
    voted = voter.ask("vote", battle=battle, vote="tie", seen=[len(seen["left"]), len(seen["right"])])
    assert voted["vote"] == "tie"
    assert stand_in.closed.is_set()
    assert "done" in list(listening)[-1]
    (record,) = service.judgements()
    assert {response.text for response in record.responses} == set(seen.values())
    assert not any(response.meta["finished"] for response in record.responses)
    assert len(votes()) == 1


def test_who_goes_away_stops_the_models(ada, stand_in):
    stand_in.pause_at = 16
    listening = ada.lines(ada.start())
    next(listening)
    listening.close()
    assert stand_in.closed.wait(10)
    state = wait_for(lambda: ada.ask("state")["said"])
    assert all(side["characters"] >= 8 and not side["finished"] for side in state.values())


def wait_for(look, seconds=10.0):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_who_comes_second_waits_and_is_told(ada, bo, stand_in):
    stand_in.pause_at = 8
    listening = ada.lines(ada.start())
    next(listening)
    waiting = bo.lines(bo.start())
    assert next(waiting) == {"waiting": 1}
    stand_in.go.set()
    assert "done" in list(listening)[-1]
    assert "done" in list(waiting)[-1]


def test_a_turn_is_answered_once_at_a_time(ada, stand_in):
    stand_in.pause_at = 8
    battle = ada.start()
    listening = ada.lines(battle)
    next(listening)
    other = Visitor(str(ada.http.base_url), "Ada")
    assert "another window" in next(other.lines(battle))["error"]
    stand_in.go.set()
    assert "done" in list(listening)[-1]
    assert "answered already" in next(ada.lines(battle))["error"]


def test_a_new_conversation_stops_the_old_one(ada, stand_in):
    stand_in.pause_at = 8
    listening = ada.lines(ada.start())
    next(listening)
    other = Visitor(str(ada.http.base_url), "Ada")
    battle = other.start("Something else")
    assert "done" in list(listening)[-1]
    stand_in.go.set()
    assert other.ask("state")["battle"] == battle


def test_a_vote_on_what_nobody_answers_is_refused_at_once(ada, arena, monkeypatch):
    asked = []
    vote = arena.vote
    monkeypatch.setattr(arena, "vote", lambda *given, **more: asked.append(given) or vote(*given, **more))
    assert "not answered yet" in ada.ask("vote", battle=ada.start(), vote="left")["error"]
    assert len(asked) == 2  # a turn that ends between asking and stopping is looked at again, once


def test_annotators_do_not_wait_for_the_models(ada, bo, monkeypatch):
    """With as many votes that wait as there are threads for the annotators' calls, the board still answers."""
    entered, go_on = threading.Semaphore(0), threading.Event()
    monkeypatch.setattr(Stage, "stop", lambda stage, battle: (entered.release(), go_on.wait(30)))
    voters = []
    for number in range(AT_ONCE_ON_SQLITE):
        visitor = Visitor(str(ada.http.base_url), f"Voter {number}")
        vote = {"battle": visitor.start(), "vote": "left"}
        voters.append(threading.Thread(target=visitor.ask, args=("vote",), kwargs=vote))
    for voter in voters:
        voter.start()
        assert entered.acquire(timeout=10)
    try:
        assert "html" in bo.http.post("/annotate-work/next", json={}, timeout=10).json()
    finally:
        go_on.set()
        for voter in voters:
            voter.join()


def test_the_guideline_is_asked_for_and_a_pause_is_told(ada, service):
    service.guidelines.publish("**Kind** first.")
    asked = ada.ask("start", prompt="Hello")
    assert "battle" not in asked
    assert "<strong>Kind</strong>" in asked["consent"]
    assert "changed" in ada.ask("consent", version=7)["error"]
    assert ada.ask("consent", version=1) == {}
    assert ada.ask("start", prompt="Hello")["battle"]
    (standing,) = service.control.standings()
    service.control.pause(standing.annotator_id, "Please call me.")
    assert "Please call me." in ada.ask("start", prompt="Hello")["error"]


def test_a_fault_of_the_models_is_told_and_can_be_tried_again(ada, stand_in, monkeypatch):
    from plumbline.errors import UserError

    def fails(duel):
        raise UserError("the folder runs/x/dpo holds no model.")
        yield

    battle = ada.start()
    with monkeypatch.context() as patch:
        patch.setattr(stand_in, "speak", fails)
        assert list(ada.lines(battle)) == [{"error": "The folder runs/x/dpo holds no model."}]
    assert "done" in list(ada.lines(battle))[-1]


@pytest.mark.parametrize("setup", [Setup("Support", language="de")])
def test_what_ends_a_turn_is_told_in_the_language_of_the_page(ada, arena, monkeypatch):
    def full(*_: Any) -> None:
        raise StoreUnavailable("/srv/preferences.db: the disk is full", "the disk is full")

    monkeypatch.setattr(arena, "said", full)
    assert "Die Platte des Servers ist voll" in list(ada.lines(ada.start()))[-1]["error"]


def test_reloading_brings_the_turn_back(ada):
    battle = ada.answered()
    state = ada.ask("state")
    assert (state["battle"], state["vote"], state["draws"]) == (battle, None, True)
    assert set(state["said"]) == {"left", "right"}


@pytest.mark.parametrize("action", ["vote", "go_on", "end", "listen"])
@pytest.mark.parametrize("forged", [False, True])
def test_the_battles_of_others_are_out_of_reach(ada, bo, votes, action, forged):
    battle = "0" * 32 if forged else ada.answered()
    more = {"vote": {"vote": "left"}, "go_on": {"prompt": "Hi"}}.get(action, {})
    assert "not yours" in bo.ask(action, battle=battle, **more)["error"]
    assert not votes()


def test_votes_count_once_and_not_after_the_names(ada, votes):
    battle = ada.answered()
    assert ada.ask("vote", battle=battle, vote="left")["vote"] == "left"
    assert ada.ask("vote", battle=battle, vote="left")["vote"] == "left"
    assert "voted on this turn already" in ada.ask("vote", battle=battle, vote="right")["error"]
    following = ada.ask("go_on", battle=battle, prompt="And?")["battle"]
    list(ada.lines(following))
    assert ada.ask("end", battle=battle)["reveal"]
    assert "is over" in ada.ask("vote", battle=following, vote="right")["error"]
    assert len(votes()) == 1


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"prompt": ""}, "is empty"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"prompt": "x" * 9000}, "8000 fit"),
        ({"prompt": "x" * 3000}, "too many tokens"),
        ({"prompt": "x" * 40_000}, "cannot be stored"),
        ({"prompt": "Hi", "policy": "sft"}, "cannot be stored"),
        ({"prompt": ["Hi"]}, "cannot be stored"),
        ({"prompt": "Hi", "drawn": "../../etc/passwd" * 20}, "cannot be stored"),
    ],
)
def test_prompts_that_are_refused(ada, message, fault):
    assert fault in ada.ask("start", **message)["error"]
    assert "battle" not in ada.ask("state")


@pytest.mark.parametrize(
    "message",
    [
        {"vote": "dpo"},
        {"vote": "left", "seen": [-1, 5]},
        {"vote": "left", "seen": [1]},
        {"vote": "left", "seconds": -1},
        {"vote": "left", "source": "sft"},
    ],
)
def test_votes_that_are_refused(ada, votes, message):
    battle = ada.answered()
    assert "cannot be stored" in ada.ask("vote", battle=battle, **message)["error"]
    assert not votes()


def test_a_drawn_prompt_that_was_changed_is_a_typed_one(ada):
    drawn = ada.ask("draw")["drawn"]
    assert "Hello" in ada.ask("start", prompt="Hello", drawn=drawn)["talk"]


def test_what_models_say_is_never_live_html(ada, stand_in):
    stand_in.texts = dict.fromkeys(("sft", "dpo"), "<img src=x onerror=alert(1)>![a](http://evil/x.png)")
    done = list(ada.lines(ada.start()))[-1]["done"]
    assert "<img" not in done["left"]["html"]


def test_strangers_are_sent_away(address):
    stranger = httpx.Client(base_url=address)
    for action in ("state", "draw", "start", "vote", "go_on", "end", "board", "listen"):
        assert stranger.post(f"/arena-work/{action}", json={}).status_code == 401, action
    assert stranger.get("/arena/").headers["location"] == "/"
    forged = stranger.post("/arena-work/listen", content=b'{"battle": "x"}', headers={"content-type": "text/plain"})
    assert forged.status_code == 415


def test_the_leaderboard_is_for_leads(ada, monkeypatch):
    read = Sessions.read
    with monkeypatch.context() as patch:
        patch.setattr(Sessions, "read", lambda self, request: as_role(read(self, request), "annotator"))
        assert ada.http.post("/arena-work/board", json={}).status_code == 403
    monkeypatch.setattr(Sessions, "read", lambda self, request: as_role(read(self, request), "lead"))
    monkeypatch.setattr("plumbline.preferences.kept.REST", 0.0)
    assert "No votes yet" in ada.ask("board")["html"]
    ada.ask("vote", battle=ada.answered(), vote="left")
    html = ada.ask("board")["html"]
    assert "dpo and sft are not told apart yet" in html
    assert "Ada" in html


def test_the_leaderboard_is_worked_out_for_new_votes_alone(ada, monkeypatch):
    monkeypatch.setattr("plumbline.preferences.kept.REST", 0.0)
    made = []
    work_out = lambda votes, **given: made.append(len(votes)) or leaderboard(votes, **given)  # noqa: E731
    monkeypatch.setattr(desk, "leaderboard", work_out)
    for votes in (1, 2):
        ada.ask("vote", battle=ada.answered(), vote="left")
        for _ in range(3):
            assert f"{votes} of {votes} votes count" in ada.ask("board")["html"]
    assert made == [1, 2]


def test_the_leaderboard_knows_who_was_erased(ada, service):
    ada.ask("vote", battle=ada.answered(), vote="left")
    assert "Ada" in ada.ask("board")["html"]
    erased = erase(service.store, "Ada", remove_judgements=False)
    bo = Visitor(str(ada.http.base_url), "Bo")
    html = bo.ask("board")["html"]
    assert erased.pseudonym in html and "Ada" not in html


def as_role(session: Session | None, role: str) -> Session | None:
    return session and Session(session.annotator_id, session.name, role)


def test_many_voters_at_once_lose_nothing(address, stand_in, votes):
    def visit(number):
        visitor = Visitor(address, f"person {number}")
        visitor.ask("vote", battle=visitor.answered(), vote="left")

    stand_in.step = 1000
    threads = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(votes()) == 6


def test_names_of_models_are_sent_to_nobody_until_they_are_told(ada, stand_in, votes):
    stand_in.step = 1  # every name comes in many pieces
    stand_in.texts = {one: f"I am ChatGPT, made by OpenAI. As {one}, Qwen2.5-Coder here." for one in ("sft", "dpo")}
    battle = ada.start()
    *growing, last = ada.lines(battle)
    for side, said in (("left", last["done"]["left"]), ("right", last["done"]["right"])):
        shown = "".join(line.get(side, "") for line in growing)
        assert shown.startswith(f"I am {MASK}, made by {MASK}. As ")
        assert said["characters"] >= len(shown) and MASK in said["html"]
        for name in ("Chat", "GPT", "Open", "Qwen", "2.5", "Coder"):
            assert name not in shown + said["html"]
    voted = ada.ask("vote", battle=battle, vote="left", seen=[10_000, 10_000])
    assert "ChatGPT" not in json.dumps(voted) and "ChatGPT" not in json.dumps(ada.ask("state"))
    followed = ada.ask("go_on", battle=battle, prompt="Who are you?")
    assert "ChatGPT" not in json.dumps(followed) and MASK in followed["talk"]
    assert votes()[0].named is False
