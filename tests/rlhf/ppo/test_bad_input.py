"""Bad input of `PPOTrainer` and of the chain's stage ends in one clear sentence, before training where it can.

What `plumbline check` and `run` refuse of a recipe is in `tests/test_bad_input.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import BertConfig, BertForSequenceClassification

from plumbline.errors import UserError
from plumbline.recipe import AlignSection
from rlhf.ppo import train_ppo
from tests.rlhf.ppo.helpers import classifier_of, conversations, policy_of, trainer_for
from tests.tiny import tiny_model, tiny_tokenizer, user
from tests.training_helpers import folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def reward_folder(model: Any, folder: Path, vocab_size: int = 400) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer(vocab_size=vocab_size).save_pretrained(folder)
    return folder


# Rewards that are no number: the run stops, and the response is shown


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf"), None])
def test_a_reward_that_is_no_number_stops_with_the_response(folder: Path, tmp_path: Path, score: float | None) -> None:
    seen: list[Any] = []

    def reward(completions: list[Any], **columns: Any) -> list[float | None]:
        seen.extend(message[0]["content"] for message in completions)
        return [0.5] * (len(completions) - 1) + [score]

    trainer = trainer_for(folder, tmp_path, reward_model=reward)
    with pytest.raises(UserError, match="reward of a response is") as told:
        trainer.train()
    shown = "nan" if score is None else str(score)
    assert f"is {shown}: prompt" in str(told.value)
    assert f"response {seen[-1]!r}" in str(told.value)
    assert trainer.state.global_step == 0 and len(seen) == 8, "nothing was learned from it"


def test_a_reward_model_of_nan_stops_with_the_response(folder: Path, tmp_path: Path) -> None:
    reward = classifier_of(folder)
    reward.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"reward of a response is nan: prompt .*, response '"):
        trainer_for(folder, tmp_path, reward_model=reward).train()


def test_a_reward_model_of_nan_stops_the_stage_with_the_response(folder: Path, tmp_path: Path) -> None:
    reward = classifier_of(folder)
    reward.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"reward of a response is nan: prompt .*, response '"):
        stage(folder, reward_folder(reward, tmp_path / "reward"), tmp_path)


def test_a_reward_of_nan_at_the_evaluation_stops_too(folder: Path, tmp_path: Path) -> None:
    def reward(prompts: list[Any], **columns: Any) -> list[float]:
        return [float("nan") if prompt == user("held out") else 0.0 for prompt in prompts]

    held_out = Dataset.from_list([{"prompt": user("held out")}])
    settings = {"eval_strategy": "steps", "eval_steps": 4}
    with pytest.raises(UserError, match=r"is nan: prompt .*held out.*, response '"):
        trainer_for(folder, tmp_path, reward_model=reward, eval_dataset=held_out, settings=settings).train()


def test_a_policy_that_has_become_nan_stops_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    policy = policy_of(folder)
    policy.model.norm.weight.data.fill_(float("nan"))
    trainer = trainer_for(folder, tmp_path)
    trainer.model.policy.model.load_state_dict(policy.state_dict())
    with pytest.raises(UserError, match=r"the policy's logits are NaN.*lower learning_rate"):
        trainer.train()


# Prompts: refused by the constructor, with their row


@pytest.mark.parametrize("which", ["train_dataset", "eval_dataset"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "Hello"}, {"prompt": ""}], "row 2: the prompt is empty"),
        ([{"input_ids": [5, 6]}, {"input_ids": []}], "row 2: the prompt is empty"),
        ([{"prompt": user("Hello")}, {"prompt": user(" ")}], "row 2: message 1: the user's content is empty"),
        ([{"prompt": user("Hello")}, {"prompt": []}], "row 2: expected a list of messages"),
        (
            [{"input_ids": [5] * 250}, {"input_ids": [5] * 251}],
            "row 2: the prompt has 251 tokens; with response_length 6",
        ),
        (
            [{"input_ids": [5, 399]}, {"input_ids": [5, 400]}],
            "row 2: the prompt has tokens from 5 to 400, the policy's",
        ),
        ([{"input_ids": [5]}, {"input_ids": [-100, 5]}], "row 2: the prompt has tokens from -100"),
    ],
    ids=["text", "no tokens", "message", "no message", "too long", "unknown token", "negative token"],
)
def test_prompts_that_cannot_be_answered_are_refused(
    folder: Path, tmp_path: Path, which: str, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(UserError, match=f"{which}, {message}"):
        trainer_for(folder, tmp_path, **{which: Dataset.from_list(rows)})


def test_the_stage_refuses_an_empty_prompt(folder: Path, tmp_path: Path) -> None:
    reward = reward_folder(classifier_of(folder), tmp_path / "reward")
    with pytest.raises(UserError, match="ppo, prompts, row 1: message 1: the user's content is empty"):
        stage(folder, reward, tmp_path, prompts=Dataset.from_list([{"prompt": user("")}]))


# Vocabularies


def test_models_over_other_vocabularies_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", vocab_size=500)
    differ = "the policy has a vocabulary of 400 and the {} one of 500: give a {} over the same tokenizer"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"reward_model": classifier_of(other)}, differ.format("reward model", "reward model")),
        ({"value_model": classifier_of(other)}, differ.format("value model", "value model")),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            trainer_for(folder, tmp_path, **arguments)


@pytest.mark.parametrize("how", ["folder", "model"])
def test_a_reward_model_that_cannot_read_its_own_tokenizer_is_refused(folder: Path, tmp_path: Path, how: str) -> None:
    small = classifier_of(tiny_model(tmp_path / "small", vocab_size=350))
    given: dict[str, Any] = {"reward_model": reward_folder(small, tmp_path / "reward")}
    if how == "model":
        given = {"reward_model": small, "reward_processing_classes": tiny_tokenizer(vocab_size=400)}
    with pytest.raises(UserError, match="has a vocabulary of 350 and its tokenizer one of 400"):
        trainer_for(folder, tmp_path, **given)
    if how == "folder":
        with pytest.raises(UserError, match="has a vocabulary of 350 and its tokenizer one of 400"):
            stage(folder, tmp_path / "reward", tmp_path)


def test_an_added_pad_token_beyond_the_table_is_no_fault(folder: Path, tmp_path: Path) -> None:
    """Many released models add a pad token and leave the table as it was; no text has that token."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|new pad|>"})
    assert len(tokenizer) == 401
    reward = classifier_of(folder)
    trainer_for(folder, tmp_path, reward_model=reward, reward_processing_classes=tokenizer).train()


def test_rewards_and_critics_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    reward = classifier_of(folder)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"reward_model": folder}, "is no reward model: it has no head `score`"),  # its head would be random
        ({"reward_model": []}, "reward_model is an empty list"),
        ({"reward_model": reward, "value_model": reward}, "value_model is the same object as reward_model"),
        ({"value_model": policy_of(folder)}, "value_model is LlamaForCausalLM, which has no head `score`"),
        ({"model": tmp_path / "none"}, "there is no folder"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            trainer_for(folder, tmp_path, **arguments)


def test_a_reward_function_that_gives_no_list_is_named(folder: Path, tmp_path: Path) -> None:
    def forgetful(**columns: Any) -> None:
        return None

    with pytest.raises(UserError, match="forgetful gave a NoneType for 8 responses: it must give a list"):
        trainer_for(folder, tmp_path, reward_model=forgetful).train()


def test_a_reward_model_without_a_score_head_is_refused(folder: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder = BertForSequenceClassification(BertConfig(vocab_size=400, num_labels=1, **shape))
    for model in (encoder, policy_of(folder)):
        with pytest.raises(UserError, match=f"reward_model is {type(model).__name__}, which has no head `score`"):
            trainer_for(folder, tmp_path, reward_model=model, reward_processing_classes=tiny_tokenizer())


# Settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"response_length": 0}, "response_length is 0: it must be at least 1"),
        ({"response_length": -3}, "response_length is -3: it must be at least 1"),
        ({"cliprange_high": 0.0}, "cliprange_high is 0.0: it must be above 0"),
        ({"dual_clip": 1.0}, "dual_clip is 1.0: it must be above 1"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0: it must be at least 1"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens is 0: it must be at least 1"),
        ({"num_mini_batches": 5}, "num_mini_batches is 5, which does not divide the"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0: it must be above 0"),
        ({"kl_coef": -0.1}, "kl_coef is -0.1: it must not be below 0"),
        ({"kl_coef": float("nan")}, "kl_coef is nan: it must not be below 0"),
        ({"kl_budget": float("nan")}, "kl_budget is nan: it must be above 0"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty is -1.0: it must not be below 0"),
        ({"value_warmup_rollouts": -1}, "value_warmup_rollouts is -1: it must not be below 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    folder: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_for(folder, tmp_path, settings=setting)
    reward = reward_folder(classifier_of(folder), tmp_path / "reward")
    with pytest.raises(UserError, match=f"ppo: {message}"):
        stage(folder, reward, tmp_path, **setting)


def test_a_metric_that_no_evaluation_gives_is_refused(folder: Path, tmp_path: Path) -> None:
    """The callback would only warn, and never end the run."""
    settings = {"eval_strategy": "steps", "early_stopping_patience": 2}
    refused = "metric_for_best_model is '{}', which no evaluation {}gives: take eval_"
    with pytest.raises(ValueError, match=refused.format("objective/score", "of PPO ")):
        trainer_for(folder, tmp_path, settings=settings | {"metric_for_best_model": "objective/score"})
    several: Any = {"one": conversations(2), "two": conversations(2)}
    with pytest.raises(UserError, match=refused.format("eval_objective/rlhf_reward", "") + "one_objective/scores"):
        trainer_for(folder, tmp_path, eval_dataset=several, settings=settings)  # the default is of a single dataset


def test_a_policy_without_trainable_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all weights of the policy are frozen"):
        trainer_for(folder, tmp_path, model=policy_of(folder).requires_grad_(False))


def test_weights_in_bfloat16_are_warned_of(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer_for(folder, tmp_path, model=policy_of(folder).bfloat16(), reward_model=classifier_of(folder))
    assert "The policy's weights are bfloat16" in caplog.text and "critic's" not in caplog.text
    caplog.clear()
    trainer_for(folder, tmp_path)
    trainer_for(folder, tmp_path, model=policy_of(folder).bfloat16(), peft_config=LoraConfig(r=2))
    assert "bfloat16" not in caplog.text, "adapters are in float32"


def test_prompts_in_the_format_of_torch_are_taken(folder: Path, tmp_path: Path) -> None:
    rows = Dataset.from_list([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]).with_format("torch")
    trainer = trainer_for(folder, tmp_path, train_dataset=rows)
    assert [trainer.prompts[index]["input_ids"] for index in (0, 1)] == [[5, 6, 7], [8]]


@pytest.mark.parametrize("token", [400, -1])
def test_a_stop_token_that_cannot_be_sampled_is_refused(folder: Path, tmp_path: Path, token: int) -> None:
    with pytest.raises(UserError, match=f"stop_token_id is {token}, which is not in the policy's vocabulary of 400"):
        trainer_for(folder, tmp_path, settings={"stop_token_id": token})


def stage(policy: Path, reward: Path, root: Path, *, prompts: Dataset | None = None, **settings: Any) -> dict[str, Any]:
    """The chain's PPO stage on a few prompts."""
    batch = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "total_episodes": 4}
    section = AlignSection(method="ppo", **{**batch, "response_length": 6, "save_strategy": "no", **settings})
    return train_ppo(policy, reward, prompts or conversations(), None, section, *folders(root), seed=3)


def test_an_output_folder_that_cannot_be_made_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output_dir .*file/run cannot be made \(Not a directory\): set another one"):
        trainer_for(folder, tmp_path / "file" / "run")
