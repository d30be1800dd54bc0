"""Between the arena's page and its rules: reads what the page sent, asks the arena, renders what comes next.

The page never names a model: only its own battles by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from annotate_ui.arena.stage import Stage, shown
from annotate_ui.calls import Message, Nothing
from annotate_ui.messages import ConsentMessage, Identifier, Seconds
from annotate_ui.render import render_consent_dialog, render_part, why_no_work
from plumbline.conversations import Conversation, prompt_key
from plumbline.preferences.arena import MAX_PROMPT, NotAnsweredError, Round, check_prompt
from plumbline.preferences.arena_votes import read_votes, votes_state
from plumbline.preferences.guidelines import Guidelines
from plumbline.preferences.kept import Kept
from plumbline.preferences.leaderboard import leaderboard
from plumbline.preferences.records import NeedsConsent, NeedsQuiz, NoWork
from plumbline.preferences.validation import digest

if TYPE_CHECKING:
    from annotate_ui.arena import ArenaSetup
    from annotate_ui.setup import Setup
    from plumbline.conversations import Message as Turn

Prompt = Annotated[str, StringConstraints(strip_whitespace=False, max_length=4 * MAX_PROMPT)]
Characters = Annotated[int, Field(ge=0, le=1_000_000)]


class StartMessage(Message):
    """A prompt; `drawn` is the key of the held-out prompt that it was, where the annotator did not change it."""

    prompt: Prompt
    drawn: Identifier | None = None


class BattleMessage(Message):
    """Names a battle of the annotator's own."""

    battle: Identifier


class NextMessage(BattleMessage):
    """What the annotator says in the next turn."""

    prompt: Prompt


class VoteMessage(BattleMessage):
    """A vote; `seen` is how many characters of the left and the right text the page had shown."""

    vote: Literal["left", "right", "tie", "both-bad"]
    seconds: Seconds | None = None
    seen: tuple[Characters, Characters] | None = None


class ArenaDesk:
    """The page's side of the arena, one method for each thing that an annotator (or lead) can do."""

    def __init__(self, setup: Setup, given: ArenaSetup) -> None:
        self.setup, self.given, self.arena = setup, given, given.arena
        self.stage = Stage(given.arena, given.speakers, given.at_once)
        self.guidelines = Guidelines(self.arena.store, project=self.arena.project, clock=self.arena.clock)
        self._drawn = {prompt_key(prompt): prompt for prompt in given.arena.rules.prompts}
        self._board = Kept()
        self._erased: datetime | None = None

    def state(self, annotator_id: str, message: Nothing) -> Mapping[str, Any]:
        """The conversation that is open, after a reload; `person` names, in the browser, what this annotator wrote."""
        open_round = self.arena.current(annotator_id)
        about = {"draws": bool(self.arena.rules.prompts), "person": digest(annotator_id, "arena")}
        return {**about, **(self._show(open_round) if open_round else {})}

    def draw(self, annotator_id: str, message: Nothing) -> Mapping[str, Any]:
        """A held-out prompt for the prompt box."""
        prompt = self.arena.draw()
        return {"prompt": prompt[-1]["content"], "drawn": prompt_key(prompt), "before": self._talk(prompt[:-1])}

    def start(self, annotator_id: str, message: StartMessage) -> Mapping[str, Any]:
        """Begin a conversation."""
        prompt: Conversation = [{"role": "user", "content": message.prompt}]
        drawn = self._drawn.get(message.drawn or "")
        if drawn is not None and _lines(drawn[-1]["content"]) == _lines(message.prompt):
            prompt = drawn
        self._check(prompt)
        begun = self.arena.start(annotator_id, prompt)
        if not isinstance(begun, NoWork):
            self.stage.stop_all_of(annotator_id)
        return self._show(begun)

    def consent(self, annotator_id: str, message: ConsentMessage) -> Mapping[str, Any]:
        """Note that the annotator accepts the guideline."""
        self.guidelines.consent(annotator_id, message.version)
        return {}

    def vote(self, annotator_id: str, message: VoteMessage) -> Mapping[str, Any]:
        """Vote; models that still speak are stopped first."""
        vote = partial(
            self.arena.vote, annotator_id, message.battle, message.vote, seconds=message.seconds, seen=message.seen
        )
        try:
            return self._show(vote())
        except NotAnsweredError:  # the battle is theirs, so they may stop it
            self.stage.stop(message.battle)
            return self._show(vote())

    def go_on(self, annotator_id: str, message: NextMessage) -> Mapping[str, Any]:
        """The next turn of a conversation."""
        following = self.arena.go_on(annotator_id, message.battle, message.prompt, check=self.given.speakers.check)
        return self._show(following)

    def end(self, annotator_id: str, message: BattleMessage) -> Mapping[str, Any]:
        """End the conversation and tell who said what."""
        self.stage.stop_all_of(annotator_id)
        turns = self.arena.end(annotator_id, message.battle)
        return {"reveal": render_part("arena_reveal", self.setup, turns=turns) if turns else ""}

    def board(self, annotator_id: str, message: Nothing) -> Mapping[str, Any]:
        """The leaderboard, for leads."""
        return {"html": render_part("arena_board", self.setup, board=self._leaderboard())}

    def _check(self, prompt: Conversation) -> None:
        check_prompt(prompt)
        self.given.speakers.check(prompt)

    def _leaderboard(self) -> dict[str, Any]:
        """Worked out anew when the votes have changed, but not so often that it keeps the machine busy."""
        arena, given = self.arena, self.given

        def work_out() -> dict[str, Any]:
            return leaderboard(
                read_votes(arena.store, arena.project),
                baseline=arena.rules.baseline,
                cap=given.votes_per_person,
                margin=given.margin,
                compared=given.compared,
            )

        state = votes_state(arena.store, arena.project)
        if state.erased != self._erased:  # a name that is erased is not shown a moment longer
            self._board, self._erased = Kept(), state.erased
        board: dict[str, Any] = self._board.get(state, work_out)
        return board

    def _show(self, shown_round: Round | NoWork) -> dict[str, Any]:
        if isinstance(shown_round, NeedsConsent):
            return {"consent": render_consent_dialog(self.setup, shown_round)}
        if isinstance(shown_round, NoWork):
            why = {"error": why_no_work(self.setup.texts, shown_round)}
            return {**why, "quiz": True} if isinstance(shown_round, NeedsQuiz) else why
        sides = None
        if shown_round.left is not None and shown_round.right is not None:
            sides = shown((shown_round.left, shown_round.right))
        return {
            "battle": shown_round.battle_id,
            "number": shown_round.number,
            "turns": self.arena.rules.turns,
            "talk": self._talk(shown_round.prompt),
            "said": sides,
            "vote": shown_round.vote,
            "goes_on": shown_round.goes_on,
        }

    def _talk(self, messages: list[Turn]) -> str:
        return render_part("arena_talk", self.setup, messages=messages) if messages else ""


def _lines(prompt: str) -> list[str]:
    """A prompt as a box of the page gives it back: with line ends of its own."""
    return prompt.strip().splitlines()
