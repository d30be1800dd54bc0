"""The bytes of every export format, with every option, of a store in which much is unusual: they stay as they are.

`EXPECTED` was made by the first version that had these formats. A change that is meant to alter a format's bytes alters
it here, and is told of in the changelog.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import insert, select, update

from plumbline.preferences.exporters import EXPORTERS, Export, ExportOptions
from plumbline.preferences.records import ALL_BAD, NewJudgement, NewResponse, NewTask
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Guideline, Task

TASKS = 60
ANNOTATORS = ("Anna", "=Ben", "Zoë, née “Ø”", "robot")
ODD = ("=1+1", 'say "no",\r\nthen', "\u2028 ＝2 \x01\x7f", "😀", "-", "plain", "\t<b>&amp;", "a\\b/c")
FIRST_DAY = datetime(2026, 1, 5, 8, tzinfo=UTC)

EXPECTED = {
    "trl": "5c5415e61d20068bbb2e42a671b4174d",
    "dpo": "93eb86eb7f13f6aaa9c53a41115e0502",
    "kto": "877853a1d692aba5e458d93ac56a8399",
    "csv": "86cac4d2179e33a221f98e44879e3619",
    "demonstrations": "75671e14fa876510c56515b820f2495f",
    "rankings": "79de8e88302cdc9a3e6da14faa2684e5",
    "argilla": "706e73079142ffd083e4951d12885a3b",
    "label_studio": "49f29db67cde449c5d6b38dad5a09d5c",
    "flags": "f5c0af1ff3bb7c0cd519711e48b529fc",
    "trl, halves": "d11c9ba4881985cf0660a377bc0ca0c5",
    "dpo, halves": "98c4fbd8235e9f65dc0eeb2e5289a8a9",
    "kto, halves": "4bdf0283eb60ad337b4632819c378fcf",
    "demonstrations, halves": "0404f750b0f40ed828bb00a65a3b0812",
    "rankings, halves": "e91d6ce73d019734c989142461234db6",
    "argilla, halves": "3ccf748905f01d0ea2b60d3ac6c44261",
    "label_studio, halves": "4ad920c6505ec39e17550f47f7826d66",
    "flags, halves": "715a85a71f0770fd00ea48952a6805d8",
}


def tasks(draw: random.Random) -> Iterator[NewTask]:
    for number in range(TASKS):
        prompt = [{"role": "user", "content": f"{draw.choice(ODD)} {number}"}]
        if number % 4 == 0:
            system = {"role": "system", "content": f"{draw.choice(ODD)} be kind"}
            prompt = [system, *prompt, {"role": "assistant", "content": "well"}, {"role": "user", "content": "why?"}]
        responses = [
            NewResponse(
                f"{draw.choice(ODD)} {index}",
                f"policy-{index}",
                "0" * 8 if draw.random() < 0.3 else None,
                {"temperature": 1e-7, "big": 2**70 if number == 13 else 3} if index == 1 else {},
            )
            for index in range(draw.randint(2, 5))
        ]
        meta = {"ä": [None, 1.5e300, {"deep": "\ud83d" if number == 17 else True}]} if number % 3 == 0 else {}
        yield NewTask(prompt, responses, "support", meta, origin=draw.choice(["sample", "import:x"]))


def said(draw: random.Random, task: NewTask, number: int, name: str) -> NewJudgement:
    size = len(task.responses)
    ranks = tuple(draw.randint(1, 3) for _ in range(size))
    order = draw.sample(range(size), size)
    known = draw.random() < 0.8
    return NewJudgement(
        task,
        ranks,
        name,
        key=f"{number}-{name}",
        simulated=name == "robot",
        annotator_settings={"noise": 0.1} if name == "robot" else {},
        judged_at=FIRST_DAY + timedelta(seconds=number, microseconds=number % 2) if known else None,
        seconds=draw.choice([None, 12.0, 0.1, 3e-7]),
        shown_order=tuple(order) if known else None,
        strength=draw.choice([None, 2.0, 0.5]) if size == 2 else None,
        scores=draw.choice([None, {"helpful": {"ü": 3, "b": 1.0}}, {"z": 2.0**60, "a": 1}]),
        reason=draw.choice([None, "", *ODD[:2]]),
        edited=draw.choice([None, " ", f" {task.responses[0].text} ", "=better"]),
        flags=draw.choice([(), (ALL_BAD,), ("typo", ALL_BAD)]),
        purpose=draw.choice(["work", "work", "adjudication", "arena", "gold"]),
        gaps=tuple(draw.randint(1, 4) for _ in range(len(set(ranks)) - 1)) if draw.random() < 0.4 else (),
        guideline=draw.choice([None, 3]),
    )


@pytest.fixture
def mixed(store: Store) -> PreferenceService:
    """A store with all that judgements can have, made in the same way each time."""
    draw = random.Random(0)
    service = PreferenceService(store, project="support", clock=lambda: FIRST_DAY)
    with service.turn() as turn:
        guideline = {"project_id": turn.project_id, "version": 3, "text": "Be fair.", "created_at": FIRST_DAY}
        turn.connection.execute(insert(Guideline), guideline)
    judgements = [
        said(draw, task, number, name)
        for number, task in enumerate(tasks(draw))
        for name in draw.sample(ANNOTATORS, draw.randint(0, len(ANNOTATORS)))
    ]
    service.take(judgements)
    with service.turn() as turn:
        connection = turn.connection
        for row in connection.execute(select(Annotator.id, Annotator.name)).all():
            known = hashlib.sha256(row.name.encode()).hexdigest()[:32]
            connection.execute(update(Annotator).where(Annotator.id == row.id).values(annotator_id=known))
        answers = connection.execute(select(Answer.__table__).order_by(Answer.answer_id)).all()
        for number, row in enumerate(answers[:40]):
            new = {**row._mapping, "answer_id": f"{number:032}", "supersedes_id": row.id, "reason": "once more"}
            del new["id"]
            connection.execute(insert(Answer), new)
        keys = connection.execute(select(Task.id).order_by(Task.key)).scalars().all()
        people = connection.execute(select(Annotator.id).order_by(Annotator.name)).scalars().all()
        for number, task in enumerate(keys[:9]):
            flag = {"answer_id": f"flag{number:028}", "kind": "flag", "project_id": turn.project_id, "task_id": task}
            about = {"annotator_id": people[number % 4], "judged_at": FIRST_DAY, "flags": ["off-topic"]}
            connection.execute(insert(Answer), {**flag, **about, "reason": draw.choice([None, *ODD[:2]])})
    return service


def plant_halves_of_pairs(service: PreferenceService) -> None:
    """Texts with half of a surrogate pair, which is no UTF-8, as an imported file may have them."""
    with service.turn() as turn:
        keys = turn.connection.execute(select(Task.id).order_by(Task.key)).scalars().all()
        for number, key in enumerate(keys[::3]):
            column, name = (Task.prompt, "content") if number % 2 else (Task.responses, "text")
            stored = turn.connection.execute(select(column).where(Task.id == key)).scalar_one()
            stored[0][name] += " \ud800"
            turn.connection.execute(update(Task).where(Task.id == key).values({column.key: stored}))


def digest_of(service: PreferenceService, format: str) -> str:
    whole = hashlib.sha256()
    for pseudonyms, simulated, split in product((False, True), (False, True), (None, "train", "test")):
        options = ExportOptions(pseudonyms, simulated, split, validation=0.2, test=0.3)
        export = Export(service, EXPORTERS[format], options)
        content = b"".join(export.chunks())
        assert export.sha256 == hashlib.sha256(content).hexdigest()
        assert export.rows or split == "test"
        whole.update(content)
        facts = (export.rows, export.records, export.simulated, sorted(export.annotators.items()), export.snapshot)
        whole.update(repr(facts).encode())
    return whole.hexdigest()[:32]


def test_all_formats_with_all_options_give_the_bytes_that_they_always_gave(mixed):
    found = {format: digest_of(mixed, format) for format in EXPORTERS}
    plant_halves_of_pairs(mixed)
    found |= {f"{format}, halves": digest_of(mixed, format) for format in EXPORTERS if format != "csv"}
    assert found == EXPECTED
