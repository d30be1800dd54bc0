"""What must hold in the store after a load: each acknowledged judgement once, no item judged too often, true counts."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

from sqlalchemy import select, text

from benchmarks.annotate.client import Outcome
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer
from plumbline.preferences.validation import digest

CURRENT = "NOT EXISTS (SELECT 1 FROM answers later WHERE later.supersedes_id = a.id)"
OVER = "SELECT count(*) FROM tasks WHERE wanted > 0 AND (judged > wanted OR taken > wanted)"
OVER_ROWS = (
    "SELECT count(*) FROM (SELECT a.task_id FROM answers a JOIN tasks t ON t.id = a.task_id "
    f"WHERE a.kind = 'judgement' AND a.purpose = 'work' AND {CURRENT} GROUP BY a.task_id, t.wanted "
    "HAVING count(*) > t.wanted) s"
)
DRIFT = (
    "SELECT count(*) FROM tasks t LEFT JOIN (SELECT a.task_id, count(*) AS n FROM answers a WHERE a.kind = 'judgement' "
    f"AND a.purpose = 'work' AND {CURRENT} GROUP BY a.task_id) s ON s.task_id = t.id LEFT JOIN (SELECT task_id, "
    "count(*) AS n FROM leases WHERE state = 'open' AND slot GROUP BY task_id) l ON l.task_id = t.id "
    "WHERE t.judged <> coalesce(s.n, 0) OR t.taken <> t.judged + coalesce(l.n, 0)"
)
TALLIES = (
    "SELECT count(*) FROM tallies y WHERE y.judged <> (SELECT count(*) FROM answers a WHERE a.purpose = 'work' "
    f"AND a.project_id = y.project_id AND a.annotator_id = y.annotator_id AND a.kind = 'judgement' AND {CURRENT})"
)


def faults(store: Store, *outcomes: Outcome) -> dict[str, int | str]:
    """What is wrong in the store after these loads, with how often; empty where all is right."""
    with store.read() as connection:
        stored = Counter(connection.execute(select(Answer.answer_id)).scalars())
        acknowledged, sent = (
            {digest(name, key) for outcome in outcomes for key, name in keys(outcome).items()}
            for keys in (attrgetter("acknowledged"), attrgetter("sent"))
        )
        found: dict[str, int | str] = {
            "acknowledged and lost": len(acknowledged - set(stored)),
            "there twice": sum(stored.values()) - len(stored),
            "never sent": len(set(stored) - sent),
        }
        questions = {"items over the overlap": OVER, "items with too many rows": OVER_ROWS}
        questions |= {"items with wrong counts": DRIFT, "annotators with wrong counts": TALLIES}
        for name, question in questions.items():
            found[name] = connection.execute(text(question)).scalar_one()
        if store.is_sqlite and (verdict := connection.execute(text("PRAGMA integrity_check")).scalar_one()) != "ok":
            found["integrity_check"] = verdict
    return {name: value for name, value in found.items() if value}
