"""Personal data at an import: reported, set aside or masked; a second import takes nothing again in either case."""

import json
from collections import Counter
from typing import Any

import pytest

from plumbline.errors import UserError
from plumbline.preferences.exporters import export_preferences
from plumbline.preferences.importers import import_preferences
from plumbline.preferences.screening import Findings, Screen, texts_of
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.preferences.validation import response_key, task_key
from plumbline.recipe_annotate import AnnotateSection
from plumbline.recipe_privacy import PersonalDataSection
from tests.preferences.conftest import new_task


def row(prompt, chosen, rejected):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


ROWS = [
    row("Where is my parcel?", "On its way.", "No idea."),
    row("I am ada@example.org", "Thanks, we write to ada@example.org", "Call (212) 555-1234"),
    row("I am bob@example.org", "Thanks, we write to bob@example.org", "Call (212) 555-9876"),
    row("Whom to write?", "ada@example.org", "bob@example.org"),
]


def screen(action):
    return Screen(PersonalDataSection(action=action))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prefs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def stored(service):
    return {
        (record.prompt[0]["content"], *sorted(response.text for response in record.responses))
        for record in service.judgements()
    }


def test_a_report_counts_and_changes_nothing(file_service, file):
    report = import_preferences(file, file_service)
    assert (report.taken, report.rejected) == (4, 0)
    assert report.personal.told() == ("personal data in 3 of 4 rows: EMAIL 6 (lines 2, 3, 4), PHONE 2 (lines 2, 3)")
    assert len(stored(file_service)) == 4 and any("ada@example.org" in prompt for prompt, *_ in stored(file_service))
    assert import_preferences(file, file_service, screen=screen("off")).personal.rows == 0


def test_rows_are_set_aside_with_line_and_kind(file_service, file):
    report = import_preferences(file, file_service, screen=screen("set_aside"))
    assert (report.taken, report.rejected) == (1, 3)
    aside = [json.loads(line) for line in report.rejected_path.read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in aside] == [
        (2, "personal data: EMAIL, PHONE"),
        (3, "personal data: EMAIL, PHONE"),
        (4, "personal data: EMAIL"),
    ]
    assert aside[0]["row"] == ROWS[1]
    again = import_preferences(file, file_service, screen=screen("set_aside"))
    assert (again.taken, again.present, again.rejected) == (0, 1, 3)


def test_masks_are_stable_and_rows_that_become_the_same_stay_two_judgements(file_service, file):
    report = import_preferences(file, file_service, screen=screen("mask"))
    assert (report.taken, report.rejected) == (3, 1)
    assert stored(file_service) == {
        ("Where is my parcel?", "No idea.", "On its way."),
        ("I am [EMAIL]", "Call [PHONE]", "Thanks, we write to [EMAIL]"),
    }
    assert len(list(file_service.judgements())) == 3
    (aside,) = [json.loads(line) for line in report.rejected_path.read_text().splitlines()]
    assert (aside["line"], aside["reason"]) == (
        4,
        "with personal data masked, two responses are identical, so there is nothing to prefer",
    )
    again = import_preferences(file, file_service, screen=screen("mask"))
    assert (again.taken, again.present) == (0, 3)
    unmasked = import_preferences(file, file_service)
    assert (unmasked.taken, unmasked.present) == (1, 3), "a judgement is known by its row, however it was stored"


def test_a_file_that_is_all_personal_says_so(file_service, file):
    file.write_text("\n".join(json.dumps(row) for row in ROWS[1:]))
    with pytest.raises(UserError, match=r"all set aside in .*, because they hold personal data\.$"):
        import_preferences(file, file_service, screen=screen("set_aside"))


def test_all_that_a_judgement_says_is_masked_and_stays_with_its_response(file_service, tmp_path):
    prompt = [{"role": "user", "content": "Mail ada@example.org?"}]
    texts = ["Yes, ada@example.org", "No"]
    ids = [response_key(task_key(prompt, texts), text) for text in texts]
    judgement = {
        "judgement_id": "0" * 32,
        "prompt": prompt,
        "responses": [{"text": text, "rank": rank} for rank, text in enumerate(texts, 1)],
        "annotator": "Ada",
        "reason": "she is +49 30 1234567",
        "edited": "Yes, bob@example.org",
        "scores": {"helpful": dict(zip(ids, (5, 1), strict=True))},
        "meta": {"customer": {"mail": ["ada@example.org"]}},
    }
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(judgement))
    import_preferences(path, file_service, screen=screen("mask"))
    (record,) = file_service.judgements()
    said = {response.text: record.scores["helpful"][response.response_id] for response in record.responses}
    assert said == {"Yes, [EMAIL]": 5, "No": 1}
    assert (record.reason, record.meta) == ("she is [PHONE]", {"customer": {"mail": ["[EMAIL]"]}})
    assert record.edited is None, "masked, it is the best response itself"
    exported = tmp_path / "again.jsonl"
    export_preferences(file_service, exported, format="rankings")
    other = Store.open(tmp_path / "other.db")
    copy = PreferenceService(other, project="support")
    report = import_preferences(exported, copy, screen=screen("mask"))
    assert (report.taken, report.personal.rows) == (1, 0)
    assert next(iter(copy.judgements())).task_id == record.task_id
    other.close()


def test_many_lines_are_counted():
    found = Findings()
    for line in range(1, 16):
        found.add(line, Counter(EMAIL=1))
    assert found.told() == "personal data in 15 of 15 rows: EMAIL 15 (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more)"


def test_the_recipe_says_it_in_one_word():
    for written, action in (
        ("mask", "mask"),
        (False, "off"),
        ({"action": "set_aside", "regions": ["DE"]}, "set_aside"),
    ):
        assert AnnotateSection(personal_data=written).personal_data.action == action
    assert AnnotateSection().personal_data.action == "report"
    with pytest.raises(ValueError, match="'Germany' is no country in two capital letters"):
        PersonalDataSection(regions=["Germany"])


def test_the_shops_own_addresses_are_nobodys():
    settings = PersonalDataSection(own=["@shop.example", "+1 212 555 1234"])
    said = {"text": "help@Shop.example, +1 (212) 555-1234, ada@example.org"}
    assert Screen(settings).kinds(said) == Counter(EMAIL=1)


def test_what_is_nested_deep_is_masked_too():
    nested: Any = "ada@example.org"
    for _ in range(5000):
        nested = [nested]
    task = new_task("where?", meta={"deep": nested, "kept": [1, None, {"at": ("bo@example.org",)}]})
    masked = screen("mask").masked_task(task)
    assert list(texts_of(masked.meta["deep"])) == ["[EMAIL]"]
    assert masked.meta["kept"] == [1, None, {"at": ["[EMAIL]"]}]
    assert task.meta["kept"] == [1, None, {"at": ("bo@example.org",)}], "the row that was read stays as it was"
