"""Who may fight in the arena: consent, pauses and quotas count there as on the board; on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import threading

import pytest

from plumbline.preferences.arena import LEFT, Arena, Round, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.records import NeedsConsent, NoWork
from plumbline.preferences.service import PreferenceService

RULES = ArenaRules((Contender("sft"), Contender("dpo")), "sft", turns=3)
QUESTION = [{"role": "user", "content": "Where is my parcel?"}]


@pytest.fixture
def arena(store, clock):
    return Arena(store, project="support", rules=RULES, clock=clock, chance=random.Random(1))


@pytest.fixture
def service(arena):
    return PreferenceService(arena.store, project="support", clock=arena.clock)


@pytest.fixture
def ada(service):
    return service.sign_in("Ada").annotator_id


def voted(arena, who, begun=None):
    """A turn that is answered and voted on; returns the battle's id."""
    battle = (begun or arena.start(who, QUESTION)).battle_id
    arena.said(battle, Said("I look it up.", True), Said("No idea.", True))
    arena.vote(who, battle, LEFT)
    return battle


def test_the_guideline_comes_before_a_turn_and_is_named_by_its_vote(arena, service, ada):
    service.guidelines.publish("Kind first.")
    refused = arena.start(ada, QUESTION)
    assert isinstance(refused, NeedsConsent)
    assert (refused.version, refused.text) == (1, "Kind first.")
    assert arena.current(ada) is None
    service.guidelines.consent(ada, 1)
    battle = voted(arena, ada)
    service.guidelines.publish("Short first.")
    assert isinstance(arena.go_on(ada, battle, "And when?"), NeedsConsent)
    service.guidelines.consent(ada, 2)
    voted(arena, ada, arena.go_on(ada, battle, "And when?"))
    assert sorted(record.guideline for record in service.judgements()) == [1, 2]


def test_without_a_guideline_a_vote_names_none(arena, service, ada):
    voted(arena, ada)
    assert [record.guideline for record in service.judgements()] == [None]


def test_who_is_paused_begins_no_turn_and_may_vote_on_the_open_one(arena, service, ada):
    battle = voted(arena, ada)
    following = arena.go_on(ada, battle, "And when?")
    service.control.pause(ada, "Please call me.")
    refused = arena.start(ada, QUESTION)
    assert isinstance(refused, NoWork)
    assert "Please call me." in refused.reason
    assert arena.go_on(ada, battle, "And when?") == following  # asked again, it is there
    assert isinstance(arena.go_on(ada, voted(arena, ada, following), "Sure?"), NoWork)
    assert arena.current(ada).number == 2  # the refused start did not close their conversation
    service.control.resume(ada)
    assert isinstance(arena.go_on(ada, following.battle_id, "Sure?"), Round)


def test_votes_count_for_the_quota(arena, service, ada):
    service.control.set_quota(ada, 2)
    voted(arena, ada)
    voted(arena, ada)
    refused = arena.start(ada, QUESTION)
    assert isinstance(refused, NoWork)
    assert (refused.kind, refused.values) == ("quota", {"quota": 2})


def test_others_write_while_a_conversation_is_checked(arena, service, ada):
    """A check tokenises the conversation: as long as that takes, nobody may wait for the store."""

    def check(prompt):
        other = threading.Thread(target=service.sign_in, args=("Bo",), daemon=True)
        other.start()
        other.join(timeout=5)
        assert not other.is_alive()

    following = arena.go_on(ada, voted(arena, ada), "And when?", check=check)
    assert following.prompt[-1]["content"] == "And when?"


def test_the_checked_conversation_is_the_one_that_goes_on(arena, ada):
    """After a tie either response may continue: it is drawn once."""
    checked = []
    for _ in range(8):
        battle = arena.start(ada, QUESTION).battle_id
        arena.said(battle, Said("One.", True), Said("Two.", True))
        arena.vote(ada, battle, "tie")
        following = arena.go_on(ada, battle, "And?", check=checked.append)
        assert following.prompt == checked[-1]
    assert len({prompt[1]["content"] for prompt in checked}) == 2
