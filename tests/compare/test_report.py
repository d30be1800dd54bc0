"""The win rate at equal length where few responses are of equal length, and the report's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbline.compare.replies import Replies
from plumbline.compare.report import write_report
from plumbline.compare.results import comparisons, policy_metrics
from plumbline.datafiles import PromptRow
from plumbline.preferences.arena_votes import Vote
from plumbline.preferences.leaderboard import leaderboard
from tests.tiny import user

PROMPTS = 20


def replies(policy: str, words: list[int]) -> Replies:
    """One response of so many words to each prompt; the utility is any."""
    lengths = np.array(words, dtype=float)[:, None]
    scores = np.random.default_rng(len(policy)).normal(size=lengths.shape)
    texts = [["word " * count] for count in words]
    none = np.zeros_like(lengths)
    return Replies(policy, "a" * 64, texts, lengths, lengths, lengths > 0, [], none, scores={"utility": scores})


def compared(similar: int) -> tuple[dict[str, Replies], dict[str, Any]]:
    """A policy over a baseline that is three times as long, but for the first `similar` prompts."""
    own = {
        "sft": replies("sft", [20] * PROMPTS),
        "base": replies("base", [20] * similar + [60] * (PROMPTS - similar)),
    }
    rates, by_length = comparisons(own, ["sft", "base"], resamples=50, seed=1)
    metrics = {name: policy_metrics(one, "sft", resamples=50, seed=1) for name, one in own.items()}
    return own, {"comparisons": rates, "length_control": by_length, "policies": metrics}


def report(similar: int, folder: Path, **facts: Any) -> str:
    own, results = compared(similar)
    settings = {"temperature": 1.0, "max_new_tokens": 64, "bootstrap": 50, "seed": 1, "utility_file": "utility.yaml"}
    results["meta"] = settings | {
        "run": "tiny",
        "domain": "shop",
        "prompts": PROMPTS,
        "responses_per_prompt": 1,
        "baselines": ["sft", "base"],
        "utility_hash": "b" * 64,
        "simulated": True,
        "simulated_share": 1.0,
        "models": {},
        "versions": {},
    }
    prompts = [PromptRow(user(f"question {number}")) for number in range(PROMPTS)]
    write_report(results, own, prompts, folder, shown=1, seed=1, facts=facts)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("similar", "extrapolated"), [(0, True), (1, True), (2, False), (PROMPTS, False)])
def test_equal_length_is_extrapolated_below_a_tenth_of_similar_pairs(similar: int, extrapolated: bool) -> None:
    (row,) = compared(similar)[1]["length_control"]
    assert row["extrapolated"] is extrapolated
    assert [one["pairs"] for one in row["bins"]] == [PROMPTS - similar, similar, 0]


def test_the_report_shows_no_figure_that_no_data_support(tmp_path: Path) -> None:
    note = "fewer than 10% of the pairs are similar in length, too few to tell"
    supported = report(2, tmp_path)
    assert note not in supported
    extrapolated = report(1, tmp_path)
    assert note in " ".join(extrapolated.split())
    row = extrapolated.split("SFT over base</th>")[1].split("</tr>")[0]
    assert row.count("(") == 0, "no interval at equal length"
    assert supported.split("SFT over base</th>")[1].split("</tr>")[0].count("(") == 1


def test_votes_of_the_arena_are_in_the_report(tmp_path):
    votes = [Vote("Anna", f"p{number}", "dpo", "sft", 1.0 if number % 8 else 0.5) for number in range(60)]
    page = report(PROMPTS, tmp_path, arena=leaderboard(votes, baseline="sft", cap=50, margin=0.05, resamples=50))
    assert "50 votes of 1" in page
    assert "dpo is better than sft for the one annotator who voted" in page
    assert "DPO over SFT" in page
    assert "in the arena" not in report(PROMPTS, tmp_path)
