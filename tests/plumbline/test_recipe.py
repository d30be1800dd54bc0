from dataclasses import dataclass
from pathlib import Path

import pytest

from plumbline.errors import RecipeError
from plumbline.recipe_check import Trainer, load_recipe


@dataclass
class FakeConfig:
    """Stands for a trainer's configuration class; the real ones are tested in test_shipped_recipes."""

    output_dir: str = ""
    use_cpu: bool = False
    seed: int = 0
    learning_rate: float = 1e-5
    num_train_epochs: float = 1.0
    beta: float = 0.1
    eval_steps: float | None = None
    save_steps: float = 500

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be positive")


TRAINERS = dict.fromkeys(("adapt", "sft", "reward", "dpo", "ppo"), Trainer(FakeConfig))

GOOD = """name: shop
model: ./base
data:
  demonstrations: demos.jsonl
  prompts: prompts.jsonl
sft:
  learning_rate: 2e-5
align:
  - method: dpo
    beta: 0.2
"""


def recipe_file(folder: Path, text: str = GOOD) -> Path:
    (folder / "base").mkdir(exist_ok=True)
    for name in ("demos.jsonl", "prompts.jsonl"):
        (folder / name).touch()
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder, text=GOOD, overrides=()):
    return load_recipe(recipe_file(folder, text), overrides=overrides, trainers=TRAINERS)


def faults_of(folder, text, overrides=()):
    with pytest.raises(RecipeError) as refused:
        load(folder, text, overrides)
    return refused.value.faults


def test_a_good_recipe_has_its_paths_resolved(tmp_path):
    recipe = load(tmp_path)
    assert recipe.model.name == str(tmp_path / "base")
    assert recipe.data.demonstrations == [str(tmp_path / "demos.jsonl")]
    assert recipe.sft.trainer == {"learning_rate": 2e-5}
    assert recipe.align[0].name == "dpo"
    assert recipe.align[0].trainer == {"beta": 0.2}


def test_a_hub_name_stays_a_name(tmp_path):
    assert load(tmp_path, GOOD.replace("./base", "Qwen/Qwen3-0.6B")).model.name == "Qwen/Qwen3-0.6B"


def test_the_command_line_sets_values_over_the_file(tmp_path):
    recipe = load(
        tmp_path, overrides=["sft.learning_rate=1e-3", "align.dpo.beta=0.5", "reward.learning_rate=3e-5", "seed=3"]
    )
    assert recipe.sft.trainer["learning_rate"] == 1e-3
    assert recipe.align[0].trainer["beta"] == 0.5
    assert recipe.reward.trainer["learning_rate"] == 3e-5
    assert recipe.seed == 3


def test_all_faults_are_told_at_once_with_their_lines(tmp_path):
    text = """name: shop
model: ./base
data:
  demonstration: demos.jsonl
sample:
  temperature: hot
sft:
  learning_rat: 1
  seed: 3
align:
  - method: dpp
"""
    faults = "\n".join(faults_of(tmp_path, text))
    place = tmp_path / "recipe.yaml"
    assert f"{place}:4: unknown key 'data.demonstration'; did you mean 'demonstrations'?" in faults
    assert f"{place}:6: sample.temperature: " in faults
    assert f"{place}:8: unknown key 'sft.learning_rat'; did you mean 'learning_rate'?" in faults
    assert f"{place}:9: sft.seed cannot be set here: set `seed` at the top of the recipe" in faults
    assert f"{place}:11: align.0.method: " in faults


def test_a_share_of_the_training_that_would_mean_every_step_is_told(tmp_path):
    """transformers takes 0.5 for half of the training, and 1.0 for one step."""
    text = GOOD.replace("    beta: 0.2\n", "    beta: 0.2\n    save_steps: 1.0\n") + "reward: {eval_steps: 1.0}\n"
    first, second, third = faults_of(tmp_path, text, ["sft.eval_steps=1.0"])
    place = tmp_path / "recipe.yaml"
    assert first.startswith("command line: sft.eval_steps: this would be done at every step; write 1 if you mean that")
    assert second.startswith(f"{place}:11: align.0.save_steps: this would be done at every step")
    assert third.startswith(f"{place}:12: reward.eval_steps: this would be done at every step")
    for value in (1, 20, 2e3, 0.5):
        assert load(tmp_path, overrides=[f"sft.eval_steps={value}"]).sft.trainer["eval_steps"] == value


def test_what_the_schema_does_not_know_is_told_beside_its_faults(tmp_path):
    """Files, names of policies, values from the command line: nothing waits until something else is mended."""
    text = """name: shop
model: ./nowhere
data:
  demonstrations: [demos.jsonl, gone.jsonl]
  validation: lots
sample:
  temprature: 1
  policies: [sft, other]
sft: {load_in_4bit: true}
align:
  - {method: dpp, name: judge}
  - method: dpo
  - method: dpo
annotate: {simulated: {utility: gone.yaml, annotators: []}}
"""
    told = "\n".join(faults_of(tmp_path, text, ["align.ppo.beta=1"]))
    place = tmp_path / "recipe.yaml"
    for fault in (
        "command line: 'align.ppo.beta=1': there is no item 'ppo'",
        f"{place}:2: model: there is no file {tmp_path / 'nowhere'}",
        f"{place}:4: data.demonstrations.1: there is no file {tmp_path / 'gone.jsonl'}",
        f"{place}:5: data.validation: ",
        f"{place}:3: name data.prompts",
        f"{place}:7: unknown key 'sample.temprature'; did you mean 'temperature'?",
        f"{place}:8: sample.policies.1: there is no file {tmp_path / 'other'}",
        f"{place}:9: load_in_4bit needs `lora:`",
        f"{place}:11: align.0.method: ",
        f"{place}:11: 'judge' is the folder of another stage",
        f"{place}:13: two aligned policies are called 'dpo'",
        f"{place}:14: annotate.simulated.utility: there is no file {tmp_path / 'gone.yaml'}",
        f"{place}:14: annotate.simulated.annotators: ",
    ):
        assert fault in told, fault


def test_what_may_be_misspelt_is_not_told_as_missing(tmp_path):
    (fault,) = faults_of(tmp_path, GOOD.replace("demonstrations", "demonstration"))
    assert "unknown key 'data.demonstration'; did you mean 'demonstrations'?" in fault


@pytest.mark.parametrize("align", ["3", "{method: dpo}", "[dpo]", "[{method: [dpo]}]", "[{method: rlhf}]"])
def test_an_align_section_of_another_form_is_one_fault(tmp_path, align):
    (fault,) = faults_of(tmp_path, GOOD.split("align:")[0] + f"align: {align}\n")
    assert ": align" in fault


def test_missing_files_and_sections_are_told(tmp_path):
    faults = "\n".join(faults_of(tmp_path, "name: shop\nmodel: ./base\ndata:\n  prompts: nowhere.jsonl\n"))
    assert f"recipe.yaml:4: data.prompts: there is no file {tmp_path / 'nowhere.jsonl'}" in faults
    assert "data.demonstrations is missing" in faults
    assert "'name' is missing" in "\n".join(faults_of(tmp_path, "model: ./base\ndata: {}\n"))


def test_what_the_trainer_itself_refuses_is_a_fault_of_its_section(tmp_path):
    assert faults_of(tmp_path, GOOD.replace("2e-5", "-1.0")) == [
        f"{tmp_path / 'recipe.yaml'}:6: sft: learning_rate must be positive"
    ]


def test_a_wrong_type_for_a_trainers_field_is_told(tmp_path):
    (fault,) = faults_of(tmp_path, GOOD.replace("2e-5", "fast"))
    assert ":7: sft.learning_rate: " in fault
    assert "given: 'fast'" in fault


def test_faults_of_the_command_line_say_so(tmp_path):
    assert faults_of(tmp_path, GOOD, ["sft.bta=1"])[0].startswith("command line: unknown key 'sft.bta'")
    assert "not of the form section.key=value" in faults_of(tmp_path, GOOD, ["sft"])[0]
    assert "there is no item 'ppo'" in faults_of(tmp_path, GOOD, ["align.ppo.beta=1"])[0]


def test_faults_are_in_plain_words(tmp_path):
    text = """name: my shop
model: ./base
seed: many
data: {demonstrations: demos.jsonl, prompts: prompts.jsonl, validation: 1.5}
sample: {responses_per_prompt: 10, temperature: 0, max_new_tokens: 1.5}
reward: {use_margin: perhaps, lora: {r: 0, target_modules: 3}}
align:
  - {method: grpo, name: My DPO}
  - three
compare: 3
sft: {num_train_epochs: two, eval_steps: [1]}
"""
    told = [fault.split(": ", 1)[1] for fault in faults_of(tmp_path, text)]
    assert told == [
        "name: must begin with a letter or digit and have only letters, digits, '_', '.' and '-' (given: 'my shop')",
        "seed: must be a whole number (given: 'many')",
        "data.validation: must be less than 1 (given: 1.5)",
        "sample.responses_per_prompt: must be at most 9 (given: 10)",
        "sample.temperature: must be more than 0 (given: 0)",
        "sample.max_new_tokens: must be a whole number (given: 1.5)",
        "reward.lora.r: must be at least 1 (given: 0)",
        "reward.lora.target_modules: must be text (given: 3)",
        "reward.lora.target_modules: must be a list (given: 3)",
        "reward.use_margin: must be true or false (given: 'perhaps')",
        "align.0.method: must be 'dpo' or 'ppo' (given: 'grpo')",
        "align.0.name: must begin with a small letter or digit and have only small letters, digits, '_' and '-' "
        "(given: 'My DPO')",
        "align.1: must be a section with keys of its own (given: 'three')",
        "compare: must be a section with keys of its own (given: 3)",
        "sft.num_train_epochs: must be a number (given: 'two')",
        "sft.eval_steps: must be a number (given: [1])",
    ]


def test_a_setting_by_another_name_leads_to_the_key(tmp_path):
    faults = "\n".join(faults_of(tmp_path, GOOD, ["sft.lr=1", "sft.epochs=2", "reward.lora.rank=4"]))
    for name, key in (("sft.lr", "learning_rate"), ("sft.epochs", "num_train_epochs"), ("reward.lora.rank", "r")):
        assert f"unknown key '{name}'; did you mean '{key}'?" in faults


def test_an_item_that_is_not_in_a_list_is_told_with_those_that_are(tmp_path):
    text = GOOD + "  - {method: ppo, name: second}\n"
    (fault,) = faults_of(tmp_path, text, ["align.grpo.beta=1"])
    assert fault.endswith("there is no item 'grpo' in this list; it has dpo, second")
    assert faults_of(tmp_path, GOOD.split("align:")[0] + "align: []\n", ["align.dpo.beta=1"])[0].endswith("it is empty")


def test_more_of_a_model_that_is_given_by_its_name_can_be_set(tmp_path):
    model = load(tmp_path, overrides=["model.pad_token=<pad>"]).model
    assert (model.name, model.pad_token) == (str(tmp_path / "base"), "<pad>")


def test_two_policies_of_one_name_and_reserved_names_are_refused(tmp_path):
    faults = faults_of(tmp_path, GOOD + "  - method: dpo\n  - {method: ppo, name: sft}\n")
    assert "two aligned policies are called 'dpo'" in faults[0]
    assert "'sft' is the folder of another stage" in faults[1]


def test_a_key_that_is_given_twice_hides_no_other_fault(tmp_path):
    faults = faults_of(tmp_path, GOOD.replace("prompts.jsonl", "nowhere.jsonl") + "name: again\nsft: {}\n")
    assert "there is no file" in faults[0]
    assert ":11: 'name' is given twice" in faults[1]
    assert ":12: 'sft' is given twice" in faults[2]
    assert len(faults) == 3


def test_of_a_section_that_is_given_twice_both_are_checked(tmp_path):
    text = GOOD.replace("learning_rate", "learning_rat").replace("beta", "bta")
    text += "sft:\n  num_train_epoch: 1\nalign:\n  - method: ppo\n    gamme: 1\n"
    faults = faults_of(tmp_path, text)
    lines = {7: "learning_rat", 10: "bta", 11: "sft", 12: "num_train_epoch", 13: "align", 15: "gamme"}
    assert len(faults) == len(lines)
    for fault, (line, key) in zip(faults, lines.items(), strict=True):
        assert fault.startswith(f"{tmp_path / 'recipe.yaml'}:{line}: ")
        assert f"{key}'" in fault


def test_faults_are_told_by_line_and_the_command_lines_first(tmp_path):
    text = GOOD.replace("name: shop", "name: sh op").replace("prompts.jsonl", "gone.jsonl")
    text = text.replace("2e-5", "fast").replace("method: dpo", "method: dpp")
    faults = faults_of(tmp_path, text + "seeds: 3\n", ["sft.beta=wide"])
    lines = [fault.split(":")[1] for fault in faults[1:]]
    assert faults[0].startswith("command line: sft.beta: ")
    assert lines == ["1", "5", "7", "9", "11"]


def test_yaml_faults_have_their_line(tmp_path):
    assert ":2: 'name' is given twice" in faults_of(tmp_path, "name: a\nname: b\n")[-1]
    assert ":2: not valid YAML" in faults_of(tmp_path, "name: a\n  b: [\n")[0]
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="not UTF-8 at byte 9"):
        load_recipe(tmp_path / "latin.yaml", trainers=TRAINERS)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "nowhere.yaml", trainers=TRAINERS)


def test_four_bits_need_an_adapter(tmp_path):
    (fault,) = faults_of(tmp_path, GOOD.replace("learning_rate: 2e-5", "load_in_4bit: true"))
    assert ":7: load_in_4bit needs `lora:`" in fault


def test_adaptation_and_corpus_go_together(tmp_path):
    assert "adapt needs raw text" in faults_of(tmp_path, GOOD + "adapt: {}\n")[0]
    with_corpus = GOOD.replace("  prompts:", "  corpus: demos.jsonl\n  prompts:")
    assert "add `adapt: {}`" in faults_of(tmp_path, with_corpus)[0]


def test_more_responses_than_can_be_ranked_are_refused(tmp_path):
    (fault,) = faults_of(tmp_path, GOOD + "sample: {responses_per_prompt: 5, policies: [sft, base]}\n")
    assert "at most 9 can be ranked at once" in fault


def test_a_store_file_is_relative_to_the_recipe(tmp_path):
    assert load(tmp_path, GOOD + "annotate: {store: judgements.db}\n").annotate.store == str(tmp_path / "judgements.db")
    url = "postgresql+psycopg://me@localhost/x"
    assert load(tmp_path, GOOD + f"annotate: {{store: '{url}'}}\n").annotate.store == url
