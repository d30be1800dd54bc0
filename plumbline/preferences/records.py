"""What goes into the preference store and what comes out of it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from plumbline.conversations import Conversation

Ranking = dict[str, int]
"""Response id to rank: 1 is best, equal numbers are ties, every shown response is ranked."""

MIN_RESPONSES, MAX_RESPONSES = 2, 9

MAX_GAP = 4
"""Grades of preference: 1 hardly, 2 slightly, 3 clearly, 4 much better (after Llama 2, arXiv 2307.09288, 3.2.1)."""

JUDGEMENT, SKIP, FLAG = "judgement", "skip", "flag"

DISMISSAL = "dismissal"
"""Kind of an answer that takes a flag back on behalf of the lead."""
"""Kinds of answers."""

WORK, GOLD, ATTENTION, REPEAT = "work", "gold", "attention", "repeat"
ADJUDICATION, ARENA = "adjudication", "arena"

CHECKS = (GOLD, ATTENTION)
"""Purposes of answers that are held against expected ranks."""

LEARNED_FROM = (WORK, ADJUDICATION, ARENA)
"""Purposes of judgements that models learn from; the others measure annotators."""

ALL_BAD = "all-bad"
"""Flag of a judgement: even the best response is not good enough."""


@dataclass(frozen=True)
class NewResponse:
    """A response to be judged. `source` names the policy (or person) that wrote it; annotators never see it."""

    text: str
    source: str
    source_hash: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewTask:
    """A prompt and the 2 to 9 responses to be ranked.

    `origin` is `sample` for responses to be judged here, `import:<format>` for what was judged elsewhere, or `arena`;
    tasks of the last two are not handed out to annotators.
    """

    prompt: Conversation
    responses: list[NewResponse]
    project: str
    meta: dict[str, Any] = field(default_factory=dict)
    origin: str = "sample"


@dataclass(frozen=True)
class NewJudgement:
    """A judgement that was given elsewhere, with its task.

    Attributes:
        ranks: the rank of each of `task.responses`, in their order; 1 is best, equal ranks are ties.
        key: names this judgement for good: the same key is never taken twice.
        key_names: a person's name is in the key, so that the store salts the id that it makes of it.
        judgement_id: keeps the id of a judgement that another store exported.
        strength: how much better the best response is, in the source's own steps (2 responses only).
        scores: what was said of single responses or axes.
        purpose: why it was asked for, see `LEARNED_FROM`.
        gaps: grades of preference between neighbouring ranks, the best first; empty where none were given.
        guideline: version of the guideline that the annotator saw; kept where the project has that version.
    """

    task: NewTask
    ranks: tuple[int, ...]
    annotator: str
    key: str
    key_names: bool = False
    judgement_id: str | None = None
    simulated: bool = False
    annotator_settings: dict[str, Any] = field(default_factory=dict)
    judged_at: datetime | None = None
    seconds: float | None = None
    shown_order: tuple[int, ...] | None = None
    strength: float | None = None
    scores: dict[str, Any] | None = None
    reason: str | None = None
    edited: str | None = None
    flags: tuple[str, ...] = ()
    purpose: str = WORK
    gaps: tuple[int, ...] = ()
    guideline: int | None = None


class Added(NamedTuple):
    """What `add_tasks` did: `new` tasks went in, `present` ones were there already."""

    new: int
    present: int


class Taken(NamedTuple):
    """What `take` did: `taken` judgements went in, `present` ones were there already."""

    taken: int
    present: int


@dataclass(frozen=True)
class Annotator:
    """Somebody who judges: a person, or a simulated annotator."""

    annotator_id: str
    name: str
    simulated: bool


@dataclass(frozen=True)
class Card:
    """A response as an annotator sees it: names of models are masked; `position` counts from 0 in shown order."""

    response_id: str
    position: int
    text: str


@dataclass(frozen=True)
class Assignment:
    """A task handed to one annotator until `expires_at`, its cards in the order in which they are to be shown.

    Checks and repeats look like everything else: nothing here tells them apart.

    Attributes:
        supersedes: the id of the answer that is being corrected, where this is a correction.
        earlier: that answer, for the page to begin with.
        draft: what the annotator entered for this task before and did not send (see `save_draft`); newer than
            `earlier`.
        showing: names what is asked of the annotator: the same until it is answered, however often it is handed out;
            another one when the task comes again, as a repeat, or to be corrected. It tells nothing else.
        masked: a response that is shown holds the mask of a model's name (see `source_names`).
        asks_reason: when this ranking needs a reason (see `Rules.require_reason`).
    """

    lease_id: str
    task_id: str
    prompt: Conversation
    cards: tuple[Card, ...]
    expires_at: datetime
    supersedes: str | None = None
    earlier: GivenAnswer | None = None
    draft: dict[str, Any] | None = None
    showing: str = ""
    masked: bool = False
    asks_reason: tuple[str, ...] = ()


@dataclass(frozen=True)
class GivenAnswer:
    """An own answer as its annotator sees it again; it does not say why it was asked for.

    Attributes:
        kind: `judgement`, `skip` or `flag`.
        ranking: response id to rank; empty but for judgements.
        gaps: grades of preference between neighbouring ranks, the best first.
        scores: axis to response id to level.
        reason: of a judgement or a skip; of a flag, the note.
        flags: of a flag, its kind; of a judgement, perhaps `ALL_BAD`.
        guideline: version of the guideline that the annotator had accepted.
    """

    answer_id: str
    kind: str
    ranking: Ranking
    gaps: tuple[int, ...]
    scores: dict[str, dict[str, int]]
    reason: str | None
    edited: str | None
    flags: tuple[str, ...]
    seconds: float | None
    judged_at: datetime
    guideline: int | None


@dataclass(frozen=True)
class OwnWork:
    """A current answer of an annotator with what it is about, cards in the order in which they were shown."""

    task_id: str
    prompt: Conversation
    cards: tuple[Card, ...]
    answer: GivenAnswer


@dataclass(frozen=True)
class NoWork:
    """There is nothing to hand out just now.

    Attributes:
        reason: a sentence for the annotator.
        kind: the case, for pages in other languages: `paused`, `quota`, `guideline`, `empty`, `finished`, `yours-done`,
            `reserved`, `held`, `adjudicated`, `quiz`, `quiz-failed`.
        values: what the sentence states: `left`, `flagged`, `quota`, `until` (a moment), `why`, `right`, `of`,
            `needed`.
    """

    reason: str
    kind: str = field(default="", compare=False)
    values: dict[str, Any] = field(default_factory=dict, compare=False)


class AcceptedGuideline(NamedTuple):
    """The newest version of the guideline that somebody has accepted."""

    version: int
    text: str


@dataclass(frozen=True)
class NeedsConsent(NoWork):
    """There may be work, but the annotator must accept the guideline in force first.

    Attributes:
        version: to be given back with the consent.
        text: the guideline, Markdown.
        accepted: the version that they accepted last; None where they have accepted none.
    """

    version: int = 0
    text: str = ""
    accepted: AcceptedGuideline | None = None


class ShownQuestion(NamedTuple):
    """A question of the quiz without what is right; `several` says that more than one option is."""

    text: str
    options: tuple[str, ...]
    several: bool


@dataclass(frozen=True)
class NeedsQuiz(NoWork):
    """There may be work, but the annotator must answer the quiz on the guideline first.

    Attributes:
        shown: names these questions; to be given back with the answers.
        questions: what is asked.
        number: which try it is, from 1; to be given back too.
        left: tries that are left, this one among them.
        needed: how many questions must be right.
    """

    shown: str = ""
    questions: tuple[ShownQuestion, ...] = ()
    number: int = 1
    left: int = 0
    needed: int = 0


class ResponseRecord(NamedTuple):
    """A stored response, with what wrote it."""

    response_id: str
    text: str
    source: str
    source_hash: str | None
    meta: dict[str, Any]


class JudgementRecord(NamedTuple):
    """A stored judgement with everything that it is about.

    Attributes:
        ranking: response id to rank; ranks are dense (1, 1, 2 and never 1, 1, 3).
        annotator: the annotator's name.
        annotator_settings: how a simulated annotator was set; empty for people.
        judged_at: when, in UTC; None where an imported file does not say.
        seconds: time on task, where known.
        shown_order: response ids in the order in which they were shown; empty where not known.
        supersedes: id of the answer that this one corrected.
        origin: `sample`, `import:<format>` or `arena`.
        purpose: why it was asked for, see `LEARNED_FROM`.
        gaps: grades of preference between neighbouring ranks, the best first; empty where none were given.
        guideline: version of the guideline that the annotator saw.
        random_sample: whether the task is one of those that active selection hands out by chance; None in a project
            without it.
    """

    judgement_id: str
    task_id: str
    project: str
    prompt: Conversation
    responses: tuple[ResponseRecord, ...]
    ranking: Ranking
    annotator: str
    simulated: bool
    annotator_settings: dict[str, Any]
    judged_at: datetime | None
    seconds: float | None
    shown_order: tuple[str, ...]
    strength: float | None
    scores: dict[str, Any] | None
    reason: str | None
    edited: str | None
    flags: tuple[str, ...]
    supersedes: str | None
    origin: str
    meta: dict[str, Any]
    purpose: str = WORK
    gaps: tuple[int, ...] = ()
    guideline: int | None = None
    random_sample: bool | None = None


@dataclass(frozen=True)
class FlagRecord:
    """A flag that stands: what an annotator says is wrong with a task.

    Attributes:
        kind: what is wrong, in one word, such as `personal-data`.
        note: in the annotator's own words; may be empty.
        flagged_at: in UTC.
    """

    task_id: str
    prompt: Conversation
    responses: tuple[ResponseRecord, ...]
    kind: str
    note: str
    annotator: str
    simulated: bool
    flagged_at: datetime


@dataclass(frozen=True)
class Progress:
    """How far a project is.

    Attributes:
        tasks: tasks to be judged here; imported ones, and those that were closed without a judgement, are not among
            them.
        required: judgements wanted in all; of closed tasks (flagged, or retired) those that were given.
        done: judgements given, counted at most as often as wanted for each task.
        missing: `required - done`.
        skipped: current skips.
        flagged: current flags, to be looked at by the lead.
        simulated: current judgements by simulated annotators.
        by_annotator: current judgements by annotator's name, imported ones included.
    """

    tasks: int
    required: int
    done: int
    missing: int
    skipped: int
    flagged: int
    simulated: int
    by_annotator: dict[str, int]
