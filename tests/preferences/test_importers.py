"""Importers: real files where they are at hand, small ones by hand, and texts that hypothesis makes up."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from plumbline.errors import UserError
from plumbline.preferences.exporters import EXPORTERS, export_preferences
from plumbline.preferences.importers import IMPORTERS, import_preferences
from plumbline.preferences.importers.base import RowFault, as_new_judgement
from plumbline.preferences.importers.hh import parse_dialogue
from plumbline.preferences.importers.tulu_human_eval import serial_date
from plumbline.preferences.screening import Screen
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.snapshot import write_snapshot
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Answer, Task
from plumbline.preferences.validation import digest
from plumbline.recipe_privacy import PersonalDataSection
from tests.preferences.conftest import rows_of

USER = {"role": "user", "content": "Where is my parcel?"}
GOOD, BAD = {"role": "assistant", "content": "On its way."}, {"role": "assistant", "content": "No idea."}
HH = {"chosen": "\n\nHuman: Where?\n\nAssistant: Here.", "rejected": "\n\nHuman: Where?\n\nAssistant: There."}
TULU = {
    "id": "7.0",
    "prompt": "Rewrite this.",
    "model_a": "m1",
    "model_b": "m2",
    "completion_a": "first",
    "completion_b": "second",
    "completion_a_is_acceptable": "yes",
    "completion_b_is_acceptable": "no",
    "preference": "b-is-slightly-better",
    "evaluator": "yo",
    "timestamp": "45065.5",
}
PANDALM = {
    "idx": 1,
    "cmp_key": "bloom-7b_llama-7b",
    "instruction": "Add.",
    "input": "1 and 2",
    "response1": "3",
    "response2": "4",
    "annotator1": 1,
    "annotator2": 0,
    "annotator3": 2,
}
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "role": "prompter",
        "text": "Why?",
        "replies": [
            {"role": "assistant", "text": "worst", "rank": 2, "replies": []},
            {
                "role": "assistant",
                "text": "best",
                "rank": 0,
                "synthetic": True,
                "model_name": "chip",
                "replies": [
                    {
                        "role": "prompter",
                        "text": "And then?",
                        "replies": [
                            {"role": "assistant", "text": "x", "rank": 1, "replies": []},
                            {"role": "assistant", "text": "y", "rank": 0, "replies": []},
                        ],
                    }
                ],
            },
            {"role": "assistant", "text": "middle", "rank": 1, "replies": []},
            {"role": "assistant", "text": "gone", "rank": 3, "deleted": True, "replies": []},
            {"role": "assistant", "text": "nobody ranked this", "replies": []},
        ],
    },
}
LLAMA = {
    "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": USER["content"]}],
    "chosen": {"from": "gpt", "value": GOOD["content"]},
    "rejected": {"from": "gpt", "value": BAD["content"]},
}
LLAMA_V1 = {
    f"{side}_messages": [
        {"role": message["role"], "content": [{"type": "text", "value": message["content"]}], "loss_weight": 1.0}
        for message in (USER, answer)
    ]
    for side, answer in (("chosen", GOOD), ("rejected", BAD))
}
LLAMA_ALPACA = {"instruction": USER["content"], "input": "", "chosen": GOOD["content"], "rejected": BAD["content"]}
OPENAI = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
TRL = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
TRL_IMPLICIT = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
TRL_PLAIN = {"prompt": USER["content"], "chosen": GOOD["content"], "rejected": BAD["content"]}
TRL_PLAIN_IMPLICIT = {"chosen": "The sky is blue.", "rejected": "The sky is green."}


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ranked(record):
    return {response.text: record.ranking[response.response_id] for response in record.responses}


@pytest.mark.parametrize(
    ("row", "format", "prompt", "ranks"),
    [
        (HH, "hh", ["Where?"], {"Here.": 1, "There.": 2}),
        (LLAMA, "llamafactory", ["Be kind.", USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (LLAMA_V1, "llamafactory", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (LLAMA_ALPACA, "llamafactory", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (OPENAI, "openai", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (TRL, "trl", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (TRL_IMPLICIT, "trl", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (TRL_PLAIN, "trl", [USER["content"]], {"On its way.": 1, "No idea.": 2}),
        (TRL_PLAIN_IMPLICIT, "trl", ["The sky is"], {"blue.": 1, "green.": 2}),
    ],
)
def test_pairs_of_every_form(file_service, tmp_path, row, format, prompt, ranks):
    report = import_preferences(write_lines(tmp_path / "x.jsonl", row), file_service)
    assert (report.format, report.read, report.taken, report.rejected) == (format, 1, 1, 0)
    (record,) = file_service.judgements()
    assert [message["content"] for message in record.prompt] == prompt
    assert ranked(record) == ranks
    assert (record.annotator, record.simulated, record.origin) == (f"import:{format}", False, f"import:{format}")


def test_named_evaluators_with_strength_acceptability_and_time(file_service, tmp_path):
    import_preferences(write_lines(tmp_path / "x.jsonl", TULU), file_service)
    (record,) = file_service.judgements()
    assert ranked(record) == {"first": 2, "second": 1}
    assert (record.annotator, record.strength) == ("tulu_human_eval:yo", 1.0)
    assert record.judged_at == datetime(2023, 5, 19, 12, tzinfo=UTC)  # 227 days before day 45292, which is 2024-01-01
    by_text = {response.text: response for response in record.responses}
    assert record.scores == {
        by_text["first"].response_id: {"acceptable": True},
        by_text["second"].response_id: {"acceptable": False},
    }
    assert (by_text["first"].source, by_text["second"].source) == ("m1", "m2")
    assert [by_text[text].response_id for text in ("first", "second")] == list(record.shown_order)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", datetime(1899, 12, 31, tzinfo=UTC)),
        (45292.25, datetime(2024, 1, 1, 6, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
def test_serial_dates(value, expected):
    assert serial_date(value) == expected


def test_three_annotators_of_one_item(file_service, tmp_path):
    import_preferences(write_lines(tmp_path / "x.jsonl", PANDALM), file_service)
    found = {record.annotator: ranked(record) for record in file_service.judgements()}
    assert found == {
        "pandalm:annotator1": {"3": 1, "4": 2},
        "pandalm:annotator2": {"3": 1, "4": 1},
        "pandalm:annotator3": {"3": 2, "4": 1},
    }
    (prompt,) = next(file_service.judgements()).prompt
    assert prompt["content"] == "Add.\n\n1 and 2"


def test_rankings_at_every_prompt_of_a_tree(file_service, tmp_path):
    report = import_preferences(write_lines(tmp_path / "x.jsonl", TREE), file_service)
    assert report.taken == 2
    by_length = sorted(file_service.judgements(), key=lambda record: len(record.prompt))
    assert ranked(by_length[0]) == {"best": 1, "middle": 2, "worst": 3}
    assert [message["content"] for message in by_length[1].prompt] == ["Why?", "best", "And then?"]
    assert ranked(by_length[1]) == {"y": 1, "x": 2}
    sources = {response.text: response.source for response in by_length[0].responses}
    assert sources == {"best": "chip", "middle": "person", "worst": "person"}


BROKEN = [
    ("not json", "not valid JSON"),
    ('{"chosen": NaN}', "NaN is no number"),
    ("[1]", "expected an object"),
    (json.dumps(HH | {"chosen": "no marks"}), "does not begin with"),
    (json.dumps(HH | {"rejected": HH["chosen"]}), "identical"),
    (json.dumps(HH | {"rejected": "\n\nHuman: Else?\n\nAssistant: There."}), "different prompts"),
    (json.dumps(HH | {"rejected": "\n\nHuman: Where?\n\nAssistant: "}), "content is empty"),
    (json.dumps(HH | {"rejected": "\n\nHuman: Where?"}), "last message is from 'user'"),
    (json.dumps(HH | {"rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c"}), "roles out of order"),
    (json.dumps(HH | {"rejected": 3}), "`rejected` is 3, expected text"),
    (json.dumps(HH | {"rejected": "\n\nHuman: Where?\n\nAssistant: \ud800"}), "surrogate"),
]


def test_faulty_rows_are_set_aside_with_line_and_reason(file_service, tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [json.dumps(HH), *(line for line, _ in BROKEN), json.dumps(HH | {"rejected": HH["rejected"] + "!"})]
    path.write_bytes("\n".join(lines).encode() + b'\n\n{"chosen": "\xff"}\n')
    report = import_preferences(path, file_service)
    assert (report.read, report.taken, report.rejected) == (14, 2, 12)
    assert report.rejected_path == tmp_path / "x.jsonl.rejected.jsonl"
    rows = [json.loads(line) for line in report.rejected_path.read_text().splitlines()]
    assert [row["line"] for row in rows] == [*range(2, 13), 15]
    for row, (_, reason) in zip(rows, [*BROKEN, ("", "not UTF-8")], strict=True):
        assert reason in row["reason"]
    assert sorted(entry.name for entry in tmp_path.glob("*rejected*")) == ["x.jsonl.rejected.jsonl"]


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("pandalm", PANDALM | {"response2": True}, "`response2` is true, expected text"),
        ("pandalm", PANDALM | {"annotator2": 3}, "expected 0"),
        ("pandalm", PANDALM | {"annotator2": True}, "expected 0"),
        ("tulu_human_eval", TULU | {"preference": "both"}, "unknown preference"),
        ("tulu_human_eval", TULU | {"timestamp": "noon"}, "serial date"),
        ("tulu_human_eval", TULU | {"evaluator": " "}, "annotator's name"),
        ("oasst", {"message_tree_id": "x", "prompt": {"role": "robot", "text": "a"}}, "unknown role"),
        ("llamafactory", LLAMA | {"conversations": [{"from": "function_call", "value": "x"}]}, "tools"),
        ("llamafactory", LLAMA | {"chosen": {"from": "human", "value": "x"}}, "assistant's turns"),
        ("openai", OPENAI | {"preferred_output": [GOOD, GOOD]}, "list of one message"),
        ("openai", OPENAI | {"input": {"messages": [GOOD]}}, "roles out of order"),
        ("trl", {"chosen": "abc", "rejected": "xyz"}, "no common beginning"),
        ("trl", TRL | {"margin": "big"}, "expected a number"),
        ("trl", TRL | {"rejected": "text"}, "expected messages"),
        ("rankings", {"judgement_id": "1", "prompt": [USER], "responses": [], "annotator": "A"}, "32 hexadecimal"),
    ],
)
def test_why_a_row_is_refused(format, row, reason):
    with pytest.raises(RowFault, match=reason):
        for judged in IMPORTERS[format].judgements(row):
            as_new_judgement(judged, format, "support")


def test_files_that_cannot_be_imported_at_all(file_service, tmp_path):
    for name, content, reason in (
        ("empty.jsonl", b"", "no rows"),
        ("blank.json", b" \n", "no rows"),
        ("list.json", b"3", "expected a list"),
        ("half.json", b'[{"a": 1}', "not valid JSON"),
        ("latin.json", b'["\xe9"]', "not UTF-8"),
        ("strange.jsonl", b'{"a": 1}\n', "none of its first rows has a known form"),
        ("x.csv", b"a,b\n", "unknown kind of file"),
        ("x.parquet", b"nonsense", "cannot be read as Parquet"),
        ("x.jsonl.gz", b"nonsense", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=reason):
            import_preferences(tmp_path / name, file_service)
    with pytest.raises(UserError, match="no such file"):
        import_preferences(tmp_path / "missing.jsonl", file_service)
    with pytest.raises(UserError, match="there is no format 'x'; known are hh, "):
        import_preferences(tmp_path / "empty.jsonl", file_service, format="x")
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        import_preferences(tmp_path, file_service)
    assert list(file_service.judgements()) == []


def test_a_file_of_which_no_row_can_be_used_is_refused(file_service, tmp_path):
    row = {"prompt": "Why?", "completion": "Because.", "label": True}
    path = write_lines(tmp_path / "kto.jsonl", row, row)
    with pytest.raises(UserError, match=r"nothing was taken; 2 rows read as trl, all set aside in .*kto\.jsonl"):
        import_preferences(path, file_service, format="trl")
    assert len((tmp_path / "kto.jsonl.rejected.jsonl").read_text().splitlines()) == 2


def test_the_report_tells_rows_from_judgements_and_repeats_from_what_was_there(file_service, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", PANDALM, PANDALM, PANDALM | {"response1": True})
    assert import_preferences(path, file_service).summary == (
        "3 rows read as pandalm, 1 set aside: 3 judgements taken, 3 left out that the file holds twice"
    )
    write_lines(path, PANDALM, PANDALM | {"idx": 2})
    assert import_preferences(path, file_service).summary == (
        "2 rows read as pandalm: 3 judgements taken, 3 there already"
    )


def test_the_same_rows_in_every_kind_of_file(file_service, tmp_path):
    rows = [TRL, TRL | {"chosen": [BAD], "rejected": [GOOD]}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text("\ufeff" + text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "d.json").write_text(text)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "e.parquet")
    reports = [
        import_preferences(path, file_service)
        for path in sorted(tmp_path.iterdir())
        if path.stem[0] in "abcde" and path.suffix != ".db"
    ]
    assert [(report.taken, report.present) for report in reports] == [(2, 0)] + [(0, 2)] * 4


def test_rejected_rows_go_to_the_working_directory_where_the_folder_is_read_only(file_service, tmp_path, monkeypatch):
    path = write_lines(tmp_path / "x.jsonl", HH, {"chosen": 1})
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("os.access", lambda folder, mode: folder != tmp_path)
    report = import_preferences(path, file_service)
    assert report.rejected_path == here / "x.jsonl.rejected.jsonl" and report.rejected_path.exists()


def test_our_own_rankings_come_back_as_they_were(file_service, tmp_path):
    import_preferences(write_lines(tmp_path / "a.jsonl", TULU), file_service)
    import_preferences(write_lines(tmp_path / "b.jsonl", TREE), file_service)
    first = tmp_path / "first.jsonl.gz"
    assert export_preferences(file_service, first, format="rankings").rows == 3
    assert import_preferences(first, file_service).present == 3
    other = Store.open(tmp_path / "other.db")
    again = PreferenceService(other, project="elsewhere")
    assert import_preferences(first, again).taken == 3
    second = tmp_path / "second.jsonl.gz"
    export_preferences(again, second, format="rankings")
    rows = [[json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] for path in (first, second)]
    for row in rows[0]:
        row["origin"] = "import:rankings"
    assert rows[0] == rows[1]
    other.close()


def test_no_list_of_names_tells_who_an_exported_id_is_of(file_service, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", TRL | {"annotator": "Ada Example"}, TRL)
    import_preferences(path, file_service)
    guesses = [next(iter(IMPORTERS["trl"].judgements(TRL | {"annotator": name}))) for name in ("Ada Example", None)]
    guessed, unnamed = (digest(as_new_judgement(guess, "trl", "support").key) for guess in guesses)
    exported = {record.judgement_id for record in file_service.judgements(pseudonyms=True)}
    assert unnamed in exported and guessed not in exported  # a row that names nobody is named by its contents
    assert import_preferences(path, file_service).present == 2
    with file_service.store.write() as connection:  # as older versions did
        connection.execute(update(Answer).where(Answer.answer_id != unnamed).values(answer_id=guessed))
    assert (import_preferences(path, file_service).present, rows_of(file_service.store, Answer)) == (2, 2)


def test_what_was_masked_is_not_taken_again_when_the_setting_changes(file_service, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", TRL | {"prompt": [{"role": "user", "content": "I am ada@example.org"}]})
    for action, taken in (("mask", 1), ("report", 0)):
        screen = Screen(PersonalDataSection(action=action))
        assert import_preferences(path, file_service, screen=screen).taken == taken
        assert rows_of(file_service.store, Task) == 1


def test_trl_export_comes_back_with_margin_annotator_and_mark(file_service, tmp_path):
    import_preferences(write_lines(tmp_path / "a.jsonl", TULU | {"preference": "a-is-better"}), file_service)
    export_preferences(file_service, tmp_path / "out.jsonl")
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (row["margin"], row["annotator"], row["simulated"]) == (2.0, "tulu_human_eval:yo", False)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("first", "second")
    marked = write_lines(tmp_path / "marked.jsonl", row | {"simulated": True, "annotator": "bot"})
    assert import_preferences(marked, file_service).format == "trl"
    found = {record.annotator: (record.simulated, record.strength) for record in file_service.judgements()}
    assert found == {"tulu_human_eval:yo": (False, 2.0), "trl:bot": (True, 2.0)}


def test_an_import_that_was_cut_short_is_completed_by_the_next(file_service, tmp_path, monkeypatch):
    answer = "\n\nHuman: {}?\n\nAssistant: {}"
    rows = [{"chosen": answer.format(n, "yes"), "rejected": answer.format(n, "no")} for n in range(1200)]
    path = write_lines(tmp_path / "x.jsonl", *rows, {"chosen": 1, "rejected": 2})

    def judgements(row, of=IMPORTERS["hh"].judgements):
        if "1100?" in row["chosen"]:
            raise KeyboardInterrupt
        return of(row)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(IMPORTERS["hh"], "judgements", judgements)
        import_preferences(path, file_service)
    stored = len(list(file_service.judgements()))
    assert 0 < stored < 1200 and not list(tmp_path.glob(".*partial"))
    report = import_preferences(path, file_service)
    assert (report.present, report.taken, report.rejected) == (stored, 1200 - stored, 1)


def test_exports_that_cannot_be_written(file_service, tmp_path):
    with pytest.raises(UserError, match="no judgements yet"):
        export_preferences(file_service, tmp_path / "x.jsonl")
    import_preferences(write_lines(tmp_path / "a.jsonl", TULU), file_service)
    with pytest.raises(UserError, match=r"no format .x.; known are argilla, csv, .*, rankings, trl"):
        export_preferences(file_service, tmp_path / "x.jsonl", format="x")
    with pytest.raises(UserError, match="JSON lines"):
        export_preferences(file_service, tmp_path / "x.csv")
    with pytest.raises(UserError, match="cannot be written"):
        export_preferences(file_service, tmp_path / "missing" / "x.jsonl")
    assert not list(tmp_path.glob("*partial"))


def test_a_file_that_is_there_is_replaced_only_when_asked_for(file_service, tmp_path):
    import_preferences(write_lines(tmp_path / "a.jsonl", TULU), file_service)
    place = tmp_path / "out.jsonl"
    place.write_text("mine")
    with pytest.raises(UserError, match="is there already: name another file, or replace it with --force"):
        export_preferences(file_service, place)
    assert place.read_text() == "mine"
    rows = export_preferences(file_service, place, replace=True).rows
    assert len(place.read_text().splitlines()) == rows > 0


def test_every_format_goes_by_its_modules_name():
    assert [importer.FORMAT for importer in IMPORTERS.values()] == list(IMPORTERS)
    assert [exporter.FORMAT for exporter in EXPORTERS.values()] == list(EXPORTERS)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text.strip() == text and text.strip()
)


@given(st.lists(words, min_size=1, max_size=6))
def test_dialogues_come_out_as_they_went_in(turns):
    speakers = ("Human", "Assistant")
    text = "".join(f"\n\n{speakers[number % 2]}: {turn}" for number, turn in enumerate(turns))
    assert [message["content"] for message in parse_dialogue(text)] == turns
    assert [message["role"] for message in parse_dialogue(text)] == [
        ("user", "assistant")[n % 2] for n in range(len(turns))
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("hh", HH),
        ("oasst", TREE),
        ("tulu_human_eval", TULU),
        ("pandalm", PANDALM),
        ("llamafactory", LLAMA),
        ("llamafactory", LLAMA_V1),
        ("llamafactory", LLAMA_ALPACA),
        ("openai", OPENAI),
        ("trl", TRL),
        (
            "rankings",
            {"judgement_id": "0" * 32, "prompt": [USER], "responses": [{"text": "a", "rank": 1}], "annotator": "A"},
        ),
    ],
)
@settings(deadline=None)
@given(data=st.data())
def test_whatever_a_field_holds_a_row_is_taken_or_refused(format, row, data):
    name = data.draw(st.sampled_from(sorted(row)))
    broken = row | {name: data.draw(json_values)}
    try:
        taken = [as_new_judgement(judged, format, "support") for judged in IMPORTERS[format].judgements(broken)]
    except RowFault as fault:
        assert str(fault)
    else:
        assert all(len(judgement.ranks) == len(judgement.task.responses) for judgement in taken)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "format", "read", "taken", "reasons"),
    [
        ("hh_harmless/raw.jsonl.gz", "hh", 1502, 1492, {"roles out of order": 7, "content is empty": 3}),
        ("oasst_en100/raw.jsonl.gz", "oasst", 62, 122, {}),
        ("tulu_human_eval/raw.jsonl.gz", "tulu_human_eval", 725, 694, {"identical": 31}),
        ("pandalm_testset/raw.jsonl.gz", "pandalm", 629, 3 * 578, {"is empty": 51}),
        ("peer_llamafactory/dpo_en_demo.json", "llamafactory", 175, 174, {}),
        ("peer_llamafactory/v1_dpo_demo.jsonl", "llamafactory", 8, 8, {}),
        ("peer_openai_dpo/validation.jsonl", "openai", 183, 183, {}),
        ("hh_harmless/trl_pref.parquet", "trl", 1495, 1492, {"roles out of order": 3}),
    ],
)
def test_real_files(file_service, tmp_path, shared, file, format, read, taken, reasons):
    rejected = tmp_path / "rejected.jsonl"
    report = import_preferences(shared / file, file_service, rejected_path=rejected)
    assert (report.format, report.read, report.taken) == (format, read, taken)
    again = import_preferences(shared / file, file_service, rejected_path=rejected)
    assert (again.taken, again.rejected) == (0, report.rejected)
    found = Counter()
    if report.rejected:
        for line in rejected.read_text().splitlines():
            found.update(reason for reason in reasons if reason in json.loads(line)["reason"])
    assert found == Counter(reasons) and found.total() == report.rejected


@pytest.mark.shared_data
def test_real_rankings_of_several_replies_stay_rankings(file_service, shared, tmp_path):
    import_preferences(shared / "oasst_en100/raw.jsonl.gz", file_service)
    sizes = Counter(len(record.responses) for record in file_service.judgements())
    assert sizes == {2: 30, 3: 75, 4: 13, 5: 2, 6: 1, 9: 1}  # counted in the file by another program
    assert all(sorted(ranked(r).values()) == [*range(1, len(r.responses) + 1)] for r in file_service.judgements())
    assert write_snapshot(file_service, tmp_path / "s").people == 122
