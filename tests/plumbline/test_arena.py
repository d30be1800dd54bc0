"""The arena of a run: its policies, its votes on the command line, and what is missing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

import plumbline.cli
from plumbline.arena import arena_results, open_arena, policy_folders
from plumbline.chain import read_recipe
from plumbline.domain import Domain
from plumbline.errors import UserError
from plumbline.models import identify
from plumbline.preferences.arena import Said
from plumbline.runs import Run
from tests.small_domain import make_small_domain, small_recipe
from tests.tiny import tiny_model


@pytest.fixture
def recipe(tmp_path):
    """A run with a finished SFT policy and a finished DPO policy, made without training."""
    annotate = small_recipe()["annotate"] | {"arena": {"max_new_tokens": 8, "turns": 2}}
    return make_small_domain(tmp_path / "domain", annotate=annotate)


def domain_of(recipe, folder, *overrides, stages=("sft", "dpo")):
    run = Run(folder / "runs" / "small")
    for seed, stage in enumerate(stages):
        if run.manifest(stage) is None:
            make_policy(run, stage, seed)
    return Domain(read_recipe(recipe, list(overrides)), run, lambda line: None)


def make_policy(run, stage, seed):
    def body(context):
        tiny_model(context.folder, seed=seed)
        return {}

    run.execute(stage, config={}, seed=seed, inputs={}, body=body)
    manifest = run.folder(stage) / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["model"] = identify(run.folder(stage)).to_json()
    manifest.write_text(json.dumps(facts))


def test_finished_policies_answer_on_held_out_prompts(recipe, tmp_path):
    domain = domain_of(recipe, tmp_path)
    with domain.service() as service:
        setup = open_arena(domain, service.store)
        assert [one.name for one in setup.arena.rules.contenders] == ["sft", "dpo"]
        assert setup.arena.rules.contenders[1].weights_hash == identify(domain.run.folder("dpo")).weights_hash
        assert list(setup.arena.rules.prompts) == [row.prompt for row in domain.prompts("test")]
        assert setup.arena.rules.turns == 2
        who = service.sign_in("Anna").annotator_id
        battle = setup.arena.start(who, setup.arena.draw()).battle_id
        *_, said = setup.speakers.speak(setup.arena.duel(who, battle))
        setup.arena.said(battle, *said)
        setup.arena.vote(who, battle, "left")
    assert arena_results(domain)["votes"]["counted"] == 1


@pytest.mark.parametrize(
    ("overrides", "stages", "fault"),
    [
        ((), ("sft",), "missing: dpo, ppo"),
        ((), (), "missing: sft"),
        (("annotate.arena.baseline=dpo", "annotate.arena.policies=[dpo]"), ("sft", "dpo"), "another policy"),
        (("annotate.arena.policies=[kto]",), ("sft", "dpo"), "'kto'; this recipe makes base, sft, dpo, ppo"),
    ],
)
def test_what_is_missing_is_said(recipe, tmp_path, overrides, stages, fault):
    domain = domain_of(recipe, tmp_path, *overrides, stages=stages)
    with pytest.raises(UserError, match=fault):
        policy_folders(domain, domain.recipe.annotate.arena)


def plumbline_arena(recipe, folder, *options):
    return CliRunner().invoke(plumbline.cli.app, ["arena", str(recipe), "--runs", str(folder / "runs"), *options])


def test_the_leaderboard_on_the_command_line(recipe, tmp_path):
    domain = domain_of(recipe, tmp_path)
    with domain.service() as service:
        arena = open_arena(domain, service.store).arena
        who = service.sign_in("Anna").annotator_id
        for number in range(30):
            battle = arena.start(who, [{"role": "user", "content": f"question {number}"}]).battle_id
            left_is_dpo = arena.duel(who, battle).left.name == "dpo"
            arena.said(battle, Said(f"a {number}", True), Said(f"b {number}", True))
            arena.vote(who, battle, "left" if left_is_dpo else "right")
    shown = plumbline_arena(recipe, tmp_path)
    assert "dpo is better than sft for the one annotator who voted" in shown.output
    board = json.loads(plumbline_arena(recipe, tmp_path, "--json").output)
    assert (board["policies"][0]["policy"], board["policies"][0]["wins"]) == ("dpo", 30)


def test_a_recipe_without_an_arena_is_told(recipe, tmp_path):
    domain_of(recipe, tmp_path)
    content = yaml.safe_load(recipe.read_text())
    del content["annotate"]["arena"]
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"no `annotate.arena` section"):
        raise plumbline_arena(recipe, tmp_path).exception


def test_annotate_opens_the_arena_or_says_why_not(recipe, tmp_path, monkeypatch, capfd):
    served = []
    monkeypatch.setattr("annotate_ui.serve", lambda service, setup, *, arena=None, **_: served.append(arena))
    monkeypatch.setattr("plumbline.cli._need_samples", lambda chain: None)
    for stages in (("sft",), ("sft", "dpo")):
        domain_of(recipe, tmp_path, stages=stages)
        done = CliRunner().invoke(plumbline.cli.app, ["annotate", str(recipe), "--runs", str(tmp_path / "runs")])
        assert done.exception is None, done.exception
    assert served[0] is None
    assert served[1].arena.rules.baseline == "sft"


def test_several_server_processes_have_no_arena_and_say_why(recipe, tmp_path):
    domain = domain_of(recipe, tmp_path, "annotate.workers=4", "annotate.store=postgresql://user@host/name")
    told = []
    chain = SimpleNamespace(recipe=domain.recipe, domain=domain, notify=told.append)
    assert plumbline.cli._arena(chain, None) is None
    assert told == ["no arena: it needs a server of one process, and annotate.workers is 4; set it to 1."]
