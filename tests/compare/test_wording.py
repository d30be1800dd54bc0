"""The report's sentences."""

from __future__ import annotations

from typing import Any

import pytest

from plumbline.compare.wording import banner, doubt_of_the_judge, label, percent, verdicts


def results(low: float, rate: float, high: float, ties: float = 0.0) -> dict[str, Any]:
    """A comparison of PPO with SFT by utility; the reward model says 60%."""
    pair = {"policy": "ppo", "baseline": "sft"}
    return {
        "comparisons": [
            {**pair, "judge": "utility", "n": 120, "win_rate": rate, "low": low, "high": high, "ties": ties},
            {**pair, "judge": "reward", "n": 120, "win_rate": 0.6, "low": 0.51, "high": 0.69, "ties": 0.0},
        ],
        "length_control": [
            {**pair, "judge": judge, "win_rate": 0.7, "low": 0.6, "high": 0.8} for judge in ("utility", "reward")
        ],
        "policies": {"sft": {"words_mean": 20.2}, "ppo": {"words_mean": 31.8}},
        "meta": {"baselines": ["sft"], "responses_per_prompt": 1},
    }


def test_the_verdict_names_share_prompts_interval_and_judge() -> None:
    (verdict,) = verdicts(results(0.71, 0.78, 0.84), ["utility", "reward"])
    assert verdict.kind == "better"
    assert verdict.head == (
        "PPO’s win rate over SFT is 78% on 120 prompts (95% interval 71–84%) by the simulated annotators’ utility."
    )
    assert verdict.more == [
        "Its reply was better in 78% and worse in 22%.",
        "At equal length it would be 70% (60–80%); its replies have 32 words on average, SFT’s 20.",
        "It is 60% (51–69%) by a reward model that no policy was trained against.",
    ]


def test_without_replies_of_similar_length_nothing_is_said_at_equal_length() -> None:
    found = results(0.71, 0.78, 0.84)
    found["length_control"][0]["extrapolated"] = True
    (verdict,) = verdicts(found, ["utility"])
    assert verdict.more[1].startswith("Too few replies are similar in length")


def test_ties_are_not_called_preferred() -> None:
    (verdict,) = verdicts(results(0.61, 0.67, 0.73, ties=0.26), ["utility"])
    assert verdict.more[0] == "Its reply was better in 54%, equal in 26% (a tie counts half) and worse in 20%."


@pytest.mark.parametrize(
    ("interval", "kind"), [((0.45, 0.53, 0.61), "open"), ((0.2, 0.3, 0.4), "worse"), ((0.5, 0.6, 0.7), "open")]
)
def test_an_interval_with_one_half_in_it_decides_nothing(interval: tuple[float, float, float], kind: str) -> None:
    assert verdicts(results(*interval), ["utility"])[0].kind == kind


DOUBT = (
    "The reward model agrees with 68% of its held-out preference pairs, 95% interval 46–84%: it may be guessing, so "
    "its win rates are weak evidence."
)


@pytest.mark.parametrize(
    ("judges", "low", "kind", "doubted"),
    [
        (["utility", "reward"], 0.46, "better", True),
        (["utility", "reward"], 0.54, "better", False),
        (["utility"], 0.46, "better", False),
        (["reward"], 0.46, "weak", True),
        (["reward"], 0.54, "better", False),
    ],
)
def test_a_judge_that_may_be_guessing_is_doubted(judges: list[str], low: float, kind: str, doubted: bool) -> None:
    found = results(0.71, 0.78, 0.84)
    found["meta"]["judge_accuracy"] = {"accuracy": 0.68, "low": low, "high": 0.84}
    (verdict,) = verdicts(found, judges)
    assert verdict.kind == kind
    assert (DOUBT in verdict.more) == doubted
    assert (doubt_of_the_judge(found["meta"]) is not None) == (low < 0.5)


def test_what_a_guessing_judge_calls_worse_is_not_called_worse_in_words() -> None:
    found = results(0.71, 0.78, 0.84)
    found["comparisons"][1] |= {"win_rate": 0.3, "low": 0.2, "high": 0.4}
    found["meta"]["judge_accuracy"] = {"accuracy": 0.68, "low": 0.46, "high": 0.84}
    (verdict,) = verdicts(found, ["reward"])
    assert verdict.kind == "weak"
    assert not any("worse than" in sentence for sentence in verdict.more)


@pytest.mark.parametrize(("longer", "doubted"), [(0.64, True), (0.52, True), (0.51, False)])
def test_a_judge_that_may_have_learned_length_alone_is_doubted(longer: float, doubted: bool) -> None:
    found = results(0.71, 0.78, 0.84)
    found["meta"]["judge_accuracy"] = {"accuracy": 0.74, "low": 0.52, "high": 0.88, "length_accuracy": longer}
    (verdict,) = verdicts(found, ["reward"])
    assert verdict.kind == "better"
    assert any("look at its win rates at equal length" in sentence for sentence in verdict.more) == doubted


def test_shares_are_never_rounded_to_certainty() -> None:
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0%", "under 1%", "50%", "over 99%", "100%"]


def test_names_and_banner() -> None:
    assert [label(name) for name in ("dpo", "sft", "my-dpo")] == ["DPO", "SFT", "my-dpo"]
    assert banner({"simulated": False, "simulated_share": 0.0}) is None
    assert "not by people" in (banner({"simulated": True, "simulated_share": 1.0}) or "")
    assert "stated utility" in (banner({"simulated": True, "simulated_share": None}) or "")
