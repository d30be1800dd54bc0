"""Scores from models, objects and functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plumbline.errors import UserError
from rlhf.ppo.rewards import SILENCE, CombinedRewards, Episodes, ModelReward, ScorerReward, make_reward
from tests.rlhf.ppo.helpers import classifier_of, trainer_for
from tests.tiny import tiny_model, tiny_tokenizer, user

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]
RESPONSES = [[20, 21], [22, 23, 24, 25, 2], [26]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def episodes(prompts: list[Any] | None = None, responses: list[str] | None = None, **columns: list[Any]) -> Episodes:
    tokenizer = tiny_tokenizer()
    texts = responses if responses is not None else tokenizer.batch_decode(RESPONSES, skip_special_tokens=True)
    given = prompts or [user(text) for text in ("one", "two", "three")]
    return Episodes(given, PROMPTS, RESPONSES, texts, columns)


@pytest.mark.parametrize("pad", [0, 2, None], ids=["pad", "pad is eos", "no pad"])
def test_a_model_reads_the_last_token_whatever_the_padding(folder: Path, pad: int | None) -> None:
    model = classifier_of(folder)
    model.config.pad_token_id = pad
    scores = ModelReward(model, rows=2)(episodes())
    for prompt, response, score in zip(PROMPTS, RESPONSES, scores, strict=True):
        hidden = model.model(torch.tensor([prompt + response])).last_hidden_state
        torch.testing.assert_close(score, model.score(hidden[0, -1]).squeeze(), atol=1e-5, rtol=0)


def test_a_model_with_its_own_tokenizer_reads_the_text_anew(folder: Path) -> None:
    model, tokenizer = classifier_of(folder), tiny_tokenizer(vocab_size=300)
    found = ModelReward(model, tokenizer)(episodes(responses=["yes", "no", "red"]))
    for text, answer, score in zip(("one", "two", "three"), ("yes", "no", "red"), found, strict=True):
        messages = [*user(text), {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        expected = model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).squeeze()
        torch.testing.assert_close(score, expected, atol=1e-5, rtol=0)


class Lengths:
    """A scorer that counts the characters of the response."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, conversations: list[Any]) -> torch.Tensor:
        self.seen = list(conversations)
        return torch.tensor([len(messages[-1]["content"]) for messages in conversations])


def test_a_scorer_gets_whole_conversations_and_never_an_empty_turn() -> None:
    scorer = Lengths()
    prompts = [user("one"), "two", user("three")]
    found = make_reward(scorer)(episodes(prompts, ["yes", " ", "green"]))
    assert found.tolist() == [3.0, float(len(SILENCE)), 5.0]
    assert scorer.seen[1] == [{"role": "user", "content": "two"}, {"role": "assistant", "content": SILENCE}]


def test_scores_with_a_graph_behind_them_are_learned_from(folder: Path, tmp_path: Path) -> None:
    """Of a scorer that does not switch gradients off: several micro-batches must not go back through it."""

    class Weighted(Lengths):
        weight = torch.ones((), requires_grad=True)

        def score(self, conversations: list[Any]) -> torch.Tensor:
            return self.weight * super().score(conversations)

    trainer = trainer_for(folder, tmp_path, reward_model=Weighted(), settings={"total_episodes": 8})
    trainer.train()
    assert trainer.state.global_step == 4
    assert Weighted.weight.grad is None


def test_a_response_too_long_for_the_scorer_is_cut(folder: Path) -> None:
    from reward import RewardModel

    model = classifier_of(folder)
    model.config.max_position_embeddings = 32
    scores = ScorerReward(RewardModel(model, tiny_tokenizer()))(episodes(responses=["fine", "x " * 200, "also fine"]))
    assert torch.isfinite(scores).all()


def test_a_function_gets_the_columns() -> None:
    def reward(prompts: list[Any], completions: list[Any], wanted: list[float], **rest: Any) -> list[float]:
        assert completions[0] == [{"role": "assistant", "content": "a"}]
        return wanted

    found = make_reward(reward)(episodes(responses=["a", "b", "c"], wanted=[1.0, 2.0, 3.0]))
    assert found.tolist() == [1.0, 2.0, 3.0]


def test_rewards_are_weighted_and_must_be_finite() -> None:
    one = make_reward(lambda **columns: [1.0, 2.0, 3.0])
    bad = make_reward(lambda **columns: [0.0, float("inf"), 0.0])
    assert CombinedRewards([one, one], [1.0, 0.5])(episodes()).tolist() == [1.5, 3.0, 4.5]
    with pytest.raises(UserError, match=r"is inf: prompt .*two.*, response 'no'"):
        CombinedRewards([bad])(episodes(responses=["yes", "no", "red"]))


def test_a_classifier_with_several_labels_is_refused(folder: Path) -> None:
    model = classifier_of(folder)
    model.config.num_labels = 2
    with pytest.raises(UserError, match="2 labels"):
        make_reward(model)
