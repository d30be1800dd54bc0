"""Log-probabilities, judges and lengths of responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plumbline.compare import metrics
from plumbline.compare.metrics import TokenRow, empty_as_worst, folded_words, response_log_probs, reward_scores
from plumbline.models import load_policy
from tests.tiny import tiny_model, user

ROWS = [TokenRow([5, 6, 7], [8, 9]), TokenRow([11] * 9, [3, 4, 5, 6]), TokenRow([12, 13], []), TokenRow([2], [40])]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_policy(tiny_model(tmp_path_factory.mktemp("model"))).to("cpu")


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probs_are_sums_over_the_response_alone(model: Any, temperature: float) -> None:
    expected = []
    for prompt, response in ROWS:
        log_probs = (model(input_ids=torch.tensor([prompt + response])).logits[0] / temperature).log_softmax(-1)
        expected.append(sum(float(log_probs[len(prompt) + i - 1, token]) for i, token in enumerate(response)))
    found = response_log_probs(model, ROWS, temperature=temperature, batch_tokens=1000)
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[2] == 0


def test_log_probs_do_not_depend_on_the_batches(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = response_log_probs(model, ROWS, temperature=1.0, batch_tokens=1000)
    assert response_log_probs(model, ROWS, temperature=1.0, batch_tokens=1) == pytest.approx(together, abs=1e-5)
    monkeypatch.setattr(metrics, "LOGITS", 1)
    assert response_log_probs(model, ROWS, temperature=1.0, batch_tokens=1000) == pytest.approx(together, abs=1e-5)


@torch.no_grad()
def test_k1_estimates_the_kl(tmp_path: Path, model: Any) -> None:
    """For one-token responses, weighting every token by its probability gives the exact KL of two models."""
    other = load_policy(tiny_model(tmp_path / "other", seed=9)).to("cpu")
    prompt, vocabulary = [5, 6, 7], model.config.vocab_size
    rows = [TokenRow(prompt, [token]) for token in range(vocabulary)]
    own, under_other = (response_log_probs(m, rows, temperature=1.0, batch_tokens=4096) for m in (model, other))
    logs = [m(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1) for m in (model, other)]
    exact = torch.nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction="sum")
    assert (np.exp(own) * (own - under_other)).sum() == pytest.approx(float(exact), abs=1e-5)
    assert exact > 0


class _LongestIsBest:
    def score(self, conversations: list[Any], *, batch_tokens: int) -> torch.Tensor:
        assert all(message["content"].strip() for turn in conversations for message in turn)
        return torch.tensor([float(len(turn[-1]["content"])) for turn in conversations])


def test_empty_responses_are_not_scored_and_count_as_the_worst() -> None:
    prompts: list[Any] = [user("a"), user("b")]
    judge: Any = _LongestIsBest()
    one = reward_scores(judge, prompts, [["xx", " "], ["xxx", "x"]], batch_tokens=100)
    assert np.isnan(one[0, 1])
    assert one[1].tolist() == [3, 1]
    filled = empty_as_worst({"one": one, "other": np.array([[-4.0], [np.nan]])})
    assert filled["one"].tolist() == [[2, -4], [3, 1]]
    assert filled["other"].tolist() == [[-4], [-4]]
    assert empty_as_worst({"none": np.array([[np.nan]])})["none"].tolist() == [[0]]


def test_words_for_distinct_n_have_no_case_and_no_punctuation() -> None:
    assert folded_words("Sorry, SORRY! It's late.") == ["sorry", "sorry", "it", "s", "late"]
