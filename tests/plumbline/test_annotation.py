"""Filling the preference store from a run: the recipe's overlap, a new policy's responses, runs that share a store."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from plumbline.annotation import collect_judgements, fill_store, publish_guideline
from plumbline.domain import Domain
from plumbline.errors import DataError, WaitingForPeople
from plumbline.inputs import inputs_of
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import Task
from plumbline.recipe import AnnotateSection, DataSection, ModelSection, Recipe
from plumbline.recipe_annotate import ChecksSection, RubricAxis
from plumbline.runs import Run
from plumbline.sampling import Response, write_responses
from plumbline.stages import Stage


class Desk:
    """A run of a recipe whose responses are written by hand."""

    def __init__(self, folder: Path, run: str = "first", **annotate) -> None:
        data = DataSection(demonstrations=["d"], prompts=["p"])
        recipe = Recipe(name="support", model=ModelSection(name="m"), data=data, annotate=AnnotateSection(**annotate))
        self.said: list[str] = []
        self.domain = Domain(recipe, Run(folder / run), self.said.append)

    def sample(self, policy: str, prompts: int = 3) -> None:
        """Let a policy respond, in place of what was sampled before."""
        shutil.rmtree(self.domain.run.folder("sample"), ignore_errors=True)

        def body(context):
            rows = [response(number, f"{policy} {i}", policy) for number in range(prompts) for i in range(2)]
            return {"responses": write_responses(rows, context.folder)}

        self.domain.run.execute("sample", config={"policy": policy}, seed=1, inputs={}, body=body)

    def counts(self) -> tuple[int, int, int]:
        with self.domain.service() as service:
            progress = service.progress()
        return progress.required, progress.done, progress.missing

    def judge(self, number: int = 1) -> list[str]:
        """Judge this many tasks; returns the policies that were seen."""
        seen = []
        with self.domain.service() as service:
            who = service.sign_in("Anna").annotator_id
            for _ in range(number):
                work = service.lease_next(who)
                seen.append(work.cards[0].text.split()[0])
                ranking = {card.response_id: card.position + 1 for card in work.cards}
                service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id)
        return seen


def response(number: int, text: str, policy: str) -> Response:
    prompt = [{"role": "user", "content": f"{number}?"}]
    return Response(prompt, str(number), text, policy, "", 1, True, temperature=1.0, seed=1, meta="")


def test_only_filling_the_store_changes_the_overlap(tmp_path):
    desk = Desk(tmp_path)
    desk.sample("one")
    fill_store(desk.domain)
    other = Desk(tmp_path, judgements_per_prompt=2)
    assert other.counts() == (3, 0, 3)
    fill_store(other.domain)
    assert other.counts() == desk.counts() == (6, 0, 6)


def test_the_tasks_of_a_policy_that_was_replaced_are_closed(tmp_path):
    desk = Desk(tmp_path)
    desk.sample("one")
    fill_store(desk.domain)
    assert desk.judge() == ["one"]
    desk.sample("two")
    fill_store(desk.domain)
    assert desk.counts() == (4, 1, 3)
    assert desk.said == ["closed unfinished: 2 tasks with earlier responses; what was judged of them stays."]
    assert desk.judge(3) == ["two"] * 3
    desk.sample("one")
    fill_store(desk.domain)
    assert desk.judge(2) == ["one"] * 2, "sampled again, they are handed out again"
    assert desk.counts() == (6, 6, 0)


def test_a_kill_while_the_store_is_filled_forgets_no_task(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    desk = Desk(tmp_path)
    desk.sample("one")
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceService, "retire", killed)
        with pytest.raises(KeyboardInterrupt):
            fill_store(desk.domain)
    desk.sample("two")
    fill_store(desk.domain)
    assert desk.counts() == (3, 0, 3)


def test_who_fills_the_store_from_earlier_responses_does_not_undo_the_newer(tmp_path, monkeypatch):
    """As when the annotation app is opened in the moment in which a run has sampled anew."""
    desk, slow, go_on = Desk(tmp_path), threading.Event(), threading.Event()
    add_tasks = PreferenceService.add_tasks

    def adds_slowly(service, tasks):
        if not slow.is_set():
            slow.set()
            assert go_on.wait(60)
        return add_tasks(service, tasks)

    monkeypatch.setattr(PreferenceService, "add_tasks", adds_slowly)
    desk.sample("one")
    app = threading.Thread(target=fill_store, args=(desk.domain,))
    app.start()
    assert slow.wait(60)
    desk.sample("two")
    run = threading.Thread(target=fill_store, args=(desk.domain,))
    run.start()
    run.join(0.3)
    go_on.set()
    app.join(), run.join()
    assert desk.counts() == (3, 0, 3)
    assert desk.judge(3) == ["two"] * 3


def test_the_store_is_filled_beside_a_run_that_holds_its_folder(tmp_path):
    desk = Desk(tmp_path)
    desk.sample("one")
    with Run(desk.domain.run.root).lock():
        fill_store(desk.domain)
    assert desk.counts() == (3, 0, 3)


def test_runs_that_share_a_store_leave_each_others_tasks_alone(tmp_path):
    store = str(tmp_path / "shared.db")
    first, second = Desk(tmp_path, "first", store=store), Desk(tmp_path, "second", store=store)
    first.sample("one")
    second.sample("two")
    fill_store(first.domain)
    fill_store(second.domain)
    assert first.counts() == (6, 0, 6)
    first.sample("three")
    fill_store(first.domain)
    assert first.counts() == (6, 0, 6)
    assert sorted(first.judge(6)) == ["three"] * 3 + ["two"] * 3


def test_flagged_tasks_are_not_waited_for(tmp_path):
    desk = Desk(tmp_path)
    desk.sample("one")
    assert collect_judgements(desk.domain).missing == 3
    with desk.domain.service() as service:
        who = service.sign_in("Anna").annotator_id
        for number in range(2):
            lease = service.lease_next(who).lease_id
            service.flag(lease, who, kind="harmful", note="", idempotency_key=str(number))
    progress = collect_judgements(desk.domain)
    assert (progress.required, progress.missing, progress.flagged) == (1, 1, 2)
    waiting = WaitingForPeople(1, 1, "recipe.yaml --run demo", flagged=progress.flagged)
    assert "2 flags: what is flagged is neither handed out nor waited for" in str(waiting)
    assert "annotate.required" not in str(waiting)
    desk.judge()
    assert collect_judgements(desk.domain).missing == 0


def test_asking_what_is_judged_makes_no_store(tmp_path):
    desk = Desk(tmp_path)
    stage = Stage("preferences", "", "preferences", {}, {}, ("judgements",), lambda context: {}, seed=1)
    assert inputs_of(desk.domain, stage)["judgements"].facts["judgements"] == 0
    assert list(desk.domain.run.root.iterdir()) == []


def test_the_recipes_checks_and_guideline_reach_the_annotators(tmp_path):
    checks, guideline = tmp_path / "checks.jsonl", tmp_path / "guideline.md"
    rows = [{"prompt": f"check {n}", "responses": ["good", "bad"], "ranking": [1, 2]} for n in range(3)]
    checks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    guideline.write_text("# Be kind")
    settings = ChecksSection(file=checks, every=2)
    desk = Desk(tmp_path, checks=settings, guideline=guideline, rubric=[RubricAxis(name="polite", question="?")])
    desk.sample("one", prompts=6)
    fill_store(desk.domain)
    with desk.domain.service() as service:
        assert publish_guideline(desk.domain, service) == "# Be kind"
        who = service.sign_in("Anna").annotator_id
        assert service.lease_next(who).text == "# Be kind"
        service.guidelines.publish("# By the lead")
        assert publish_guideline(desk.domain, service) == "# By the lead"
        service.guidelines.consent(who, 2)
        asked = []
        while isinstance(work := service.lease_next(who), Assignment):
            asked.append(work.prompt[0]["content"])
            ranking = {card.response_id: card.position + 1 for card in work.cards}
            polite = {"polite": dict.fromkeys(ranking, 4)}
            service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, scores=polite)
        assert len(asked) == len(set(asked)) and set(asked) - {f"check {n}" for n in range(3)} == {
            f"{n}?" for n in range(6)
        }
    assert desk.counts() == (6, 6, 0)
    fill_store(desk.domain)
    assert desk.counts() == (6, 6, 0)
    checks.write_text('{"prompt": "x"}')
    with pytest.raises(DataError, match=r"checks.jsonl:1: the field"):
        fill_store(desk.domain)
    fill_store(Desk(tmp_path, checks=ChecksSection(every=2)).domain)
    with desk.domain.service() as service, service.look() as turn:
        checks_left = select(Task.key).where(Task.check_kind.is_not(None), ~Task.retired)
        assert turn.connection.execute(checks_left).all() == []
