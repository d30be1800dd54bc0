"""The votes of the arena, read from the store for the ranking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from plumbline.conversations import question_key
from plumbline.preferences.arena import BOTH_BAD, LEFT, TIE
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Battle
from plumbline.preferences.turn import Facet

SCORES = {LEFT: 1.0, TIE: 0.5, BOTH_BAD: 0.5}
"""What a vote gives to the left policy; the right one gets the rest."""


@dataclass(frozen=True)
class Vote:
    """One vote.

    Attributes:
        annotator: their name.
        prompt: key of the conversation's first question.
        left, right: the policies' names.
        score: of the left one: 1 it was preferred, 0 the other was, 0.5 neither.
        both_bad: neither was good enough.
        left_words, right_words: lengths of the texts that were compared.
        named: a text said which policy wrote it, so the vote was not blind.
        simulated: the annotator is simulated.
    """

    annotator: str
    prompt: str
    left: str
    right: str
    score: float
    both_bad: bool = False
    left_words: int = 0
    right_words: int = 0
    named: bool = False
    simulated: bool = False


def read_votes(store: Store, project: str) -> list[Vote]:
    """All votes of a project's arena, in the order in which they were given."""
    with Facet(store, project=project).look() as turn:
        query = (
            select(Battle.__table__, Annotator.name, Annotator.simulated)
            .join(Annotator, Annotator.id == Battle.annotator_id)
            .where(Battle.project_id == turn.project_id, Battle.vote.is_not(None))
            .order_by(Battle.voted_at, Battle.id)
        )
        return [
            Vote(
                annotator=row.name,
                prompt=question_key(row.prompt),
                left=row.left["source"],
                right=row.right["source"],
                score=SCORES.get(row.vote, 0.0),
                both_bad=row.vote == BOTH_BAD,
                left_words=len(row.left["text"].split()),
                right_words=len(row.right["text"].split()),
                named=row.left["named"] or row.right["named"],
                simulated=row.simulated,
            )
            for row in turn.connection.execute(query)
        ]


class VotesState(NamedTuple):
    """How many votes there are, when the last one was given, and when somebody was erased last."""

    votes: int
    last: datetime | None
    erased: datetime | None


def votes_state(store: Store, project: str) -> VotesState:
    """What changes when there is another vote, or somebody was erased."""
    with Facet(store, project=project).look() as turn:
        voted = (Battle.project_id == turn.project_id) & Battle.vote.is_not(None)
        votes = turn.connection.execute(select(func.count(), func.max(Battle.voted_at)).where(voted)).one()
        erased = turn.connection.execute(select(func.max(Annotator.erased_at))).scalar_one_or_none()
        return VotesState(*votes, erased)


def counted_votes(votes: Iterable[Vote], cap: int) -> list[Vote]:
    """The votes that count: blind ones, and of each person the first `cap`.

    The first ones and not the last, so that nobody moves the ranking by voting more.
    """
    by_person: Counter[str] = Counter()
    counted = []
    for vote in votes:
        if vote.named or by_person[vote.annotator] >= cap:
            continue
        by_person[vote.annotator] += 1
        counted.append(vote)
    return counted
