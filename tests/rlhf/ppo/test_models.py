"""Log-probabilities and values of packed tokens against the models' own plain forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

import rlhf.ppo.models
from plumbline.errors import UserError
from rlhf.ppo.generation import Response
from rlhf.ppo.models import TokenLogprobs, TokenValues
from rlhf.ppo.rollout import Rollout, state_values
from tests.rlhf.ppo.helpers import classifier_of, policy_of, trainer_for
from tests.tiny import tiny_model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
RESPONSES = [Response([20, 21, 0], False), Response([22, 23, 24, 25, 2], True), Response([26], True)]
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def rollout() -> Rollout:
    return Rollout.of_responses(0, PROMPTS, RESPONSES, torch.device("cpu"))


def expected_logprobs(model: Any, temperature: float) -> list[torch.Tensor]:
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = torch.tensor([prompt + response.tokens])
        logprobs = torch.log_softmax(model(ids).logits[0].float() / temperature, dim=-1)
        found.append(torch.stack([logprobs[len(prompt) - 1 + t, token] for t, token in enumerate(response.tokens)]))
    return found


@pytest.mark.parametrize("logits_at_once", [2**27, 400 * 2], ids=["one chunk", "chunks of two tokens"])
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
def test_logprobs_entropy_and_gradient(
    folder: Path, rows: list[int], logits_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlhf.ppo.models, "LOGITS_AT_ONCE", logits_at_once)
    model, made = policy_of(folder), rollout()
    batch = made.micro_batch(rows)
    logprobs, entropy = TokenLogprobs(model, 0.7)(batch.input_ids, batch.response_mask, with_entropy=True)
    expected = torch.cat([expected_logprobs(model, 0.7)[row] for row in rows])
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    probabilities = torch.distributions.Categorical(logits=model(batch.input_ids).logits / 0.7).entropy()
    torch.testing.assert_close(entropy, probabilities[:, :-1][batch.response_mask[:, 1:]], atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(logprobs.sum(), model.model.norm.weight)
    (by_hand,) = torch.autograd.grad(expected.sum(), model.model.norm.weight)
    torch.testing.assert_close(gradient, by_hand, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SHAPE, final_logit_softcapping=0.5),
        CohereConfig(**SHAPE, logit_scale=0.3),
        GraniteConfig(**SHAPE, logits_scaling=4.0),
        LlamaConfig(**SHAPE),
    ],
    ids=lambda config: config.model_type,
)
def test_families_that_change_their_logits(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(model.get_output_embeddings().weight)
    batch = rollout().micro_batch([0, 1, 2])
    found, _ = TokenLogprobs(model, 1.0)(batch.input_ids, batch.response_mask)
    torch.testing.assert_close(found, torch.cat(expected_logprobs(model, 1.0)), atol=1e-5, rtol=1e-5)


def test_a_family_that_changes_its_logits_in_an_unknown_way_is_refused(folder: Path) -> None:
    model = policy_of(folder)
    model.lm_head.register_forward_hook(lambda module, inputs, output: output)
    forward = model.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits + 1.0
        return output

    model.forward = changed
    with pytest.raises(UserError, match="changes its logits"):
        TokenLogprobs(model, 1.0)


def test_values_are_of_the_states_before_each_token_and_after_the_last(folder: Path) -> None:
    critic, made = classifier_of(folder), rollout()
    batch = made.micro_batch([2, 0, 1])
    before, after = state_values(TokenValues(critic)(batch.input_ids), batch)
    expected_before, expected_after = [], []
    for row in (2, 0, 1):
        ids = torch.tensor([PROMPTS[row] + RESPONSES[row].tokens])
        values = critic.score(critic.model(ids).last_hidden_state)[0, :, 0]
        start = len(PROMPTS[row]) - 1
        expected_before.append(values[start:-1])
        expected_after.append(values[-1])
    torch.testing.assert_close(before, torch.cat(expected_before), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after, torch.stack(expected_after), atol=1e-5, rtol=1e-5)


def test_packed_tokens_come_back_to_their_places() -> None:
    made = rollout()
    batch = made.micro_batch([2, 0])
    made.store(made.logprobs, batch, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert made.logprobs.tolist() == [[2.0, 3.0, 4.0, 0.0, 0.0], [0.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0]]
    assert made.packed(made.logprobs, made.micro_batch([0, 1])).tolist() == [2.0, 3.0, 4.0] + [0.0] * 5


def advantages(made: Rollout, *, bootstrap: bool) -> torch.Tensor:
    made.estimate_advantages(
        torch.zeros(3),
        kl_coef=0.0,
        kl_estimator="k1",
        missing_eos_penalty=None,
        bootstrap_truncated=bootstrap,
        whiten_rewards=False,
        gamma=1.0,
        lam=1.0,
        reduce=lambda tensor: tensor,
    )
    return made.returns


def test_truncated_responses_are_over_or_go_on_by_the_stated_rule() -> None:
    made = rollout()
    made.final_values = torch.tensor([5.0, 6.0, 7.0])
    assert (advantages(made, bootstrap=False) == 0).all()
    returns = advantages(made, bootstrap=True)
    assert returns[0, :3].tolist() == [5.0, 5.0, 5.0], "the first response did not end"
    assert (returns[1:] == 0).all()


def test_the_folder_of_an_adapter_is_merged_and_trained(folder: Path, tmp_path: Path) -> None:
    """PEFT freezes the base that it puts an adapter on; a merged policy that stays frozen would never change."""
    adapter = get_peft_model(policy_of(folder), LoraConfig(r=2, task_type="CAUSAL_LM"))
    adapter.peft_config["default"].base_model_name_or_path = str(folder)
    adapter.save_pretrained(tmp_path / "adapter")
    trainer = trainer_for(folder, tmp_path / "out", model=tmp_path / "adapter")
    before = {name: tensor.clone() for name, tensor in trainer.model.policy.named_parameters()}
    trainer.train()
    assert not any(torch.equal(tensor, before[name]) for name, tensor in trainer.model.policy.named_parameters())
