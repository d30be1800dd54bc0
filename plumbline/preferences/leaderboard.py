"""The arena's leaderboard: what is known of each policy by the votes, as plain values and as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plumbline.numbers import signed
from plumbline.preferences.arena_statistics import (
    Estimate,
    between,
    leave_one_out,
    length_controlled,
    ranking,
    score_of,
    strengths,
    win_rate,
)
from plumbline.preferences.arena_votes import Vote, counted_votes, read_votes
from plumbline.preferences.sequential import Sequential, sequential_test

if TYPE_CHECKING:
    from plumbline.preferences.turn import Facet
    from plumbline.recipe_annotate import ArenaSection

AGAINST_BASELINE = ("win_rate", "at_equal_length", "at_equal_length_why_not", "without_one", "sequential")
"""What a row has of a policy that was compared with the baseline; null in the baseline's own row."""

ALPHA = 0.05
RESAMPLES = 500


def leaderboard_of(facet: Facet, section: ArenaSection, *, compared: int) -> dict[str, Any]:
    """The leaderboard of a project's votes, as the recipe's section asks for it; `compared` as below."""
    votes = read_votes(facet.store, facet.project)
    return leaderboard(
        votes, baseline=section.baseline, cap=section.votes_per_person, margin=section.margin, compared=compared
    )


def leaderboard(
    votes: Sequence[Vote],
    *,
    baseline: str,
    cap: int,
    margin: float,
    compared: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that the votes say, as values that go into JSON.

    Args:
        votes: all votes, in the order in which they were given.
        baseline: the policy that the others are compared with.
        cap: votes of one person that count.
        margin: win rates within this of one half count as no difference.
        compared: policies that the recipe compares with the baseline, whether they have votes or not: the test's alpha
            is divided by their number (or by that of those with votes, where these are more).
        resamples: of the bootstrap.
        seed: of its random state.

    Returns:
        `votes` (given, counted, why others do not count, simulated), `policies` (a row for each, the best first, the
        baseline among them), `annotators` (votes and win rates by person) and `left` (how often the left side won).
    """
    counted = counted_votes(votes, cap)
    settings = {"resamples": resamples, "seed": seed}
    points = strengths(counted, baseline, **settings)
    places = ranking(counted, baseline)
    names = sorted({name for vote in counted for name in (vote.left, vote.right)} - {baseline})
    without_one = leave_one_out(counted, baseline)
    alpha = ALPHA / max(compared, len(names), 1)
    rows = []
    for name in names:
        row = _row(counted, name, points.get(name), places.get(name))
        own = between(counted, name, baseline)
        controlled = length_controlled(counted, name, baseline, **settings)
        left_out = without_one.get(name)
        rate = win_rate(counted, name, baseline, **settings)
        test = sequential_test(
            [score_of(vote, name) for vote in own], [vote.annotator for vote in own], alpha=alpha, margin=margin
        )
        if _at_odds(test, rate, margin):
            test = test._replace(verdict="open", at_odds=True)
        said = sentences(name, baseline, test, margin)
        row |= {
            "win_rate": _as_json(rate),
            "at_equal_length": _as_json(controlled.estimate),
            "at_equal_length_why_not": controlled.why_not,
            "without_one": left_out._asdict() if left_out else None,
            "sequential": test._asdict() | {"sentences": said},
        }
        rows.append(row)
    if counted:
        rows.append(_row(counted, baseline, points.get(baseline), places.get(baseline)) | {"baseline": True})
    rows.sort(key=lambda row: (row["place"] or len(rows) + 1, row["policy"]))
    named = sum(vote.named for vote in votes)
    return {
        "baseline": baseline,
        "margin": margin,
        "votes": {
            "given": len(votes),
            "counted": len(counted),
            "named": named,
            "over_cap": len(votes) - len(counted) - named,
            "cap": cap,
            "simulated": sum(vote.simulated for vote in counted),
            "both_bad": _share([vote.both_bad for vote in counted]),
        },
        "left": _share([vote.score for vote in counted]),
        "policies": rows,
        "annotators": _by_annotator(counted, names, baseline),
    }


def sentences(policy: str, baseline: str, test: Sequential, margin: float) -> list[str]:
    """The sequential verdict in words: what is known, of whom, and what would decide."""
    people, points = test.people, f"{100 * margin:g}"
    if test.verdict == "better":
        return [f"Enough: {policy} is better than {baseline}, for people like these {people} annotators."]
    if test.verdict == "worse":
        return [f"Enough: {policy} is worse than {baseline}, for people like these {people} annotators."]
    if test.verdict == "no difference":
        return [
            f"Enough: {policy} and {baseline} differ by no more than {points} points of win rate, "
            f"for people like these {people} annotators."
        ]
    return [_among(policy, baseline, test), _what_decides(test)]


def _among(policy: str, baseline: str, test: Sequential) -> str:
    """What is known of those alone who voted."""
    people, better = test.people, test.among == "better"
    if test.among == "open":
        return f"{policy} and {baseline} are not told apart yet."
    if people == 1 and better:
        return f"{policy} is better than {baseline} for the one annotator who voted: one person says nothing of others."
    if people == 1:
        return f"{policy} is worse than {baseline} for the one annotator who voted: one person says nothing of others."
    if better:
        return f"{policy} is better than {baseline} for these {people} annotators; for people like them it is open."
    return f"{policy} is worse than {baseline} for these {people} annotators; for people like them it is open."


def _what_decides(test: Sequential) -> str:
    if test.at_odds:
        return "The test would decide, but the interval of the win rate leaves it open: more votes are needed."
    if test.more is not None:
        return f"About {_round(test.more)} more votes of this pair decide, if they fall as until now."
    if test.more_people is not None:
        return f"About {_round(test.more_people)} more annotators decide, if they vote as these do."
    if not test.votes:
        return "Too few votes to say how many more are needed."
    return "Too close to say how many more are needed."


def as_text(board: dict[str, Any]) -> str:
    """The leaderboard for a terminal."""
    votes = board["votes"]
    if not votes["counted"]:
        return "The arena has no votes yet."
    head = ("policy", "votes", "strength", "win rate", "at equal length", "both bad", "without any one person")
    lines = [head, *(_text_row(row) for row in board["policies"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{votes['counted']} of {votes['given']} votes count; at most {votes['cap']} of one person."]
    if votes["named"]:
        notes.append(f"{votes['named']} do not count, because a response named its own model.")
    if votes["simulated"]:
        notes.append(f"{votes['simulated']} are by simulated annotators.")
    verdicts = [" ".join(row["sequential"]["sentences"]) for row in board["policies"] if row["sequential"]]
    return "\n".join([*table, "", *verdicts, "", *notes])


def _row(votes: Sequence[Vote], name: str, points: Estimate | None, place: int | None) -> dict[str, Any]:
    own = [vote for vote in votes if name in (vote.left, vote.right)]
    scores = [score_of(vote, name) for vote in own]
    return {
        "policy": name,
        "baseline": False,
        "place": place,
        "votes": len(own),
        "wins": scores.count(1.0),
        "losses": scores.count(0.0),
        "ties": scores.count(0.5),
        "both_bad": _share([vote.both_bad for vote in own]),
        "elo": _as_json(points),
        **dict.fromkeys(AGAINST_BASELINE),
    }


def _by_annotator(votes: Sequence[Vote], names: Sequence[str], baseline: str) -> list[dict[str, Any]]:
    """Votes and win rates by person, those with the most votes first."""
    by_person: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_person[vote.annotator].append(vote)
    rows = []
    for person, own in sorted(by_person.items(), key=lambda item: (-len(item[1]), item[0])):
        met = {name: between(own, name, baseline) for name in names}
        rows.append(
            {
                "annotator": person,
                "simulated": own[0].simulated,
                "votes": len(own),
                "left": _share([vote.score for vote in own]),
                "both_bad": _share([vote.both_bad for vote in own]),
                "win_rates": {name: _share([score_of(vote, name) for vote in seen]) for name, seen in met.items()},
            }
        )
    return rows


def _at_odds(test: Sequential, rate: Estimate | None, margin: float) -> bool:
    """Whether a verdict claims what the interval that is shown beside it leaves open: that one is over prompts too."""
    if rate is None or rate.low is None or rate.high is None:
        return False
    if test.verdict == "no difference":
        return rate.low < 0.5 - margin or rate.high > 0.5 + margin
    return test.verdict != "open" and rate.low <= 0.5 <= rate.high


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _as_json(estimate: Estimate | None) -> dict[str, float | None] | None:
    return estimate._asdict() if estimate else None


def _round(votes: int) -> int:
    """Two digits of a forecast are enough."""
    unit = 10 ** max(len(str(votes)) - 2, 0)
    return -(-votes // unit) * unit


def _text_row(row: dict[str, Any]) -> tuple[str, ...]:
    without = row["without_one"]
    ranks = "" if without is None else f"place {_range(*without['ranks'])}, {_percents(*without['rates'])}"
    return (
        f"{row['policy']} (baseline)" if row["baseline"] else row["policy"],
        str(row["votes"]),
        _interval(row["elo"], lambda value: signed(value, 0, plus=True)),
        _interval(row["win_rate"], _percent),
        _interval(row["at_equal_length"], _percent),
        _percent(row["both_bad"]),
        ranks,
    )


def _interval(estimate: dict[str, float | None] | None, form: Any) -> str:
    if estimate is None:
        return "–"
    bounds = "" if estimate["low"] is None else f" ({form(estimate['low'])} to {form(estimate['high'])})"
    return f"{form(estimate['value'])}{bounds}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.0f}–{100 * high:.0f}%"


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
