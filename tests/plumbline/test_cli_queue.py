"""The command queue: tasks for named people, and gold items, on a run's store."""

import json
import re

import pytest
from typer.testing import CliRunner

from annotate_ui.calls import Nothing
from annotate_ui.lead.desk import SHOWN_RESTRICTED, LeadDesk
from annotate_ui.setup import Setup
from plumbline.cli import app
from plumbline.errors import StoreError, UserError
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from tests.small_domain import make_small_domain


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_small_domain(tmp_path / "domain")


@pytest.fixture
def service(recipe, tmp_path):
    """The store of the run, with three tasks and three people, the first task adjudicated."""
    name = re.search(r"^name: *(\S+)", recipe.read_text(), re.MULTILINE)[1]
    (tmp_path / "runs" / "r").mkdir(parents=True)
    store = Store.open(tmp_path / "runs" / "r" / "preferences.db")
    service = PreferenceService(store, project=name, rules=Rules(adjudicate_above=0.1))
    service.set_overlap(2)
    for index in range(3):
        texts = [NewResponse(f"{index} yes", "a"), NewResponse(f"{index} no", "b")]
        service.add_tasks([NewTask([{"role": "user", "content": f"question {index}"}], texts, name)])
    judge(service, "Ada", "yes")
    judge(service, "Ben", "no")
    judge(service, "Cem", "yes", adjudicate=True)
    yield service
    store.close()


def judge(service, name, best, adjudicate=False):
    who = service.sign_in(name).annotator_id
    work = service.lease_adjudication(who, lead=True) if adjudicate else service.lease_next(who)
    assert isinstance(work, Assignment)
    ranking = {card.response_id: 1 if card.text.endswith(best) else 2 for card in work.cards}
    service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)


def plumbline(*arguments):
    done = CliRunner().invoke(app, ["queue", *map(str, arguments), "--run", "r"])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_task_is_kept_for_named_people_and_lifted(recipe, service):
    task = next(service.control.open_tasks()).task_id
    assert "for 2 annotators" in plumbline("restrict", recipe, task, "--to", "ada", "--to", "Ben")
    assert f"{task}  for Ada, Ben: question" in plumbline("list", recipe)
    assert "handed to everybody" in plumbline("restrict", recipe, task, "--everybody")
    assert service.control.restricted() == []


def test_all_tasks_that_are_kept_are_listed_and_the_page_tells_how_many_it_does_not_show(recipe, service):
    texts = [NewResponse("yes", "a"), NewResponse("no", "b")]
    for number in range(SHOWN_RESTRICTED + 3):
        service.add_tasks([NewTask([{"role": "user", "content": f"kept {number}"}], texts, service.project)])
    ada = service.sign_in("Ada").annotator_id
    kept = [task.task_id for task in service.control.open_tasks() if task.prompt[0]["content"].startswith("kept")]
    for task in kept:
        service.control.restrict(task, [ada])
    assert [line.split()[0] for line in plumbline("list", recipe).splitlines() if " for Ada: " in line] == kept
    html = LeadDesk(service, Setup("x")).queue("", Nothing())["html"]
    assert html.count("kept for Ada") == SHOWN_RESTRICTED
    assert "3 more are kept for named people" in html


def test_an_adjudicated_task_becomes_a_gold_item(recipe, service):
    listed = json.loads(plumbline("list", recipe, "--json"))
    (case,) = listed["adjudicated"]
    assert case["prompt"][0]["content"] == "question 0"
    said = plumbline("gold", recipe, case["task_id"])
    assert "is a gold item" in said and "annotate.checks" in said
    assert "none is adjudicated" in plumbline("list", recipe)


def test_what_is_refused(recipe, service):
    task = next(service.control.open_tasks()).task_id
    with pytest.raises(UserError, match="--to NAME, once for each of them, or --everybody"):
        plumbline("restrict", recipe, task)
    with pytest.raises(UserError, match="--everybody"):
        plumbline("restrict", recipe, task, "--to", "Ada", "--everybody")
    with pytest.raises(StoreError, match="nobody in this store is called 'Dora'"):
        plumbline("restrict", recipe, task, "--to", "Dora")
    with pytest.raises(StoreError, match="adjudicate it first"):
        plumbline("gold", recipe, task)
