"""The arena: two policies of the run answer the same conversation, and an annotator says blind which answer is better.

A *battle* is one turn of a conversation. Its annotator sees two sides, and no policy's name before the conversation is
over; after that none of its turns takes a vote. A vote is a judgement like all others: a task of origin `arena` that is
handed out to nobody, with an answer of purpose `arena`. Where both texts are the same, or one is empty, there is
nothing to learn from: such a vote counts in the ranking and makes no task.

As with tasks, a turn begins only for those who accepted the guideline in force, are not paused and have not reached
their quota; one that has begun may be voted on.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from plumbline.conversations import Conversation, Message
from plumbline.errors import StoreError
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.battles import conversation, next_turn, open_battles, own_battle, turns_after
from plumbline.preferences.guidelines import accepted_version
from plumbline.preferences.ingest import take_batch
from plumbline.preferences.quiz import needed_first
from plumbline.preferences.records import ALL_BAD, ARENA, NewJudgement, NewResponse, NewTask, NoWork
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer, Battle
from plumbline.preferences.turn import Actor, Facet, Turn, acting, known_annotator, now_utc
from plumbline.preferences.validation import digest, text_fault
from plumbline.preferences.waiting import refusal

LEFT, RIGHT, TIE, BOTH_BAD = "left", "right", "tie", "both-bad"
SIDES = (LEFT, RIGHT)
RANKS = {LEFT: (1, 2), RIGHT: (2, 1), TIE: (1, 1), BOTH_BAD: (1, 1)}
"""What can be voted, and what it says as ranks of the left and the right text."""

SOURCE_NAMED = "source-named"
"""Flag of a vote: a text said which policy wrote it, and was shown so, because the project masks no names."""

MAX_PROMPT = 8000
"""Longest message that an annotator may send, in characters."""

UNDER_WAY = timedelta(minutes=10)
"""For so long a battle without a vote counts as one when the next pair is chosen."""


class NotAnsweredError(StoreError):
    """There is nothing to vote on yet."""


@dataclass(frozen=True)
class Duel:
    """What the server needs to let two policies answer: their names never leave it."""

    prompt: Conversation
    left: Contender
    right: Contender


@dataclass(frozen=True)
class Said:
    """What one side said; `finished` is false for a text that was cut off."""

    text: str
    finished: bool


@dataclass(frozen=True)
class Round:
    """A turn as its annotator sees it: nothing in it names a policy, and names of models are masked.

    Attributes:
        number: of the turn in its conversation, from 1.
        prompt: what both sides answer.
        left, right: what they said; None before they did.
        vote: what was voted, None before.
        goes_on: whether another turn may follow the vote.
    """

    battle_id: str
    number: int
    prompt: Conversation
    left: Said | None
    right: Said | None
    vote: str | None
    goes_on: bool


@dataclass(frozen=True)
class Revealed:
    """A turn of a conversation that is over: who said what."""

    number: int
    left: str
    right: str
    vote: str | None


class Arena(Facet):
    """The arena of one project in a store.

    Args:
        store, project, clock: as of every facet.
        rules: policies, prompts and limits.
        chance: draws pairs, sides and prompts; tests set it.
    """

    def __init__(
        self,
        store: Store,
        *,
        project: str,
        rules: ArenaRules,
        clock: Callable[[], datetime] = now_utc,
        chance: random.Random | None = None,
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        if not rules.pairs or rules.baseline not in {one.name for one in rules.contenders}:
            raise StoreError("the arena needs the baseline and at least one policy to compare it with.")
        self.rules = rules
        self.chance = chance or random.SystemRandom()

    # -- a conversation ------------------------------------------------------------------------------------------

    def draw(self) -> Conversation:
        """A prompt that no stage trained on.

        Raises:
            StoreError: there is none.
        """
        if not self.rules.prompts:
            raise StoreError("this run has no held-out prompts to draw from: type one.")
        return self.chance.choice(self.rules.prompts)

    def start(self, annotator_id: str, prompt: Conversation) -> Round | NoWork:
        """Begin a conversation with the pair that was compared least; one that they had open is over.

        Returns:
            `NoWork`, and nothing is changed, where guideline or quiz come first, they are paused, or did their quota.

        Raises:
            StoreError: the prompt is empty or too long.
        """
        check_prompt(prompt)
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            refused = needed_first(turn, actor, self.rules.quiz) or refusal(actor)
            if refused is not None:
                return refused
            self._close(turn, open_battles(turn, actor.id))
            pair = self._least_compared(turn)
            return self._open(turn, actor, prompt, pair, before=None)

    def go_on(
        self,
        annotator_id: str,
        battle_id: str,
        text: str,
        *,
        check: Callable[[Conversation], None] = lambda prompt: None,
    ) -> Round | NoWork:
        """The next turn: the preferred response (of a tie, either one) and a new message of the annotator.

        The same two policies answer, on sides drawn anew. Asked twice for the same turn, it returns the one that is
        there. `check` may refuse the conversation as it would become.

        Returns:
            As `start`.

        Raises:
            StoreError: the message is empty or too long, there is no vote yet, or the conversation is over.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            battle = own_battle(turn, annotator.id, battle_id, lock=False)
            after = next_turn(turn, battle)
            if after is not None:
                return self._round(turn, after)
            kept = self._kept_response(turn, battle)
        prompt = [*battle.prompt, Message(role="assistant", content=kept), Message(role="user", content=text)]
        check_prompt(prompt)
        check(prompt)  # it takes its time, so others may write meanwhile
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            refused = needed_first(turn, actor, self.rules.quiz) or refusal(actor)
            if refused is not None:
                return refused
            battle = own_battle(turn, actor.id, battle_id)
            after = next_turn(turn, battle)
            if after is not None:
                return self._round(turn, after)
            self._check_open(turn, battle)
            pair = (battle.left["source"], battle.right["source"])
            return self._open(turn, actor, prompt, pair, before=battle.id)

    def current(self, annotator_id: str) -> Round | None:
        """The last turn of the annotator's open conversation, where there is one."""
        with self.turn() as turn:
            battles = open_battles(turn, acting(turn, annotator_id).id)
            return self._round(turn, battles[-1]) if battles else None

    def end(self, annotator_id: str, battle_id: str) -> tuple[Revealed, ...]:
        """End the conversation of this battle and tell the names of all its turns; repeating it tells them again.

        A conversation without any vote is closed and tells no names.
        """
        with self.turn() as turn:
            last = own_battle(turn, acting(turn, annotator_id).id, battle_id)
            battles = [*conversation(turn, last), *turns_after(turn, last)]
            self._close(turn, [battle for battle in battles if battle.revealed_at is None])
            if not any(battle.vote for battle in battles):
                return ()
            return tuple(
                Revealed(number, battle.left["source"], battle.right["source"], battle.vote)
                for number, battle in enumerate(battles, 1)
            )

    # -- the responses -------------------------------------------------------------------------------------------

    def duel(self, annotator_id: str, battle_id: str) -> Duel:
        """Who answers a battle that nobody has answered yet.

        Raises:
            StoreError: it is somebody else's, or was answered already.
        """
        with self.turn() as turn:
            battle = own_battle(turn, acting(turn, annotator_id).id, battle_id)
            if battle.left["text"] is not None or battle.revealed_at is not None:
                raise StoreError("this turn was answered already: vote on it, or start a new conversation.")
            names = (battle.left["source"], battle.right["source"])
            return Duel(battle.prompt, *(self.rules.contender(name) for name in names))

    def said(self, battle_id: str, left: Said, right: Said) -> None:
        """Keep what the two sides said; what was kept first stays."""
        with self.turn() as turn:
            battle = turn.connection.execute(
                select(Battle.__table__).where(Battle.battle_id == battle_id).with_for_update()
            ).one()
            if battle.left["text"] is not None:
                return
            values = {
                side: {
                    **stored,
                    "text": _storable(said.text),
                    "finished": said.finished,
                    "named": not self.rules.mask and self.rules.names.found(said.text, battle.prompt),
                }
                for side, stored, said in ((LEFT, battle.left, left), (RIGHT, battle.right, right))
            }
            turn.connection.execute(update(Battle).where(Battle.id == battle.id).values(**values))

    def as_shown(self, said: Said, prompt: Conversation, *, growing: bool = False) -> Said:
        """What a side said as its annotator sees it; of a text that is `growing`, what can be shown already."""
        if not self.rules.mask:
            return said
        mask = self.rules.names.masked_so_far if growing and not said.finished else self.rules.names.masked
        return replace(said, text=mask(said.text, prompt))

    # -- the vote ------------------------------------------------------------------------------------------------

    def vote(
        self,
        annotator_id: str,
        battle_id: str,
        vote: str,
        *,
        seconds: float | None = None,
        seen: tuple[int, int] | None = None,
    ) -> Round:
        """Vote on a turn, once; the same vote again changes nothing.

        Args:
            vote: `left`, `right`, `tie` or `both-bad`.
            seconds: time on the turn.
            seen: how many characters of the left and the right text the page had shown, masks included; what came
                later is cut off.

        Raises:
            StoreError: it is somebody else's battle, was voted on otherwise, its names were told, or there is nothing
                to compare yet.
        """
        if vote not in RANKS:
            raise StoreError(f"{vote!r} is no vote: it is one of {', '.join(RANKS)}.")
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            battle = own_battle(turn, actor.id, battle_id)
            if battle.vote is not None:
                if vote != battle.left["asked"]:
                    raise StoreError("you have voted on this turn already, and that vote stands.")
                return self._round(turn, battle)
            if battle.revealed_at is not None:
                raise StoreError("this conversation is over, so no vote on it counts: start a new one.")
            sides = self._as_seen(battle, seen)
            identical = sides[0]["text"].strip() == sides[1]["text"].strip()
            counted = TIE if identical and vote != BOTH_BAD else vote
            values = {"vote": counted, "voted_at": turn.now, "left": {**sides[0], "asked": vote}, "right": sides[1]}
            values |= self._judgement(turn, actor, battle, sides, counted, seconds)
            turn.connection.execute(update(Battle).where(Battle.id == battle.id).values(**values))
            return self._round(turn, own_battle(turn, actor.id, battle_id))

    # -- inside --------------------------------------------------------------------------------------------------

    def _open(
        self, turn: Turn, actor: Actor, prompt: Conversation, pair: tuple[str, str], *, before: int | None
    ) -> Round:
        sides = [
            {"source": one.name, "source_hash": one.weights_hash, "text": None, "finished": None, "named": False}
            for one in map(self.rules.contender, self.chance.sample(pair, 2))
        ]
        battle_id = uuid.uuid4().hex
        turn.connection.execute(
            insert(Battle).values(
                battle_id=battle_id,
                project_id=turn.project_id,
                annotator_id=actor.id,
                prompt=prompt,
                left=sides[0],
                right=sides[1],
                before_id=before,
                created_at=turn.now,
            )
        )
        return self._round(turn, own_battle(turn, actor.id, battle_id))

    def _least_compared(self, turn: Turn) -> tuple[str, str]:
        """The pair with the fewest votes and turns under way; of equals any."""
        sources = Battle.left["source"].as_string(), Battle.right["source"].as_string()
        counts = Battle.vote.is_not(None) | (Battle.revealed_at.is_(None) & (Battle.created_at > turn.now - UNDER_WAY))
        of_project = (Battle.project_id == turn.project_id) & counts
        rows = turn.connection.execute(select(*sources, func.count()).where(of_project).group_by(*sources))
        fought: Counter[frozenset[str]] = Counter()
        for left, right, number in rows:
            fought[frozenset((left, right))] += number
        fewest = min(fought[frozenset(pair)] for pair in self.rules.pairs)
        return self.chance.choice([pair for pair in self.rules.pairs if fought[frozenset(pair)] == fewest])

    def _check_open(self, turn: Turn, battle: Row[Any]) -> None:
        """Refuse to go on where there is no vote yet, or no turn may follow."""
        if battle.revealed_at is not None:
            raise StoreError("this conversation is over: start a new one.")
        if battle.vote is None:
            raise StoreError("vote on this turn first: the better response continues the conversation.")
        if len(conversation(turn, battle)) >= self.rules.turns:
            raise StoreError(f"a conversation has at most {self.rules.turns} turns: start a new one.")

    def _kept_response(self, turn: Turn, battle: Row[Any]) -> str:
        """The response with which the conversation goes on; it stays as it is once there is a vote."""
        self._check_open(turn, battle)
        order = [battle.vote] if battle.vote in SIDES else self.chance.sample(SIDES, 2)
        texts = [battle._mapping[side]["text"] for side in (*order, *SIDES)]
        kept = next((str(text) for text in texts if text.strip()), None)
        if kept is None:
            raise StoreError("both responses are empty, so the conversation cannot go on: start a new one.")
        return kept

    def _close(self, turn: Turn, battles: Sequence[Row[Any]]) -> None:
        if battles:
            ids = [battle.id for battle in battles]
            turn.connection.execute(update(Battle).where(Battle.id.in_(ids)).values(revealed_at=turn.now))

    def _as_seen(self, battle: Row[Any], seen: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both sides, their texts cut off where the page had not shown more."""
        sides = []
        for side, length in zip((battle.left, battle.right), seen or (None, None), strict=True):
            if side["text"] is None:
                raise NotAnsweredError("the models have not answered yet: wait for them, then vote.")
            if length is not None and self.rules.mask:
                length = self.rules.names.length_of(side["text"], battle.prompt, length)
            if length is not None and length < len(side["text"]):
                side = {**side, "text": side["text"][:length], "finished": False}
            if not side["text"].strip() and not side["finished"]:
                raise StoreError("one of the models has said nothing yet: wait for it, then vote.")
            sides.append(side)
        return sides[0], sides[1]

    def _judgement(
        self,
        turn: Turn,
        actor: Actor,
        battle: Row[Any],
        sides: tuple[dict[str, Any], dict[str, Any]],
        vote: str,
        seconds: float | None,
    ) -> dict[str, int]:
        """Store the vote as a judgement; returns the ids of its task and answer, nothing where it makes none."""
        texts = [side["text"].strip() for side in sides]
        if not all(texts) or texts[0] == texts[1]:
            return {}
        responses = [
            NewResponse(side["text"], side["source"], side["source_hash"], {"finished": side["finished"]})
            for side in sides
        ]
        named = any(side["named"] for side in sides)
        flags = [flag for flag, stands in ((ALL_BAD, vote == BOTH_BAD), (SOURCE_NAMED, named)) if stands]
        task = NewTask(battle.prompt, responses, self.project, {"battle": battle.battle_id}, ARENA)
        key = f"{ARENA}:{battle.battle_id}"
        judgement = NewJudgement(
            task,
            RANKS[vote],
            actor.name,
            key,
            judged_at=turn.now,
            seconds=seconds,
            shown_order=(0, 1),
            flags=tuple(flags),
            purpose=ARENA,
            guideline=accepted_version(turn, actor),
        )
        take_batch(turn, [judgement])
        named_so = (Answer.project_id == turn.project_id) & (Answer.answer_id == digest(key))
        answer = turn.connection.execute(select(Answer.id, Answer.task_id).where(named_so)).one()
        return {"answer_id": answer.id, "task_id": answer.task_id}

    def _round(self, turn: Turn, battle: Row[Any]) -> Round:
        number = len(conversation(turn, battle))
        left, right = (
            None if side["text"] is None else self.as_shown(Said(side["text"], side["finished"]), battle.prompt)
            for side in (battle.left, battle.right)
        )
        goes_on = number < self.rules.turns and battle.revealed_at is None
        return Round(battle.battle_id, number, self._prompt_as_shown(battle.prompt), left, right, battle.vote, goes_on)

    def _prompt_as_shown(self, prompt: Conversation) -> Conversation:
        """The conversation with names masked in what the models said earlier."""
        return [
            Message(role=one["role"], content=self.as_shown(Said(one["content"], True), prompt).text)
            if one["role"] == "assistant"
            else one
            for one in prompt
        ]


def check_prompt(prompt: Conversation) -> None:
    """Refuse a conversation that cannot be asked.

    Raises:
        StoreError: its last message is empty, too long, or no valid text.
    """
    text = prompt[-1]["content"]
    fault = text_fault(text)
    if fault:
        raise StoreError(f"your message {fault}: change it, then send it again.")
    if len(text) > MAX_PROMPT:
        raise StoreError(f"your message has {len(text)} characters, and {MAX_PROMPT} fit: shorten it.")


def _storable(text: str) -> str:
    """The text without what no database takes."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
