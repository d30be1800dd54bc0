"""The sentences of the report: what a win rate says, in words."""

from __future__ import annotations

from typing import Any, NamedTuple

JUDGES = {
    "utility": "by the simulated annotators’ utility",
    "reward": "by a reward model that no policy was trained against",
}


class Verdict(NamedTuple):
    """One aligned policy in words.

    Attributes:
        kind: `better`, `worse`, `open` (the interval holds 50%) or `weak` (judged by a judge that may be guessing).
        head: the sentence with the figure.
        more: what the other judge says, how far the reward model can be trusted, and how much of it is length.
    """

    kind: str
    head: str
    more: list[str]


def label(policy: str) -> str:
    """A policy's name as people write it: abbreviations in capitals."""
    known = {"sft", "dpo", "ppo", "kto", "ipo", "orpo", "grpo", "rloo"}
    return policy.upper() if policy in known else policy


def percent(share: float) -> str:
    """A share as a whole percentage, never rounded to certainty."""
    if 0 < share < 0.005:
        return "under 1%"
    if 0.995 <= share < 1:
        return "over 99%"
    return f"{share:.0%}"


def span(row: dict[str, Any]) -> str:
    """The interval of a share as `71–84%`."""
    return f"{100 * row['low']:.0f}–{100 * row['high']:.0f}%"


def verdicts(results: dict[str, Any], judges: list[str]) -> list[Verdict]:
    """One verdict for each aligned policy over the first baseline; `judges` in the order of their weight."""
    baseline = results["meta"]["baselines"][0]
    aligned = [name for name in results["policies"] if name not in results["meta"]["baselines"]]
    return [_verdict(results, name, baseline, judges) for name in aligned]


def _verdict(results: dict[str, Any], policy: str, baseline: str, judges: list[str]) -> Verdict:
    rows = {row["judge"]: row for row in _of(results["comparisons"], policy, baseline)}
    first = rows[judges[0]]
    kind = "better" if first["low"] > 0.5 else "worse" if first["high"] < 0.5 else "open"
    if kind != "open" and judges[0] == "reward" and _may_be_guessing(results["meta"].get("judge_accuracy")):
        kind = "weak"
    several = results["meta"]["responses_per_prompt"] > 1
    head = (
        f"{label(policy)}’s win rate over {label(baseline)} is {percent(first['win_rate'])} on "
        f"{'the pairs to ' if several else ''}{first['n']} prompts (95% interval {span(first)}) {JUDGES[judges[0]]}."
    )
    more = [_shares(first)]
    if kind == "worse":
        more.append(f"That is worse than {label(baseline)}.")
    if kind == "open":
        more.append("The interval holds 50%: the two cannot be told apart on these prompts.")
    controlled = next(row for row in _of(results["length_control"], policy, baseline) if row["judge"] == judges[0])
    words = results["policies"]
    equal = (
        "Too few replies are similar in length to say what it would be at equal length"
        if controlled.get("extrapolated")
        else f"At equal length it would be {percent(controlled['win_rate'])} ({span(controlled)})"
    )
    more.append(
        f"{equal}; its replies have {words[policy]['words_mean']:.0f} words on average, {label(baseline)}’s "
        f"{words[baseline]['words_mean']:.0f}."
    )
    more += [f"It is {percent(rows[judge]['win_rate'])} ({span(rows[judge])}) {JUDGES[judge]}." for judge in judges[1:]]
    doubt = doubt_of_the_judge(results["meta"])
    if doubt and "reward" in judges:
        more.append(doubt)
    return Verdict(kind, head, more)


def _shares(row: dict[str, Any]) -> str:
    """How a win rate comes about."""
    better = row["win_rate"] - row["ties"] / 2
    worse = 1 - better - row["ties"]
    equal = f", equal in {percent(row['ties'])} (a tie counts half)" if row["ties"] else ""
    return f"Its reply was better in {percent(better)}{equal} and worse in {percent(worse)}."


def doubt_of_the_judge(meta: dict[str, Any]) -> str | None:
    """A warning where the reward model's accuracy may be that of a coin, or that of preferring the longer reply."""
    accuracy = meta.get("judge_accuracy")
    if accuracy is None:
        return None
    agrees = (
        f"The reward model agrees with {percent(accuracy['accuracy'])} of its held-out preference pairs, 95% interval "
        f"{span(accuracy)}"
    )
    if _may_be_guessing(accuracy):
        return f"{agrees}: it may be guessing, so its win rates are weak evidence."
    longer = accuracy.get("length_accuracy")
    if longer is not None and longer >= accuracy["low"]:
        return (
            f"{agrees}; always preferring the longer response agrees with {percent(longer)}. It may have learned "
            "little else, so look at its win rates at equal length."
        )
    return None


def _may_be_guessing(accuracy: dict[str, Any] | None) -> bool:
    return accuracy is not None and accuracy["low"] <= 0.5


def _of(rows: list[dict[str, Any]], policy: str, baseline: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["policy"], row["baseline"]) == (policy, baseline)]


def banner(meta: dict[str, Any]) -> str | None:
    """The warning over a report whose judgements are simulated; None where people gave all of them."""
    if not meta["simulated"]:
        return None
    share = meta["simulated_share"]
    given = f"{percent(share)} of the preferences behind these models were" if share else "The known utility was"
    by = "given by simulated annotators" if share else "written down for simulated annotators"
    return (
        f"{given} {by}, not by people. The figures show that training moved the models towards a stated utility; they "
        "do not show what people prefer."
    )
