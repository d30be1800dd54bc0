"""The arithmetic of PPO against sums by hand and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.ppo.core import (
    KLController,
    RunningMoments,
    end_token_scores,
    generalized_advantage_estimation,
    masked_mean,
    masked_whiten,
    per_token_kl,
    policy_loss,
    token_rewards,
    value_loss,
)


def padded(lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    rewards, values = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return rewards, values, mask  # padding holds rubbish on purpose


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    gamma=st.sampled_from([1.0, 0.9, 0.0]),
    lam=st.sampled_from([1.0, 0.95, 0.0]),
    bootstrap=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gae_is_the_discounted_sum_of_deltas(
    lengths: list[int], gamma: float, lam: float, bootstrap: bool, seed: int
) -> None:
    rewards, values, mask = padded(lengths, seed)
    final = torch.arange(1.0, len(lengths) + 1, dtype=torch.float64)
    advantages, returns = generalized_advantage_estimation(
        rewards, values, mask, gamma=gamma, lam=lam, final_values=final if bootstrap else None
    )
    for row, length in enumerate(lengths):
        v = [*values[row, :length].tolist(), final[row].item() if bootstrap else 0.0]
        deltas = [rewards[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-9)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-9)
        assert (advantages[row, length:] == 0).all()


def test_gae_with_lambda_one_is_return_minus_value() -> None:
    rewards, values, mask = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.2, 0.5, 0.6]]), torch.ones(1, 3)
    advantages, returns = generalized_advantage_estimation(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.0, 1.0, 1.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[0.8, 0.5, 0.4]]))


def test_policy_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    old = torch.zeros(4)
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    found = policy_loss(ratio.log(), old, advantages, cliprange=0.2)
    # A>0 gains nothing past 1.2; A<0 is punished for the whole ratio; and the other way round below 0.8.
    torch.testing.assert_close(found.loss, torch.tensor([-1.2, 1.5, -0.5, 0.8]))
    assert found.clipped.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_policy_loss_has_no_gradient_where_it_is_clipped() -> None:
    logprobs = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
    policy_loss(logprobs, torch.zeros(2), torch.ones(2), cliprange=0.2).loss.sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -1.1]))


def test_clip_higher_lets_good_tokens_gain_more() -> None:
    old, ratio = torch.zeros(4), torch.tensor([1.25, 1.5, 0.7, 1.5])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    found = policy_loss(ratio.log(), old, advantages, cliprange=0.2, cliprange_high=0.28)
    # Up to 1.28 for A>0; the lower bound stays at 0.8; A<0 is still punished for the whole ratio above it.
    torch.testing.assert_close(found.loss, torch.tensor([-1.25, -1.28, 0.8, 1.5]))
    assert found.clipped.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_dual_clip_bounds_the_punishment_of_bad_tokens() -> None:
    logprobs = torch.tensor([5.0, 5.0, 2.9, 0.5]).log().requires_grad_()
    advantages = torch.tensor([-2.0, 2.0, -2.0, -2.0])
    found = policy_loss(logprobs, torch.zeros(4), advantages, cliprange=0.2, dual_clip=3.0)
    # A<0 is punished for a ratio of 3 at most; A>0 is clipped at 1.2 as ever, and A<0 at 0.8 from below.
    torch.testing.assert_close(found.loss.detach(), torch.tensor([6.0, -2.4, 5.8, 1.6]))
    assert found.clipped.tolist() == [1.0, 1.0, 0.0, 1.0]
    found.loss.sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 0.0, 5.8, 0.0]))


def test_value_loss_by_hand() -> None:
    values, old, returns = torch.tensor([1.0, 0.3, 2.0]), torch.tensor([0.0, 0.2, 2.1]), torch.tensor([2.0, 0.0, 3.0])
    found = value_loss(values, old, returns, cliprange_value=0.2)
    # 1.0 counts as 0.2: (0.2 − 2)² > (1 − 2)²; 0.3 and 2.0 lie within ±0.2 of the old value.
    torch.testing.assert_close(found.loss, 0.5 * torch.tensor([1.8**2, 0.3**2, 1.0]))
    assert found.clipped.tolist() == [1.0, 0.0, 0.0]


def test_kl_estimators() -> None:
    logprobs, reference = torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -0.5])
    torch.testing.assert_close(per_token_kl(logprobs, reference, "k1"), torch.tensor([0.5, -0.5]))
    expected = torch.tensor([math.exp(-0.5) - 1 + 0.5, math.exp(0.5) - 1 - 0.5])
    torch.testing.assert_close(per_token_kl(logprobs, reference, "k3"), expected)


def test_score_lands_on_the_last_token() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.0, 0.0]])
    rewards = token_rewards(kl, torch.tensor([2.0, -1.0]), torch.tensor([2, 1]), kl_coef=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 1.9, 0.0], [-1.15, 0.0, 0.0]]))


def test_end_token_penalty_only_for_responses_that_did_not_end() -> None:
    scores, ended = torch.tensor([1.0, 2.0]), torch.tensor([True, False])
    assert end_token_scores(scores, ended, 3.0).tolist() == [1.0, -1.0]
    assert end_token_scores(scores, ended, None).tolist() == [1.0, 2.0]


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_whitening_is_the_plain_one_of_the_real_tokens(lengths: list[int], seed: int) -> None:
    values, _, mask = padded(lengths, seed)
    real = values[mask]
    whitened = masked_whiten(values, mask)
    torch.testing.assert_close(whitened[mask], (real - real.mean()) / (real.var() + 1e-8).sqrt())
    assert (whitened[~mask] == 0).all()
    kept = masked_whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept[mask].mean(), real.mean())
    torch.testing.assert_close(masked_mean(values, mask), real.mean())


def test_whitening_over_processes_is_that_of_all_tokens_together() -> None:
    values, _, mask = padded([3, 1, 4, 2], 7)
    together = masked_whiten(values, mask)
    one, other = slice(0, 2), slice(2, 4)
    sums: list[torch.Tensor] = []

    def other_process(tensor: torch.Tensor) -> torch.Tensor:
        sums.append(tensor)
        return tensor

    masked_whiten(values[other], mask[other], reduce=other_process)
    # The other process' sums depend on the mean of both, so they are made again with that mean in the second call.
    mean = masked_mean(values, mask)
    deviation = (values[other] - mean) * mask[other]
    answers = iter([sums[0], torch.stack([deviation.square().sum(), mask[other].sum().to(values.dtype)])])
    alone = masked_whiten(values[one], mask[one], reduce=lambda tensor: tensor + next(answers))
    torch.testing.assert_close(alone, together[one])


def test_one_token_whitens_to_zero_not_to_nan() -> None:
    assert masked_whiten(torch.tensor([[3.0]]), torch.tensor([[True]])).tolist() == [[0.0]]


def test_adaptive_kl_follows_its_formula_and_fixed_stays() -> None:
    controller = KLController(0.1, target=6.0, horizon=1000)
    controller.update(kl=12.0, episodes=100)  # error clipped to 0.2
    assert controller.coefficient == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    controller.update(kl=5.4, episodes=100)  # error −0.1
    assert controller.coefficient == pytest.approx(0.1 * 1.02 * 0.99)
    fixed = KLController(0.1)
    fixed.update(kl=100.0, episodes=1000)
    assert fixed.coefficient == 0.1


def test_running_moments_are_those_of_all_scores() -> None:
    moments, batches = RunningMoments(), [torch.tensor([1.0, 2.0]), torch.tensor([10.0]), torch.tensor([-3.0, 4.0])]
    for batch in batches:
        moments.update(batch)
    together = torch.cat(batches)
    assert moments.mean == pytest.approx(together.mean().item())
    assert moments.std == pytest.approx(together.std().item())
    torch.testing.assert_close(moments.normalise(together), (together - together.mean()) / together.std())
