"""How fast and how well an annotator works, to be told to them."""

from __future__ import annotations

from statistics import median

from sqlalchemy import select

from plumbline.preferences.records import JUDGEMENT
from plumbline.preferences.tables import Answer, Tally
from plumbline.preferences.turn import Facet, known_annotator

LAST = 20


class Pace(Facet):
    """What annotators of a project are told of their own work."""

    def median_seconds(self, annotator_id: str, last: int = LAST) -> float | None:
        """Median time on task of the annotator's last judgements; None where no time is known.

        Raises:
            StoreError: nobody has this id.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            mine = (Answer.project_id == turn.project_id) & (Answer.annotator_id == annotator.id)
            timed = mine & (Answer.kind == JUDGEMENT) & Answer.seconds.is_not(None)
            query = select(Answer.seconds).where(timed).order_by(Answer.id.desc()).limit(last)
            seconds = [row.seconds for row in turn.connection.execute(query)]
            return median(seconds) if seconds else None

    def check_streak(self, annotator_id: str) -> int:
        """How many checks in a row the annotator got right, up to now.

        Raises:
            StoreError: nobody has this id.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == annotator.id)
            return turn.connection.execute(select(Tally.check_streak).where(mine)).scalar_one_or_none() or 0
