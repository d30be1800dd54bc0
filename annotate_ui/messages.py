"""What the annotators' page may send."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from annotate_ui.calls import Message
from plumbline.preferences.validation import MAX_EDITED

# Control characters are in no id, and PostgreSQL takes no NUL; halves of surrogate pairs are no JSON already.
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\P{Cc}+$")]
Note = Annotated[str, Field(max_length=4000)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]
Rank = Annotated[int, Field(ge=1, le=9)]
Grade = Annotated[int, Field(ge=1, le=4)]
Step = Annotated[str, Field(max_length=2000)]
Scores = dict[Identifier, dict[Identifier, Rank]]
# Space at the ends is part of what people wrote: code begins with it.
LongText = Annotated[str, StringConstraints(strip_whitespace=False, max_length=MAX_EDITED)]


class LeaseMessage(Message):
    """Names the lease that the page shows, where it shows one."""

    lease_id: Identifier | None = None


class AnswerMessage(Message):
    """An answer to the shown task; `key` is made once for each view of a task, so that a retry counts once."""

    lease_id: Identifier
    key: Identifier


class JudgeMessage(AnswerMessage):
    """A ranking: response id to rank, 1 is best, equal ranks are ties.

    `gaps` are grades of preference between neighbouring ranks, the best first; `scores` are axis to response id to
    level; `edited` is the best response as the annotator improved it.
    """

    ranking: dict[Identifier, Rank]
    seconds: Seconds | None = None
    reason: Note = ""
    gaps: list[Grade] = Field(default_factory=list, max_length=8)
    scores: Scores = Field(default_factory=dict)
    all_bad: bool = False
    edited: LongText | None = None


class SkipMessage(AnswerMessage):
    """The annotator leaves this task to others."""

    reason: Annotated[Note, Field(min_length=1)]


class FlagMessage(AnswerMessage):
    """Something is wrong with the task itself."""

    kind: Identifier
    note: Note = ""


class Edit(Message):
    """An improved response, and of which it is one."""

    of: Identifier
    text: LongText


class DraftContent(Message):
    """What is entered and not submitted: as in `JudgeMessage`, but nothing has to be whole.

    `gaps` are by the two groups of responses that they part; `at` is when it was entered, in milliseconds by the
    browser's clock; `revision` names this state of the draft.
    """

    at: Annotated[int, Field(ge=0, le=2**53)]
    revision: Identifier | None = None
    ranks: dict[Identifier, Rank] = Field(default_factory=dict)
    gaps: dict[Step, Grade] = Field(default_factory=dict)
    scores: Scores = Field(default_factory=dict)
    reason: Note = ""
    all_bad: bool = False
    edited: Edit | None = None
    seconds: Seconds = 0


class DraftMessage(Message):
    """A draft of an answer to the shown task; `after` are the revisions from which it may go on."""

    lease_id: Identifier
    after: Annotated[list[Identifier], Field(max_length=50)] | None = None
    content: DraftContent


class HistoryMessage(Message):
    """Asks for own answers; those older than the answer `before`, where it is given."""

    before: Identifier | None = None


class OwnMessage(Message):
    """Names an own answer that is to be read, or corrected."""

    answer_id: Identifier


class ConsentMessage(Message):
    """The annotator has read this version of the guideline.

    `deciding`: the page is that of disputed tasks, asks for one itself, and is handed no other work.
    """

    version: Annotated[int, Field(ge=1)]
    deciding: bool = False


class QuizMessage(Message):
    """A try at the quiz: of each question the numbers of the chosen options, from 1.

    `shown` names the questions that the page showed, `number` says which try it is, so that a retry counts once;
    `deciding` is as in `ConsentMessage`.
    """

    shown: Identifier
    number: Annotated[int, Field(ge=1, le=1_000_000)]
    chosen: Annotated[list[Annotated[list[Rank], Field(max_length=9)]], Field(max_length=50)]
    deciding: bool = False
