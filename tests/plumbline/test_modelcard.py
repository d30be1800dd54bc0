"""Model cards and lineage: what they say of a model's base, and of a run folder that has another name now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from plumbline.identity import identify
from plumbline.lineage import as_lines, describe_model, lineage_of
from plumbline.measured import in_words
from plumbline.modelcard import write_card
from plumbline.runs import InputRef, Run, StageContext
from tests.plumbline.test_models import new_adapter
from tests.tiny import tiny_model

HUB = "hub/models--some-org--some-model/snapshots/0123abc"


def make_stage(run: Run, stage: str, made: Path, inputs: dict[str, InputRef], **config: Any) -> Path:
    """A finished stage whose model is a copy of `made`, with its card."""

    def copied(context: StageContext) -> dict[str, Any]:
        shutil.copytree(made, context.folder, dirs_exist_ok=True)
        return {}

    run.execute(
        stage,
        config=config,
        seed=1,
        inputs=inputs,
        body=copied,
        describe=lambda folder: describe_model(folder, run.folder(stage)),
        finish=lambda folder, manifest: write_card(folder, manifest, run, "shop"),
    )
    return run.folder(stage)


def base_input(base: Path, name: str) -> dict[str, InputRef]:
    return {"base model": InputRef(kind="model", source=name, hash="b" * 64, facts=identify(base).to_json())}


def stage_input(name: str) -> dict[str, InputRef]:
    return {name: InputRef(kind="stage", source=name, hash="c" * 64)}


def test_a_card_names_the_hub_model_that_the_recipe_named(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / HUB)
    (base / "README.md").write_text('---\nlicense: apache-2.0\nlanguage: [en, "no"]\ntags: [tiny]\n---\nA tiny one.\n')
    run = Run(tmp_path / "runs" / "x")
    sft = make_stage(run, "sft", tiny_model(tmp_path / "sft", seed=2), base_input(base, "some-org/some-model"))
    card = ModelCard.load(sft / "README.md")
    assert card.data.to_dict() == {
        "base_model": "some-org/some-model",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["plumbline", "trl", "sft"],
        "license": "apache-2.0",
        "language": ["en", "no"],
    }
    assert "from the base model [some-org/some-model](https://huggingface.co/some-org/some-model)." in card.text
    assert f"| base model's weights | `{identify(base).weights_hash}` |" in card.text
    assert "| base model's commit | `0123abc` |" in card.text
    assert f"base model {'b' * 12} (weights {identify(base).weights_hash[:12]}): some-org/some-model" in card.text
    reward = make_stage(run, "judge", tiny_model(tmp_path / "judge", seed=3), stage_input("sft"))
    data = ModelCard.load(reward / "README.md").data
    assert (data.base_model, data.pipeline_tag) == ("some-org/some-model", "text-classification")
    assert data.tags == ["plumbline", "trl", "reward-trainer"]
    ppo = make_stage(run, "mine", tiny_model(tmp_path / "ppo", seed=4), stage_input("sft"), method="ppo")
    assert ModelCard.load(ppo / "README.md").data.tags == ["plumbline", "ppo"], "not TRL's trainer"
    for folder in (sft, reward, ppo):
        assert str(tmp_path) not in (folder / "README.md").read_text()
        assert "runs/x" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("base", [HUB, "models/my-base"])
def test_an_adapter_names_the_model_it_loads_over(tmp_path: Path, monkeypatch: Any, base: str) -> None:
    """Over the hub's weights it is an adapter of them; over weights that the run trained, of nothing on the hub."""
    folder = tiny_model(tmp_path / base)
    name = "some-org/some-model" if base == HUB else str(folder)
    monkeypatch.setattr("plumbline.model_files._download", lambda name, revision: folder)
    run = Run(tmp_path / "runs" / "x")
    adapter = make_stage(run, "sft", new_adapter(folder, tmp_path / "adapter", seed=1), base_input(folder, name))
    text = (adapter / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.library_name, data.tags) == ("peft", ["plumbline", "trl", "sft", "lora"])
    if base == HUB:
        assert (data.base_model, data.base_model_relation) == ("some-org/some-model", "adapter")
    else:
        assert data.base_model is None, "the Hub refuses a path"
        assert "It was made from the base model `my-base` (a local folder)." in text
        assert str(tmp_path) not in text
    trained = tiny_model(tmp_path / "trained", seed=2)
    over_trained = new_adapter(trained, tmp_path / "second", seed=3)
    data = ModelCard.load(make_stage(run, "dpo", over_trained, stage_input("sft"), method="dpo") / "README.md").data
    assert data.base_model is None


def test_a_card_is_written_where_the_lineage_was_cut(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "x")
    folder = make_stage(run, "dpo", tiny_model(tmp_path / "dpo"), stage_input("sft"), method="dpo")
    text = (folder / "README.md").read_text()
    assert ModelCard(text).data.base_model is None
    assert "This is a policy aligned by DPO.\n" in text
    assert f"| this model's weights | `{identify(folder).weights_hash}` |" in text
    assert "sft cccccccccccc  (no longer there)" in text


def test_metrics_are_said_once_and_in_words() -> None:
    ppo = {"steps": 48, "scores_last": 0.8, "eval_objective/scores": 0.75549, "reward": 0.75549, "kl": 5.2}
    assert in_words(ppo) == {
        "training steps": "48",
        "reward in the last rollout": "0.8",
        "held-out reward": "0.7555",
        "`kl`": "5.2",
    }
    assert "`kl`" not in in_words(ppo | {"kl_last": 5.2})


@pytest.mark.parametrize("change", [shutil.move, shutil.copytree])
def test_a_run_with_another_name_is_shown_under_that_name_alone(tmp_path: Path, monkeypatch: Any, change: Any) -> None:
    monkeypatch.chdir(tmp_path)
    base = tiny_model(tmp_path / "base")
    run = Run(Path("runs/first-name"))
    (run.root / "preferences.db").touch()
    sft = make_stage(run, "sft", tiny_model(tmp_path / "made", seed=2), base_input(base, str(base)))
    judgements = InputRef(
        kind="judgements", source="runs/first-name/preferences.db", hash="d" * 64, facts={"judgements": 3}
    )
    shared = judgements.model_copy(update={"source": "/data/shared.db", "hash": "e" * 64})
    inputs = {**stage_input("sft"), "judgements": judgements, "shared": shared}
    make_stage(run, "dpo", new_adapter(sft, tmp_path / "adapter", seed=3), inputs, method="dpo")
    change("runs/first-name", "runs/second-name")
    tree = lineage_of(Path("runs/second-name/dpo"))
    assert "first-name" not in json.dumps(tree.to_json())
    text = "\n".join(as_lines(tree))
    assert "runs/second-name/preferences.db" in text
    assert "/data/shared.db" in text
    assert tree.facts["model"]["base"] == tree.facts["model"]["adapter"]["parent"] == "runs/second-name/sft"
    assert "first-name" not in Path("runs/second-name/dpo/README.md").read_text()
    assert json.loads(Path("runs/second-name/dpo/manifest.json").read_text())["run"] == "first-name"


def test_a_base_elsewhere_whose_folders_are_called_as_those_of_the_run_is_shown_there(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "models" / "demo" / "sft")
    run = Run(tmp_path / "runs" / "demo")
    sft = make_stage(run, "sft", tiny_model(tmp_path / "made", seed=2), base_input(base, str(base)))
    dpo = make_stage(run, "dpo", new_adapter(base, tmp_path / "adapter", seed=3), stage_input("sft"), method="dpo")
    assert sft.exists()
    assert lineage_of(dpo).facts["model"]["base"] == str(base)
