"""Exports: every format's rows, the same bytes for the same judgements, manifests, and what comes back in."""

import csv
import gzip
import hashlib
import io
import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from plumbline.errors import UserError
from plumbline.preferences.exporters import EXPORTERS, ExportOptions, companion_of, export_preferences
from plumbline.preferences.exporters.argilla import in_words, user_id
from plumbline.preferences.exporters.csv import harmless
from plumbline.preferences.exporters.holdings import why_nothing
from plumbline.preferences.exporters.kto import labels_of
from plumbline.preferences.exporters.stream import as_json
from plumbline.preferences.importers import import_preferences
from plumbline.preferences.pairs import EDIT_MARGIN
from plumbline.preferences.records import ALL_BAD, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.selection import in_random_sample, note_active
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.snapshot import read_snapshot, snapshot_rows, write_snapshot
from plumbline.preferences.store import SCHEMA_VERSION, Store
from plumbline.preferences.tables import Guideline
from plumbline.recipe_annotate import RubricAxis
from tests.preferences.conftest import new_task, new_tasks

FORMULA = "=HYPERLINK(1)"


def judge(service, name, ranking_of, **said):
    who = service.sign_in(name).annotator_id
    work = service.lease_next(who)
    ranking = {card.response_id: ranking_of(card) for card in work.cards}
    if said.pop("scores", False):
        said["scores"] = {"helpful": {response: 5 - rank for response, rank in ranking.items()}}
    return service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, **said)


def number_in(card):
    """Response 0 is best, response 1 and 2 are tied, response 3 is worst."""
    return {"0": 1, "1": 2, "2": 2, "3": 3}[card.text[-1]]


@pytest.fixture
def judged(service):
    """One task of four responses, judged with everything that can be said."""
    rules = Rules(rubric=(RubricAxis(name="helpful", question="Is it helpful?"),))
    service = PreferenceService(service.store, project="support", clock=service.clock, rules=rules)
    service.add_tasks([new_task("Which?", 4)])
    judge(
        service,
        "Anna",
        number_in,
        seconds=12.5,
        gaps=(4, 1),
        scores=True,
        reason="the first is right",
        edited="better still",
        flags=(ALL_BAD,),
    )
    return service


def rows_of(service, tmp_path, format, **options):
    suffix = EXPORTERS[format].SUFFIX
    path = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.{suffix}"
    export_preferences(service, path, format=format, options=ExportOptions(**options))
    text = path.read_text(encoding="utf-8")
    if suffix == "json":
        return json.loads(text)
    if suffix == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    return [json.loads(line) for line in text.splitlines()]


def test_pairs_have_margins_from_the_grades_positions_and_a_weight(judged, tmp_path):
    rows = rows_of(judged, tmp_path, "trl")
    pairs = {(row["chosen"][0]["content"][-1], row["rejected"][0]["content"][-1]): row for row in rows}
    assert {names: row["margin"] for names, row in pairs.items()} == {
        ("0", "1"): 4,
        ("0", "2"): 4,
        ("0", "3"): 5,
        ("1", "3"): 1,
        ("2", "3"): 1,
        ("l", "0"): EDIT_MARGIN,  # the improved response, "better still", over the best one
    }
    record = next(judged.judgements())
    texts = {response.response_id: response.text[-1] for response in record.responses}
    shown = [texts[response] for response in record.shown_order]
    assert all(shown[row["chosen_position"]] == chosen for (chosen, _), row in pairs.items() if chosen != "l")
    assert pairs["l", "0"]["chosen_position"] is None
    assert all(shown[row["rejected_position"]] == rejected for (_, rejected), row in pairs.items())
    assert [row["weight"] for row in rows] == [1 / 6] * 6
    assert {(row["annotator"], row["simulated"], row["purpose"], row["task_id"]) for row in rows} == {
        ("Anna", False, "work", record.task_id)
    }
    assert {row["judgement_id"] for row in rows} == {record.judgement_id}


def test_plain_texts_and_prompts_of_several_turns(service, tmp_path):
    prompt = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    service.add_tasks([NewTask(prompt, [NewResponse("a 0", "x"), NewResponse("b 1", "y")], "support")])
    judge(service, "Anna", number_in)
    (row,) = rows_of(service, tmp_path, "dpo")
    assert row["prompt"] == "system: Be kind.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Why?"
    assert (row["chosen"], row["rejected"], row["margin"]) == ("a 0", "b 1", 1.0)


@pytest.mark.parametrize(
    ("ranks", "all_bad", "labels"),
    [
        ((1, 2, 2, 3), False, [True, None, None, False]),
        ((2, 1), False, [False, True]),
        ((1, 1, 2), False, [True, True, False]),
        ((1, 1), False, [None, None]),
        ((1, 2, 3), True, [False, False, False]),
        ((1, 1), True, [False, False]),
    ],
)
def test_which_responses_are_desirable(ranks, all_bad, labels):
    assert labels_of(ranks, all_bad=all_bad) == labels


def test_kto_rows_and_demonstrations(judged, service, tmp_path):
    rows = rows_of(judged, tmp_path, "kto")
    assert [row["label"] for row in rows] == [False] * 4 + [True]  # all were flagged as bad, and one was improved
    assert rows[-1]["completion"] == [{"role": "assistant", "content": "better still"}]
    assert [row["position"] is None for row in rows] == [False] * 4 + [True]
    assert sum(row["weight"] for row in rows) == 1
    (row,) = rows_of(judged, tmp_path, "demonstrations")
    assert row["completion"] == [{"role": "assistant", "content": "better still"}]
    assert row["prompt"] == [{"role": "user", "content": "Which?"}]


def test_cells_that_a_spreadsheet_would_run_are_harmless(service, tmp_path):
    answers = [NewResponse(f"{FORMULA}0", "x"), NewResponse('say "no", 1', "y")]
    service.add_tasks([NewTask([{"role": "user", "content": "@SUM(1)\r\n=2"}], answers, "support")])
    judge(service, "-Anna", number_in)
    (row,) = rows_of(service, tmp_path, "csv")
    assert row["prompt"].startswith("'@SUM(1)")
    assert row["chosen"] == f"'{FORMULA}0"
    assert row["rejected"] == 'say "no", 1'
    assert row["annotator"] == "'-Anna"
    assert row["margin"] == "1.0"


@given(st.text())
def test_no_cell_begins_a_formula(text):
    assert harmless(text)[:1] not in set("=+-@\t\r\n＝＋－＠")
    assert harmless(text).removeprefix("'") == text.removeprefix("'") or harmless(text) == text


def test_exports_name_the_random_sample_where_a_model_chose_what_is_judged(service, tmp_path):
    service.add_tasks(new_tasks(40))
    for _ in range(40):
        judge(service, "Anna", number_in)
    name = "random_sample"
    assert not any(name in row for format in ("rankings", "trl", "kto") for row in rows_of(service, tmp_path, format))
    before = write_snapshot(service, tmp_path / "before").hash
    assert {record.random_sample for record in service.judgements()} == {None}
    with service.turn() as turn:
        note_active(turn)
    assert write_snapshot(service, tmp_path / "after").hash != before
    sampled = {record.task_id: record.random_sample for record in service.judgements()}
    assert sampled == {task: in_random_sample(task) for task in sampled}
    assert 0 < sum(sampled.values()) < 20
    for format in ("rankings", "trl", "dpo", "kto", "csv"):
        rows = rows_of(service, tmp_path, format)
        assert {row["task_id"]: str(row[name]) for row in rows} == {task: str(said) for task, said in sampled.items()}
    assert {row["task_id"]: row[name] for row in snapshot_rows(read_snapshot(tmp_path / "after"))} == sampled


def test_argilla_records_answer_the_questions_of_their_settings(judged, tmp_path):
    judged.set_overlap(2)
    judge(judged, "Ben", number_in)
    (row,) = rows_of(judged, tmp_path, "argilla")
    assert set(row) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
    assert row["fields"]["prompt"] == [{"role": "user", "content": "Which?"}]
    rankings = row["responses"]["ranking-4"]
    assert {one["user_id"] for one in rankings} == {user_id("Anna"), user_id("Ben")}
    names = {option["value"]: row["fields"][option["value"]][-1] for option in rankings[0]["value"]}
    for one in rankings:
        assert one["status"] == "submitted"
        assert {names[item["value"]]: item["rank"] for item in one["value"]} == {"0": 1, "1": 2, "2": 2, "3": 3}
    anna = {name: found[0]["value"] for name, found in row["responses"].items() if len(found) == 1}
    assert (anna["reason"], anna["edited"], anna["flags"], anna["gaps"]) == (
        "the first is right",
        "better still",
        ALL_BAD,
        "4, 1",
    )
    settings = json.loads(companion_of("argilla")[1])
    questions = {question["name"]: question for question in settings["questions"]}
    assert set(row["responses"]) <= set(questions)
    assert set(row["fields"]) <= {field["name"] for field in settings["fields"]}
    assert [option["value"] for option in questions["ranking-4"]["settings"]["options"]] == list(names)
    required = [name for name, question in questions.items() if question["required"]]
    assert required == ["order"]
    assert in_words({"a": 2, "b": 1, "c": 2}) == "b > a = c"


def test_label_studio_tasks_fit_their_configuration(judged, tmp_path):
    (task,) = rows_of(judged, tmp_path, "label_studio")
    config = ET.fromstring(companion_of("label_studio")[1])
    controls = {tag.get("name"): tag for tag in config.iter() if tag.get("toName")}
    values = {tag.get("value").removeprefix("$") for tag in config.iter() if (tag.get("value") or "").startswith("$")}
    assert values <= set(task["data"])
    (annotation,) = task["annotations"]
    results = {result["from_name"]: result for result in annotation["result"]}
    for name, result in results.items():
        assert controls[name].get("toName") == result["to_name"]
        assert controls[name].tag.lower() == result["type"]
    texts = {item["id"]: item["body"][-1] for item in task["data"]["responses"]}
    buckets = {rank: {texts[one] for one in ids} for rank, ids in results["rank"]["value"]["ranker"].items()}
    assert buckets == {"1": {"0"}, "2": {"1", "2"}, "3": {"3"}}
    assert set(buckets) <= {bucket.get("name") for bucket in config.iter("Bucket")}
    assert annotation["lead_time"] == 12.5
    about = json.loads(results["judgement"]["value"]["text"][0])
    assert (about["annotator"], about["gaps"]) == ("Anna", [4, 1])
    assert {texts[one]: score for one, score in about["scores"]["helpful"].items()} == {"0": 4, "1": 3, "2": 3, "3": 2}
    assert results["flags"]["value"]["text"] == [ALL_BAD]


def test_everything_that_was_said_comes_back_in(judged, tmp_path, clock):
    with judged.store.write() as connection:
        guideline = {"project_id": 1, "version": 3, "text": "Be fair.", "created_at": clock()}
        connection.execute(insert(Guideline), guideline)
        connection.exec_driver_sql("UPDATE answers SET guideline_id = 1, purpose = 'adjudication'")
    export_preferences(judged, tmp_path / "all.jsonl", format="rankings")
    store = Store.open(tmp_path / "other.db")
    other = PreferenceService(store, project="support", clock=clock)
    with other.turn() as turn:
        turn.connection.execute(insert(Guideline), {**guideline, "project_id": turn.project_id})
    assert import_preferences(tmp_path / "all.jsonl", other).taken == 1
    (before,), (after,) = list(judged.judgements()), list(other.judgements())
    for name in ("judgement_id", "task_id", "prompt", "ranking", "annotator", "seconds", "shown_order", "scores"):
        assert getattr(before, name) == getattr(after, name)
    for name in ("reason", "edited", "flags", "gaps", "purpose", "judged_at", "guideline", "responses"):
        assert getattr(before, name) == getattr(after, name)
    assert (after.guideline, after.purpose, after.gaps) == (3, "adjudication", (4, 1))
    export_preferences(other, tmp_path / "again.jsonl", format="rankings")
    said = [json.loads((tmp_path / name).read_text()) for name in ("all.jsonl", "again.jsonl")]
    assert said[1] == {**said[0], "origin": "import:rankings"}
    store.close()


@pytest.mark.parametrize("field", ["gaps", "purpose", "guideline"])
def test_what_cannot_be_taken_back_is_set_aside(judged, tmp_path, field):
    (row,) = rows_of(judged, tmp_path, "rankings")
    wrong = {"gaps": [9, 1], "purpose": "fun", "guideline": "new"}[field]
    good = {**row, "judgement_id": "0" * 32}
    (tmp_path / "in.jsonl").write_text(json.dumps({**row, field: wrong}) + "\n" + json.dumps(good) + "\n")
    report = import_preferences(tmp_path / "in.jsonl", PreferenceService(judged.store, project="other"))
    assert (report.taken, report.rejected) == (1, 1)
    assert field in report.rejected_path.read_text()


@pytest.mark.parametrize("format", sorted(set(EXPORTERS) - {"flags"}))
def test_the_same_judgements_give_the_same_bytes(format, judged, tmp_path, clock):
    suffix = EXPORTERS[format].SUFFIX
    first = export_preferences(judged, tmp_path / f"a.{suffix}", format=format)
    clock.advance(minutes=60)
    second = export_preferences(judged, tmp_path / f"b.{suffix}", format=format)
    packed = [export_preferences(judged, tmp_path / f"{n}.{suffix}.gz", format=format, options=None) for n in "cd"]
    assert first.path.read_bytes() == second.path.read_bytes()
    assert packed[0].path.read_bytes() == packed[1].path.read_bytes()
    assert gzip.decompress(packed[0].path.read_bytes()) == first.path.read_bytes()
    assert packed[0].sha256 == hashlib.sha256(packed[0].path.read_bytes()).hexdigest()


def test_a_manifest_says_what_is_in_the_file(judged, tmp_path):
    report = export_preferences(judged, tmp_path / "x.jsonl")
    manifest = json.loads((tmp_path / "x.jsonl.manifest.json").read_text())
    assert manifest["sha256"] == report.sha256 == hashlib.sha256((tmp_path / "x.jsonl").read_bytes()).hexdigest()
    assert (manifest["format"], manifest["rows"], manifest["judgements"], manifest["people"]) == ("trl", 6, 1, 1)
    assert manifest["annotators"] == {"Anna": 1}
    assert manifest["store_version"] == SCHEMA_VERSION
    assert manifest["filters"]["pseudonyms"] is False
    again = export_preferences(judged, tmp_path / "y.json", format="argilla")
    assert [path.name for path in again.files] == ["y.json", "y.json.manifest.json", "y.json.settings.json"]
    assert json.loads((tmp_path / "y.json.manifest.json").read_text())["snapshot"] == manifest["snapshot"]
    with pytest.raises(UserError, match="there already"):
        export_preferences(judged, tmp_path / "x.jsonl")


def test_what_is_left_out(service, tmp_path):
    service.add_tasks(new_tasks(40))
    for _ in range(40):
        judge(service, "Anna", number_in)
    service.set_overlap(2)
    who = service.sign_in("robot", simulated=True).annotator_id
    work = service.lease_next(who)
    ranking = {card.response_id: number_in(card) for card in work.cards}
    service.judge(work.lease_id, who, ranking, idempotency_key="r")
    rows = rows_of(service, tmp_path, "trl")
    splits = {
        name: {row["task_id"] for row in rows if row["split"] == name} for name in ("train", "validation", "test")
    }
    assert len(rows) == 41
    assert all(splits.values())
    assert not splits["train"] & splits["test"]
    assert len(rows_of(service, tmp_path, "trl", simulated=False)) == 40
    only = rows_of(service, tmp_path, "trl", split="test", simulated=False)
    assert {row["task_id"] for row in only} == splits["test"]
    hidden = rows_of(service, tmp_path, "trl", pseudonyms=True)
    names = {row["annotator"] for row in hidden}
    assert len(names) == 2
    assert "Anna" not in names
    assert "robot" in names
    with pytest.raises(UserError, match="these options leave"):
        rows_of(PreferenceService(service.store, project="empty"), tmp_path, "trl", simulated=False)


@pytest.mark.parametrize("format", ["trl", "dpo", "csv", "kto", "demonstrations"])
def test_judgements_of_which_a_format_has_no_row_make_no_file_and_the_lead_reads_why(service, tmp_path, format):
    service.add_tasks(new_tasks(2))
    judge(service, "Ada", lambda card: 1)
    place = tmp_path / f"nothing.{EXPORTERS[format].SUFFIX}"
    with pytest.raises(UserError, match=f"nothing for the format {format}, which takes"):
        export_preferences(service, place, format=format)
    assert list(tmp_path.glob("nothing*")) == []
    assert why_nothing(service, format) is not None
    assert why_nothing(service, "rankings") is None
    judge(service, "Ben", number_in, edited="better")
    assert why_nothing(service, format) is None
    assert export_preferences(service, place, format=format).rows


def test_an_export_of_another_kind_is_refused(judged, tmp_path):
    with pytest.raises(UserError, match=r"name a \.csv"):
        export_preferences(judged, tmp_path / "x.jsonl", format="csv")
    with pytest.raises(UserError, match="one JSON array"):
        export_preferences(judged, tmp_path / "x.jsonl", format="argilla")
    assert list(tmp_path.glob("x*")) == []


def test_values_that_need_care_in_json():
    assert json.loads(as_json({"big": 2**80, "half": "\ud800"})) == {"big": 2**80, "half": "\ud800"}
    assert as_json({"a": "ä"}) == '{"a":"ä"}'.encode()


def test_two_texts_that_differ_in_case_keep_their_places(service, tmp_path):
    service.add_tasks(
        [NewTask([{"role": "user", "content": "q"}], [NewResponse("a0", "x"), NewResponse("A1", "y")], "support")]
    )
    judge(service, "Anna", number_in)
    (row,) = rows_of(service, tmp_path, "trl")
    assert {row["chosen_position"], row["rejected_position"]} == {0, 1}
