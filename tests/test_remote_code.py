"""A base model that comes with Python code of its own: refused unless the recipe trusts it; then run by every stage."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import transformers.dynamic_module_utils

import plumbline.cli
from plumbline.annotation import simulate_annotators
from plumbline.chain import Chain, read_recipe
from plumbline.errors import UserError
from plumbline.inputs import inputs_of
from plumbline.models import context_window, load_policy, trust_remote_code
from plumbline.preflight import preflight
from plumbline.runs import Run
from reward import RewardModel
from reward.model import load_classifier
from tests.small_domain import make_small_domain, small_recipe
from tests.tiny import TEMPLATE, tiny_model

CODE = """
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig


class OwnForSequenceClassification(GenericForSequenceClassification, LlamaPreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        LlamaPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()
"""


def with_own_code(folder: Path) -> Path:
    """A tiny model of a type that only the code in its folder knows."""
    tiny_model(folder)
    (folder / "modeling_own.py").write_text(CODE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "Config", "AutoModelForCausalLM": "ForCausalLM"}
    classes["AutoModelForSequenceClassification"] = "ForSequenceClassification"
    config["auto_map"] = {auto: f"modeling_own.Own{name}" for auto, name in classes.items()}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    return folder


@pytest.fixture(autouse=True)
def module_cache(tmp_path, monkeypatch):
    """Where transformers copies a model's code before it runs it: not the user's own cache."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])


def test_code_that_comes_with_a_model_is_refused_unless_it_is_trusted(tmp_path):
    model = with_own_code(tmp_path / "model")
    for load in (load_policy, load_classifier, context_window):
        with pytest.raises(
            UserError, match=r"model comes with Python code .* set `trust_remote_code: true` at the top"
        ):
            load(model)
    with trust_remote_code(True):
        assert type(load_policy(model)).__name__ == "OwnForCausalLM"
        assert type(load_classifier(model)).__name__ == "OwnForSequenceClassification"
        assert context_window(model) == 256


def small_domain_with_own_code(folder: Path, **sections: object) -> Path:
    """The small domain's recipe over a model with code; the chain gives it a chat template."""
    recipe = make_small_domain(folder, **{**small_recipe(steps=1), **sections})
    shutil.rmtree(folder / "base")
    with_own_code(folder / "base")
    (folder / "template.jinja").write_text(TEMPLATE)
    return recipe


def test_the_recipe_decides(tmp_path, monkeypatch, capsys):
    """Without the key the check names it; with it every stage trains, and what it makes carries the code."""
    model = {"name": "base", "chat_template": "template.jinja"}
    recipe = small_domain_with_own_code(tmp_path / "domain", model=model)
    monkeypatch.chdir(tmp_path / "domain")
    for command in ("check", "run"):
        monkeypatch.setattr("sys.argv", ["plumbline", command, "recipe.yaml"])
        with pytest.raises(SystemExit) as left:
            plumbline.cli.main()
        assert left.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: {tmp_path / 'domain' / 'base'} comes with Python code of its own")
        assert "set `trust_remote_code: true` at the top of the recipe" in said

    trusting = read_recipe(recipe, ["trust_remote_code=true"])
    chain = Chain(trusting, recipe, Run(tmp_path / "runs" / "own"), lambda line: None)
    preflight(chain.domain)
    chain.run_stages(until="sample")
    simulate_annotators(chain.domain)
    chain.run_stages()
    assert {planned.state for planned in chain.plan()} == {"up to date"}
    for stage in ("base", "sft", "reward", "judge", "dpo", "ppo"):
        assert (chain.run.folder(stage) / "modeling_own.py").read_text() == CODE
    with trust_remote_code(True):
        assert type(load_policy(chain.run.folder("ppo"))).__name__ == "OwnForCausalLM"
        assert type(RewardModel.load(chain.run.folder("judge")).model).__name__ == "OwnForSequenceClassification"


def test_code_without_a_classifier_is_refused_before_any_work(tmp_path):
    """Without it the reward stage would be the first to tell."""
    recipe = small_domain_with_own_code(tmp_path / "domain")
    path = tmp_path / "domain" / "base" / "config.json"
    config = json.loads(path.read_text())
    del config["auto_map"]["AutoModelForSequenceClassification"]
    path.write_text(json.dumps(config))
    chain = Chain(
        read_recipe(recipe, ["trust_remote_code=true"]), recipe, Run(tmp_path / "runs" / "own"), lambda line: None
    )
    with pytest.raises(UserError, match=r"no reward model can be trained over .*no sequence classifier for its type"):
        preflight(chain.domain)


def test_changed_code_of_a_trusted_model_redoes_what_depends_on_it(tmp_path):
    recipe = small_domain_with_own_code(tmp_path / "domain")
    base = tmp_path / "domain" / "base"
    (base / "layers").mkdir()
    for trusted, different in (("true", 3), ("false", 1)):
        (base / "layers" / "own.py").write_text("")
        checked = read_recipe(recipe, [f"trust_remote_code={trusted}"])
        chain = Chain(checked, recipe, Run(tmp_path / "runs" / "own"), lambda line: None)
        hashes = set()
        for code in (CODE, CODE + "# changed"):
            (base / "modeling_own.py").write_text(code)
            hashes.add(inputs_of(chain.domain, chain.stages[0])["base model"].hash)
        (base / "layers" / "own.py").write_text("# changed")
        hashes.add(inputs_of(chain.domain, chain.stages[0])["base model"].hash)
        assert len(hashes) == different, "code counts where it is run"
