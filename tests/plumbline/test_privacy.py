"""Personal data in a run: sampled tasks on their way to the store, and what `plumbline check` says of data files."""

import json
import shutil

from sqlalchemy import select

from plumbline import privacy
from plumbline.annotation import fill_store, import_named_files
from plumbline.domain import Domain
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.tables import Task
from plumbline.privacy import LISTED, personal_data_notices
from plumbline.recipe import AnnotateSection, DataSection, ModelSection, Recipe
from plumbline.runs import Run
from plumbline.sampling import Response, write_responses
from tests.preferences.conftest import make_gold

PAIRS = {
    "Where?": ["Here.", "There."],
    "I am ada@example.org": ["Mail to ada@example.org", "Call (212) 555-1234"],
    "Who?": ["ada@example.org", "bob@example.org"],
    "Which?": ["ada@example.org", "bob@example.org", "Neither."],
}


def domain_of(folder, said, data=None, **annotate):
    data = data or DataSection(demonstrations=["d"], prompts=["p"])
    recipe = Recipe(name="support", model=ModelSection(name="m"), data=data, annotate=AnnotateSection(**annotate))
    return Domain(recipe, Run(folder / "run"), said.append)


def sampled(domain):
    """The run with the responses above."""
    shutil.rmtree(domain.run.folder("sample"), ignore_errors=True)

    def body(context):
        rows = [
            Response(
                [{"role": "user", "content": prompt}],
                prompt,
                text,
                "sft",
                "",
                1,
                True,
                temperature=1.0,
                seed=1,
                meta="",
            )
            for prompt, texts in PAIRS.items()
            for text in texts
        ]
        return {"responses": write_responses(rows, context.folder)}

    domain.run.execute("sample", config={}, seed=1, inputs={}, body=body)
    return domain


def handed_out(domain):
    """What annotators are shown: prompt to responses."""
    shown = {}
    with domain.service() as service:
        who = service.sign_in("Anna").annotator_id
        while hasattr(work := service.lease_next(who), "cards"):
            shown[work.prompt[0]["content"]] = sorted(card.text for card in work.cards)
            service.skip(work.lease_id, who, reason="", idempotency_key=work.lease_id)
    return shown


def test_a_report_lists_the_tasks_once(tmp_path):
    said: list[str] = []
    domain = sampled(domain_of(tmp_path, said))
    fill_store(domain)
    (line,) = said
    assert line.startswith("sampled tasks: personal data in 3 of 4 tasks: EMAIL 6, PHONE 1; they are handed out as")
    assert LISTED in line
    listed = [json.loads(row) for row in (domain.run.root / LISTED).read_text().splitlines()]
    assert [row["kinds"] for row in listed] == [["EMAIL", "PHONE"], ["EMAIL"], ["EMAIL"]]
    fill_store(domain)
    assert len(said) == 1, "nothing new went in"
    assert len(handed_out(domain)) == 4


def test_tasks_that_are_set_aside_are_not_handed_out_and_those_of_before_are_closed(tmp_path):
    said: list[str] = []
    domain = sampled(domain_of(tmp_path, said))
    fill_store(domain)
    with domain.service() as service:
        texts = [NewResponse(text, "sft") for text in PAIRS["Who?"]]
        make_gold(service, NewTask([{"role": "user", "content": "Who?"}], texts, "support"))
    domain = domain_of(tmp_path, said, personal_data="set_aside")
    fill_store(domain)
    with domain.service() as service, service.look() as turn:
        assert turn.connection.execute(select(Task.retired).where(Task.check_kind == "gold")).scalar_one()
    assert handed_out(domain) == {"Where?": ["Here.", "There."]}
    assert "they are not handed out (annotate.personal_data: set_aside)" in said[-2]
    assert "closed unfinished: 2 tasks" in said[-1]
    assert len((domain.run.root / LISTED).read_text().splitlines()) == 3


def test_tasks_are_masked_the_same_each_time(tmp_path):
    said: list[str] = []
    domain = sampled(domain_of(tmp_path, said, personal_data="mask"))
    fill_store(domain)
    assert said == [
        "sampled tasks: personal data in 3 of 4 tasks: EMAIL 6, PHONE 1; it is masked on its way into the store "
        "(annotate.personal_data: mask); 1 task left out, whose responses are the same then."
    ]
    fill_store(domain)
    assert len(said) == 1
    assert not (domain.run.root / LISTED).exists()
    assert handed_out(domain) == {
        "Where?": ["Here.", "There."],
        "I am [EMAIL]": ["Call [PHONE]", "Mail to [EMAIL]"],
        "Which?": ["Neither.", "[EMAIL]"],
    }


def test_check_tells_of_each_file_and_of_its_beginning_only(tmp_path, monkeypatch):
    prompts, demonstrations, preferences = (tmp_path / f"{name}.jsonl" for name in ("prompts", "sft", "prefs"))
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PAIRS) + "no JSON\n")
    demonstrations.write_text(json.dumps({"prompt": "Call?", "completion": "(212) 555-1234"}) + "\n")
    preferences.write_text(json.dumps({"prompt": "Who?", "chosen": "ada@example.org", "rejected": "Eve."}) + "\n")
    data = DataSection(demonstrations=[str(demonstrations)], prompts=[str(prompts)], preferences=[str(preferences)])
    said: list[str] = []
    domain = domain_of(tmp_path, said, data, personal_data="mask")
    in_store = "it is masked on its way into the store (annotate.personal_data: mask)."
    assert personal_data_notices(domain) == [
        f"{prompts}: personal data in 1 of 5 rows: EMAIL 1 (line 2); {in_store}",
        f"{preferences}: personal data in 1 of 1 row: EMAIL 1 (line 1); {in_store}",
        f"{demonstrations}: personal data in 1 of 1 row: PHONE 1 (line 1); nothing changes it.",
    ]
    monkeypatch.setattr(privacy, "LOOKED_AT", 25)
    assert "1 of 2 rows: EMAIL 1 (line 2) (only this beginning of the file was looked at)" in "".join(
        personal_data_notices(domain)
    )
    assert personal_data_notices(domain_of(tmp_path, said, data, personal_data="off")) == []
    missing = DataSection(demonstrations=[str(tmp_path / "none.jsonl")])
    assert personal_data_notices(domain_of(tmp_path, said, missing)) == []


def test_the_recipes_files_are_screened_and_told_of_once(tmp_path):
    preferences = tmp_path / "prefs.jsonl"
    preferences.write_text(json.dumps({"prompt": "Who?", "chosen": "ada@example.org", "rejected": "Eve."}) + "\n")
    said: list[str] = []
    domain = domain_of(tmp_path, said, DataSection(preferences=[str(preferences)]), personal_data="mask")
    import_named_files(domain)
    import_named_files(domain)
    assert said[1:] == [
        "prefs.jsonl: personal data in 1 of 1 row: EMAIL 1 (line 1); it is masked on its way into the store "
        "(annotate.personal_data: mask)"
    ]
    with domain.service() as service:
        (record,) = service.judgements()
    assert {response.text for response in record.responses} == {"[EMAIL]", "Eve."}
