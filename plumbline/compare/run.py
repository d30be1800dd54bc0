"""The comparison's flow: sample, measure, judge, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.compare.replies import Replies, gather_replies, judge_replies, measure_kl
from plumbline.compare.report import write_report
from plumbline.compare.results import comparisons, policy_metrics
from plumbline.compare.samples import write_samples
from plumbline.conversations import prompt_key
from plumbline.datafiles import PromptRow
from plumbline.errors import MismatchError, UserError
from plumbline.models import identify
from plumbline.runs import hash_file, library_versions

if TYPE_CHECKING:
    from plumbline.recipe import CompareSection

RESULTS = "results.json"


def compare(
    policies: dict[str, Path],
    *,
    baselines: list[str],
    judge: Path | None,
    utility: Path | None,
    prompts: Sequence[PromptRow],
    section: CompareSection,
    folder: Path,
    scratch: Path,
    seed: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Compare policies with baselines; write `results.json`, `samples.parquet` and `report.html` into `folder`.

    Args:
        policies: model folders by name; the baselines are among them.
        baselines: names of the policies to compare with. The first one is the report's, and the KL is measured to it.
        judge: a reward model that no policy was optimised against; None leaves its judgement out.
        utility: a utility file, where the judgements come from simulated annotators; None where no utility is known.
        prompts: that no stage saw. Of prompts with the same key the first counts.
        section: how to sample and to resample.
        folder: where the files go.
        scratch: where finished batches of the sampling are kept.
        seed: of everything random.
        facts: what the report says about the run: `run`, `domain`, `base_model`, `simulated_share`, `judge_hash`,
            `reward_hash`, `judge_metrics`, `lineage` (lines), `methods`, `watch_metrics`, `watched` (a sentence by
            policy), `arena` (the arena's leaderboard); each may be missing.

    Returns:
        The win rates and their intervals as a flat dictionary, and the number of prompts.

    Raises:
        UserError: nothing can judge, a baseline is not among the policies, or a policy cannot answer a prompt.
        MismatchError: the judge is the reward model that a policy was optimised against.
    """
    _check(policies, baselines, judge, utility, facts)
    rows = chosen_prompts(prompts, section.prompts)
    replies = gather_replies(policies, rows, section, scratch, seed=seed)
    measure_kl(replies, policies, baselines[0], section)
    judge_replies(replies, rows, judge, utility, section.batch_tokens)
    rates, by_length = comparisons(replies, baselines, resamples=section.bootstrap, seed=seed)
    results = {
        "comparisons": rates,
        "policies": {
            name: policy_metrics(own, baselines[0], resamples=section.bootstrap, seed=seed)
            for name, own in replies.items()
        },
        "length_control": by_length,
        "meta": _meta(replies, baselines, judge, utility, len(rows), section, seed, facts),
    }
    if facts.get("arena"):
        results["arena"] = facts["arena"]
    (folder / RESULTS).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_samples(replies, rows, folder)
    write_report(results, replies, rows, folder, shown=section.samples_shown, seed=seed, facts=facts)
    return _flat(results)


def _check(
    policies: dict[str, Path], baselines: list[str], judge: Path | None, utility: Path | None, facts: dict[str, Any]
) -> None:
    missing = [name for name in baselines if name not in policies]
    if missing or not baselines:
        raise UserError(
            f"the comparison has no policy called {', '.join(missing) or 'a baseline'}: "
            f"name baselines among {', '.join(policies)}."
        )
    if judge is None and utility is None:
        raise UserError(
            "nothing can judge the comparison: set reward.judge_share above 0, so that a reward model is trained on "
            "preferences that no policy learned from."
        )
    if judge is not None and facts.get("reward_hash"):
        judges = {facts.get("judge_hash"), identify(judge).weights_hash}
        if facts["reward_hash"] in judges:
            raise MismatchError(
                f"the judge {judge} and the reward model that PPO optimised are the same model "
                f"({facts['reward_hash'][:12]}): a policy is not judged by what it was trained to please. Train a "
                "judge on another part of the preferences (reward.judge_share above 0)."
            )


def chosen_prompts(prompts: Sequence[PromptRow], limit: int | None) -> list[PromptRow]:
    """Each prompt once, in the order of its key, so that the first `limit` of them are a random draw that stays."""
    by_key: dict[str, PromptRow] = {}
    for row in prompts:
        by_key.setdefault(prompt_key(row.prompt), row)
    return [by_key[key] for key in sorted(by_key)][:limit]


def _meta(
    replies: dict[str, Replies],
    baselines: list[str],
    judge: Path | None,
    utility: Path | None,
    prompts: int,
    section: CompareSection,
    seed: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    share = facts.get("simulated_share")
    return {
        "run": facts.get("run"),
        "domain": facts.get("domain"),
        "seed": seed,
        "prompts": prompts,
        "responses_per_prompt": section.responses_per_prompt,
        "temperature": section.temperature,
        "max_new_tokens": section.max_new_tokens,
        "bootstrap": section.bootstrap,
        "confidence": 0.95,
        "baselines": baselines,
        "judge_hash": identify(judge).weights_hash if judge else None,
        "judge_accuracy": _judge_accuracy(facts.get("judge_metrics", {})) if judge else None,
        "utility_file": utility.name if utility else None,
        "utility_hash": hash_file(utility) if utility else None,
        "simulated": bool(share) or utility is not None,
        "simulated_share": share,
        "models": {name: own.weights_hash for name, own in replies.items()},
        "versions": library_versions(),
    }


def _judge_accuracy(metrics: dict[str, Any]) -> dict[str, float] | None:
    """How often the judge agrees with preferences that it was not trained on; None where that was not measured.

    `length_accuracy` is how often preferring the longer response agrees with them.
    """
    if "accuracy_low" not in metrics:
        return None
    names = {
        "accuracy": "accuracy",
        "low": "accuracy_low",
        "high": "accuracy_high",
        "length_accuracy": "length_accuracy",
    }
    return {name: metrics[metric] for name, metric in names.items() if metric in metrics}


def _flat(results: dict[str, Any]) -> dict[str, Any]:
    metrics: dict[str, Any] = {"prompts": results["meta"]["prompts"]}
    for row in results["comparisons"]:
        name = f"{row['policy']}_over_{row['baseline']}_{row['judge']}"
        metrics |= {name: row["win_rate"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    return metrics
