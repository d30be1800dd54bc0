"""Who has passed the quiz on the guideline: answers are graded here, and nobody else learns which ones are right.

People are given no work until they have passed (`missing_quiz`); simulated annotators read nothing and need not. What
they passed last stands in their tally, which is read anyway with every task that is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from plumbline.errors import StoreError
from plumbline.preferences.guidelines import missing_consent
from plumbline.preferences.quiz_file import Question, Quiz
from plumbline.preferences.records import NeedsQuiz, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, QuizResult, RowId, Tally
from plumbline.preferences.turn import NOT_KNOWN, Actor, Facet, Turn, acting, ensure_tally, known_annotator, now_utc


@dataclass(frozen=True)
class WrongAnswer:
    """A question that was not answered rightly: what it was, and the numbers of the options that were chosen."""

    number: int
    question: Question
    chosen: frozenset[int]


@dataclass(frozen=True)
class Graded:
    """What became of a try.

    Attributes:
        right, of: questions answered rightly, of how many.
        needed: how many must be right.
        passed: whether there is work now.
        left: tries that are left.
        wrong: what was wrong.
    """

    right: int
    of: int
    needed: int
    passed: bool
    left: int
    wrong: tuple[WrongAnswer, ...]


@dataclass(frozen=True)
class QuizStanding:
    """How somebody did in the quiz, for their lead.

    Attributes:
        state: `passed`, `let in`, `waits` (all tries are used up), `trying`, `not yet`, or `exempt` (simulated).
        tries: how often they tried the quiz that is asked now; of somebody who passed an earlier one, that one.
        left: tries that are left.
        share: of the questions, right in the last try; None before the first.
        at: when they passed or were let in; None before.
    """

    state: str
    tries: int = 0
    left: int = 0
    share: float | None = None
    at: datetime | None = None


class Quizzes(Facet):
    """The quiz of a project.

    Args:
        rules: the questions are `rules.quiz`.
    """

    def __init__(self, store: Store, *, project: str, rules: Rules, clock: Callable[[], Any] = now_utc) -> None:
        super().__init__(store, project=project, clock=clock)
        self.rules = rules

    def answer(self, annotator_id: str, shown: str, number: int, chosen: Sequence[Sequence[int]]) -> Graded:
        """Grade a try. The same try sent again is not counted again.

        Args:
            shown: names the questions that were answered (`NeedsQuiz.shown`).
            number: which of the annotator's tries it is, from 1.
            chosen: for each question the numbers of the chosen options, from 1.

        Raises:
            StoreError: the quiz has changed meanwhile, an answer is missing or does not fit its question, this is no
                try that they have, or they must accept the guideline first.
        """
        quiz = self._quiz()
        if shown != quiz.shown_content:
            raise StoreError("the quiz has changed since you opened it: load the next task to go on.")
        answers = _checked(quiz, chosen)
        with self.turn() as turn:
            actor = acting(turn, annotator_id)
            refused = missing_consent(turn, actor)
            if refused is not None:
                raise StoreError(refused.reason)
            row = turn.connection.execute(_result(turn.project_id, actor.id, quiz)).one_or_none()
            tries = 0 if row is None else row.tries
            if number == tries and row is not None and row.answers == answers:
                return _graded(quiz, answers, _left(quiz, row))
            if number != tries + 1:
                raise StoreError("this try of the quiz is over: load the next task to go on.")
            if missing_quiz(turn, actor, quiz) is None:
                raise StoreError("you have passed the quiz already: load the next task to go on.")
            if _left(quiz, row) <= 0:
                raise StoreError("you have no more tries at the quiz. Please talk to the lead.")
            graded = _graded(quiz, answers, _left(quiz, row) - 1)
            values = {"tries": number, "answers": answers, "share": graded.right / graded.of, "tried_at": turn.now}
            self._keep(turn, actor.id, row, **values, **({"passed_at": turn.now} if graded.passed else {}))
            turn.record(
                "quiz passed" if graded.passed else "quiz failed",
                annotator_id,
                quiz=quiz.content,
                right=graded.right,
                of=graded.of,
                tries=number,
            )
            return graded

    def let_in(self, annotator_id: str) -> None:
        """Give somebody work who has not passed.

        Raises:
            StoreError: there is no quiz, nobody has this id, or they have passed.
        """
        quiz = self._quiz()
        with self.turn() as turn:
            who, row = self._person(turn, annotator_id, quiz)
            self._keep(turn, who, row, passed_at=turn.now, let_in=True)
            turn.record("quiz let in", annotator_id, quiz=quiz.content)

    def let_try_again(self, annotator_id: str) -> None:
        """Give somebody as many tries as they had at first.

        Raises:
            StoreError: there is no quiz, nobody has this id, they have passed, or have not used up their tries.
        """
        quiz = self._quiz()
        with self.turn() as turn:
            who, row = self._person(turn, annotator_id, quiz)
            if row is None or _left(quiz, row) > 0:
                raise StoreError("they have tries left.")
            self._keep(turn, who, row, granted=row.tries)
            turn.record("quiz tries granted", annotator_id, quiz=quiz.content)

    def standings(self) -> dict[str, QuizStanding]:
        """How everybody in the project did, by annotator id; nothing where there is no quiz."""
        quiz = self.rules.quiz
        if quiz is None:
            return {}
        with self.look() as turn:
            people = (
                select(Annotator.annotator_id, Annotator.id, Annotator.simulated, Tally.quiz)
                .join(Tally, Tally.annotator_id == Annotator.id)
                .where(Tally.project_id == turn.project_id)
            )
            results = select(QuizResult.__table__).where(QuizResult.project_id == turn.project_id)
            found = {(row.annotator_id, row.quiz): row for row in turn.connection.execute(results)}
            return {
                row.annotator_id: _standing(quiz, row, found.get((row.id, quiz.content)), found.get((row.id, row.quiz)))
                for row in turn.connection.execute(people)
            }

    # -- inside --------------------------------------------------------------------------------------------------

    def _quiz(self) -> Quiz:
        if self.rules.quiz is None:
            raise StoreError("this project has no quiz.")
        return self.rules.quiz

    def _person(self, turn: Turn, annotator_id: str, quiz: Quiz) -> tuple[int, Row[Any] | None]:
        """Whom a lead decides about, locked, and their result, where they have not passed."""
        person = known_annotator(turn.connection, annotator_id)
        if person.erased_at is not None or person.simulated:
            raise StoreError(NOT_KNOWN if person.erased_at else "simulated annotators need no quiz.")
        ensure_tally(turn, person.id)
        mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == person.id)
        passed = turn.connection.execute(select(Tally.quiz).where(mine).with_for_update()).scalar_one()
        row = turn.connection.execute(_result(turn.project_id, person.id, quiz)).one_or_none()
        if quiz.admits(passed) or (row is not None and row.passed_at is not None):
            raise StoreError("they have passed the quiz.")
        return person.id, row

    def _keep(self, turn: Turn, who: int, row: Row[Any] | None, **values: Any) -> None:
        """Write the result, and into the tally that they passed, where they did."""
        content = self._quiz().content
        key = {"project_id": turn.project_id, "annotator_id": who, "quiz": content}
        if row is None:
            turn.connection.execute(insert(QuizResult).values(**key, **values))
        else:
            turn.connection.execute(update(QuizResult).filter_by(**key).values(**values))
        if values.get("passed_at"):
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == who)
            turn.connection.execute(update(Tally).where(mine).values(quiz=content))


def needed_first(turn: Turn, actor: Actor, quiz: Quiz | None) -> NoWork | None:
    """What the annotator must do before they get work: accept the guideline, then pass the quiz; None for nothing."""
    return missing_consent(turn, actor) or missing_quiz(turn, actor, quiz)


def missing_quiz(turn: Turn, actor: Actor, quiz: Quiz | None) -> NoWork | None:
    """The quiz, where the annotator must pass it before they get work; why they wait, where they cannot try again."""
    if quiz is None or actor.simulated or quiz.admits(actor.tally.quiz):
        return None
    row = turn.connection.execute(_result(turn.project_id, actor.id, quiz)).one_or_none()
    if row is not None and row.passed_at is not None:  # the recipe went back to a quiz that they had passed
        return None
    left = _left(quiz, row)
    if row is not None and left <= 0:
        right = round(row.share * len(quiz.questions))
        said = f"You have used up your tries at the quiz: {right} of {len(quiz.questions)} answers were right"
        values = {"right": right, "of": len(quiz.questions), "needed": quiz.needed}
        return NoWork(f"{said}, {quiz.needed} are needed. Please talk to the lead.", "quiz-failed", values)
    return NeedsQuiz(
        "Please answer the questions on the guideline first.",
        "quiz",
        {},
        shown=quiz.shown_content,
        questions=tuple(question.shown for question in quiz.questions),
        number=1 if row is None else row.tries + 1,
        left=left,
        needed=quiz.needed,
    )


def _result(project: RowId, annotator: RowId, quiz: Quiz) -> Select[Any]:
    return select(QuizResult.__table__).filter_by(project_id=project, annotator_id=annotator, quiz=quiz.content)


def _left(quiz: Quiz, row: Row[Any] | None) -> int:
    return quiz.attempts if row is None else quiz.attempts + row.granted - row.tries


def _checked(quiz: Quiz, chosen: Sequence[Sequence[int]]) -> list[list[int]]:
    """The answers in one form."""
    if len(chosen) != len(quiz.questions):
        raise StoreError(f"{len(chosen)} answers to {len(quiz.questions)} questions: load the next task to go on.")
    for number, (question, options) in enumerate(zip(quiz.questions, chosen, strict=True), 1):
        if not options:
            raise StoreError(f"question {number} has no answer yet.")
        if not all(1 <= option <= len(question.options) for option in options):
            raise StoreError(f"question {number} has no such option: load the next task to go on.")
        if len(set(options)) > 1 and not question.shown.several:
            raise StoreError(f"question {number} has one right answer: choose one option.")
    return [sorted(set(options)) for options in chosen]


def _graded(quiz: Quiz, answers: Sequence[Sequence[int]], left: int) -> Graded:
    wrong = tuple(
        WrongAnswer(place + 1, quiz.questions[place], frozenset(answers[place])) for place in quiz.wrong(answers)
    )
    right = len(quiz.questions) - len(wrong)
    return Graded(right, len(quiz.questions), quiz.needed, right >= quiz.needed, left, wrong)


def _standing(quiz: Quiz, person: Any, now: Row[Any] | None, passed: Row[Any] | None) -> QuizStanding:
    """Of a person: their result in the quiz that is asked `now`, and in the one that they `passed` last."""
    if person.simulated:
        return QuizStanding("exempt")
    through = passed if quiz.admits(person.quiz) else now if now is not None and now.passed_at is not None else None
    if through is not None:
        state = "let in" if through.let_in else "passed"
        return QuizStanding(state, through.tries, _left(quiz, through), through.share, through.passed_at)
    if now is None:
        return QuizStanding("not yet", left=quiz.attempts)
    left = max(_left(quiz, now), 0)
    return QuizStanding("trying" if left else "waits", now.tries, left, now.share)
