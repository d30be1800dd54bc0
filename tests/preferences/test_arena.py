"""The arena's rules: who fights whom, votes exactly once, names at the end only; on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import replace

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.arena import BOTH_BAD, LEFT, RIGHT, SOURCE_NAMED, TIE, Arena, NotAnsweredError, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.arena_votes import read_votes
from plumbline.preferences.records import ALL_BAD, ARENA
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.source_names import MASK, SourceNames

RULES = ArenaRules(
    (Contender("sft", "hash-s"), Contender("dpo", "hash-d"), Contender("ppo", None)),
    "sft",
    turns=3,
    names=SourceNames(own=("sft", "dpo", "ppo", "Qwen")),
)


def question(text="Where is my parcel?"):
    return [{"role": "user", "content": text}]


def make_arena(store, clock, rules=RULES, seed=1):
    return Arena(store, project="support", rules=rules, clock=clock, chance=random.Random(seed))


@pytest.fixture
def arena(store, clock):
    return make_arena(store, clock)


@pytest.fixture
def file_arena(file_store, clock):
    return make_arena(file_store, clock)


def service_of(arena):
    return PreferenceService(arena.store, project="support", clock=arena.clock)


def person(arena, name="Anna"):
    return service_of(arena).sign_in(name).annotator_id


def judgements(arena):
    return list(service_of(arena).judgements())


def votes(arena):
    return read_votes(arena.store, "support")


def answer(arena, battle, left="I look it up.", right="No idea.", finished=True):
    arena.said(battle.battle_id, Said(left, finished), Said(right, finished))
    return battle.battle_id


def answered(arena, who, *texts, **options):
    """A battle that both sides have answered."""
    return answer(arena, arena.start(who, question()), *texts, **options)


def test_a_vote_is_a_judgement_like_all_others(arena):
    who = person(arena)
    battle = answered(arena, who)
    arena.vote(who, battle, LEFT, seconds=12.5)
    (record,) = judgements(arena)
    texts = {response.response_id: response.text for response in record.responses}
    assert [texts[shown] for shown in record.shown_order] == ["I look it up.", "No idea."]
    assert [record.ranking[shown] for shown in record.shown_order] == [1, 2]
    assert (record.purpose, record.origin, record.seconds, record.annotator) == (ARENA, ARENA, 12.5, "Anna")
    assert {response.source for response in record.responses} in ({"sft", "dpo"}, {"sft", "ppo"})
    progress = service_of(arena).progress()
    assert (progress.tasks, progress.by_annotator) == (0, {"Anna": 1})
    assert service_of(arena).reopen_last(who) is None  # undo is for the queue's answers


@pytest.mark.parametrize(
    ("vote", "ranks", "flags"),
    [(LEFT, [1, 2], ()), (RIGHT, [2, 1], ()), (TIE, [1, 1], ()), (BOTH_BAD, [1, 1], (ALL_BAD,))],
)
def test_what_votes_say_as_ranks(file_arena, vote, ranks, flags):
    who = person(file_arena)
    file_arena.vote(who, answered(file_arena, who), vote)
    (record,) = judgements(file_arena)
    assert [record.ranking[shown] for shown in record.shown_order] == ranks
    assert record.flags == flags
    assert votes(file_arena)[0].score == {LEFT: 1, RIGHT: 0}.get(vote, 0.5)


def test_a_vote_counts_once_and_stands(arena):
    who = person(arena)
    battle = answered(arena, who)
    first = arena.vote(who, battle, LEFT)
    assert arena.vote(who, battle, LEFT) == first
    with pytest.raises(StoreError, match="voted on this turn already"):
        arena.vote(who, battle, RIGHT)
    assert len(judgements(arena)) == len(votes(arena)) == 1


def test_another_vote_is_no_repetition_though_it_counts_as_the_same(arena):
    who = person(arena)
    battle = answered(arena, who, "The same.", "The same.")
    assert arena.vote(who, battle, LEFT).vote == TIE == arena.vote(who, battle, LEFT).vote
    with pytest.raises(StoreError, match="voted on this turn already"):
        arena.vote(who, battle, TIE)


def test_votes_at_the_same_moment_count_once(arena):
    who = person(arena)
    battle = answered(arena, who)
    faults = []

    def vote(choice):
        try:
            arena.vote(who, battle, choice)
        except StoreError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=vote, args=(choice,)) for choice in (LEFT, RIGHT) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(judgements(arena)) == len(votes(arena)) == 1
    assert len(faults) == 3  # those who voted otherwise than the first one


def test_names_are_told_at_the_end_and_no_vote_counts_after_that(arena):
    who = person(arena)
    battle = answered(arena, who)
    voted = arena.vote(who, battle, LEFT)
    second = arena.go_on(who, battle, "And when?")
    assert not {"sft", "dpo", "ppo"} & set(repr((voted, second)).replace("'", " ").split())
    answer(arena, second)
    first, unvoted = arena.end(who, second.battle_id)
    assert {first.left, first.right} == {unvoted.left, unvoted.right}
    assert "sft" in (first.left, first.right)
    assert (first.vote, unvoted.vote) == (LEFT, None)
    with pytest.raises(StoreError, match="is over, so no vote"):
        arena.vote(who, second.battle_id, LEFT)
    with pytest.raises(StoreError, match="is over"):
        arena.go_on(who, second.battle_id, "Once more?")
    assert len(votes(arena)) == 1
    assert arena.end(who, battle) == (first, unvoted)  # asked again, by any of its turns
    assert arena.current(who) is None


def test_a_conversation_without_a_vote_tells_no_names(file_arena):
    who = person(file_arena)
    battle = answered(file_arena, who)
    assert file_arena.end(who, battle) == ()


def test_a_new_conversation_closes_the_open_one(file_arena):
    who = person(file_arena)
    old = answered(file_arena, who)
    new = file_arena.start(who, question("Another one"))
    with pytest.raises(StoreError, match="is over"):
        file_arena.vote(who, old, LEFT)
    assert file_arena.current(who) == new


def test_the_battles_of_others_are_out_of_reach(file_arena):
    who, thief = person(file_arena), person(file_arena, "Mallory")
    battle = answered(file_arena, who)
    for attempt in (
        lambda: file_arena.vote(thief, battle, LEFT),
        lambda: file_arena.go_on(thief, battle, "Hello"),
        lambda: file_arena.duel(thief, battle),
        lambda: file_arena.end(thief, battle),
        lambda: file_arena.vote(who, "0" * 32, LEFT),
    ):
        with pytest.raises(StoreError, match="not yours"):
            attempt()
    assert not votes(file_arena)


def test_the_better_answer_goes_on_for_the_same_two(file_arena):
    who = person(file_arena)
    battle = answered(file_arena, who)
    pair = {one.name for one in pair_of(file_arena, who)}
    with pytest.raises(StoreError, match="vote on this turn first"):
        file_arena.go_on(who, battle, "And when?")
    file_arena.vote(who, battle, RIGHT)
    second = file_arena.go_on(who, battle, "And when?")
    assert [message["content"] for message in second.prompt] == ["Where is my parcel?", "No idea.", "And when?"]
    assert file_arena.go_on(who, battle, "And when?") == second  # asked twice, there is one next turn
    duel = file_arena.duel(who, second.battle_id)
    assert {duel.left.name, duel.right.name} == pair
    file_arena.vote(who, answer(file_arena, second, "Soon.", "", finished=True), RIGHT)
    third = file_arena.go_on(who, second.battle_id, "Sure?")
    assert third.prompt[-2]["content"] == "Soon."  # an empty answer cannot continue anything
    assert not third.goes_on
    file_arena.vote(who, answer(file_arena, third), TIE)
    with pytest.raises(StoreError, match="at most 3 turns"):
        file_arena.go_on(who, third.battle_id, "More")


def pair_of(arena, who):
    """The policies of the annotator's open conversation, seen from inside."""
    with arena.turn() as turn:
        from sqlalchemy import select

        from plumbline.preferences.tables import Battle

        row = turn.connection.execute(select(Battle.left, Battle.right).order_by(Battle.id.desc()).limit(1)).one()
    return [arena.rules.contender(side["source"]) for side in row]


def test_sides_are_drawn_for_every_turn(file_arena):
    who = person(file_arena)
    lefts = Counter()
    for _ in range(40):
        battle = file_arena.start(who, question())
        lefts[file_arena.duel(who, battle.battle_id).left.name == "sft"] += 1
    assert min(lefts.values()) > 10


def test_the_least_compared_pair_is_next(arena):
    pairs = Counter()
    for number in range(12):
        who = person(arena, f"person {number}")
        battle = arena.start(who, question())
        duel = arena.duel(who, battle.battle_id)
        pairs[frozenset((duel.left.name, duel.right.name))] += 1
        if number % 3:  # turns under way count as well
            arena.vote(who, answer(arena, battle), LEFT)
    assert pairs == {frozenset(("sft", "dpo")): 6, frozenset(("sft", "ppo")): 6}


@pytest.mark.parametrize("texts", [("The same.", " The same.\n"), ("", "")])
def test_identical_texts_are_a_tie_and_teach_nothing(file_arena, texts):
    who = person(file_arena)
    battle = answered(file_arena, who, *texts)
    assert file_arena.vote(who, battle, LEFT).vote == TIE
    assert file_arena.vote(who, battle, LEFT).vote == TIE  # repeated
    assert not judgements(file_arena)
    assert votes(file_arena)[0].score == 0.5


def test_an_empty_answer_loses_in_the_ranking_and_teaches_nothing(file_arena):
    who = person(file_arena)
    file_arena.vote(who, answered(file_arena, who, "Something", ""), LEFT)
    assert not judgements(file_arena)
    assert votes(file_arena)[0].score == 1


def test_stopped_texts_are_stored_as_they_were_seen(arena):
    who = person(arena)
    battle = answered(arena, who, "I look it up. 🦆 and more", "No idea at all.")
    voted = arena.vote(who, battle, LEFT, seen=(15, 100))
    assert voted.left == Said("I look it up. 🦆", False)
    assert voted.right == Said("No idea at all.", True)
    (record,) = judgements(arena)
    assert {response.text for response in record.responses} == {"I look it up. 🦆", "No idea at all."}
    assert sorted(response.meta["finished"] for response in record.responses) == [False, True]


def test_nothing_to_compare_is_not_voted_on(file_arena):
    who = person(file_arena)
    battle = file_arena.start(who, question()).battle_id
    with pytest.raises(NotAnsweredError, match="not answered yet"):
        file_arena.vote(who, battle, LEFT)
    file_arena.said(battle, Said("I look", False), Said("", False))
    with pytest.raises(StoreError, match="said nothing yet"):
        file_arena.vote(who, battle, LEFT)
    with pytest.raises(StoreError, match="no vote"):
        file_arena.vote(who, battle, "sft")


def test_what_was_said_first_stays(file_arena):
    who = person(file_arena)
    battle = answered(file_arena, who)
    file_arena.said(battle, Said("Other", True), Said("words", True))
    assert file_arena.current(who).left == Said("I look it up.", True)
    with pytest.raises(StoreError, match="answered already"):
        file_arena.duel(who, battle)


def test_names_of_models_are_masked_and_the_vote_counts(arena):
    who = person(arena)
    battle = answered(arena, who, "I am Qwen, by OpenAI.", "No idea.")
    shown = arena.vote(who, battle, LEFT)
    assert shown.left.text == f"I am {MASK}, by {MASK}."
    (vote,), (record,) = votes(arena), judgements(arena)
    assert (vote.named, record.flags) == (False, ())
    assert "I am Qwen, by OpenAI." in {response.text for response in record.responses}  # stored as it was said
    following = arena.go_on(who, battle, "Are you Qwen?")
    assert [message["content"] for message in following.prompt[1:]] == [f"I am {MASK}, by {MASK}.", "Are you Qwen?"]
    assert arena.duel(who, following.battle_id).prompt[1]["content"] == "I am Qwen, by OpenAI."  # the models read it
    answer(arena, following, "As Qwen, I agree.", "No.")
    assert arena.current(who).left.text == f"As {MASK}, I agree."


@pytest.mark.parametrize(("text", "flagged"), [("I am Qwen, by the way.", True), ("Qwentin is my name.", False)])
def test_without_masks_a_text_that_names_a_model_is_flagged_and_does_not_count(file_store, clock, text, flagged):
    arena = make_arena(file_store, clock, replace(RULES, mask=False))
    who = person(arena)
    battle = answered(arena, who, text, "Fine.")
    assert arena.current(who).left.text == text
    arena.vote(who, battle, LEFT)
    assert (SOURCE_NAMED in judgements(arena)[0].flags) == flagged
    assert votes(arena)[0].named == flagged


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        (len(f"I am {MASK}, and I"), "I am Qwen2.5-0.5B-Instruct, and I"),
        (len(f"I am {MASK}"), "I am Qwen2.5-0.5B-Instruct"),
        (len("I am ") + 1, "I am Qwen2.5-0.5B-Instruct"),  # masks are shown as a whole
        (len("I am"), "I am"),
        (10_000, "I am Qwen2.5-0.5B-Instruct, and I help you."),
    ],
)
def test_what_was_seen_of_a_masked_text_is_what_is_kept_of_it(file_arena, seen, kept):
    who = person(file_arena)
    battle = answered(file_arena, who, "I am Qwen2.5-0.5B-Instruct, and I help you.", "No idea.")
    file_arena.vote(who, battle, LEFT, seen=(seen, 100))
    (record,) = judgements(file_arena)
    assert kept in {response.text for response in record.responses}


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "is empty"), ("  \n", "is empty"), ("a\x00b", "NUL"), ("a\ud800", "surrogate"), ("x" * 8001, "8000 fit")],
)
def test_prompts_that_cannot_be_asked(file_arena, text, fault):
    with pytest.raises(StoreError, match=fault):
        file_arena.start(person(file_arena), question(text))


def test_what_a_model_says_is_made_storable(arena):
    who = person(arena)
    arena.vote(who, answered(arena, who, "a\x00b", "c\ud800"), LEFT)
    assert {response.text for response in judgements(arena)[0].responses} == {"ab", "c?"}


def test_prompts_are_drawn_from_the_given_ones(file_store, clock):
    prompts = (question("one"), question("two"))
    arena = make_arena(file_store, clock, ArenaRules(RULES.contenders, "sft", prompts))
    assert {arena.draw()[-1]["content"] for _ in range(30)} == {"one", "two"}
    with pytest.raises(StoreError, match="no held-out prompts"):
        make_arena(file_store, clock).draw()


def test_an_arena_needs_somebody_to_compare_with(file_store):
    with pytest.raises(StoreError, match="at least one policy"):
        Arena(file_store, project="support", rules=ArenaRules((Contender("sft"),), "sft"))
