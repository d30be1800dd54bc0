"""The arena's leaderboard: what is known of each policy by the votes, as plain values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from plumbline.preferences.sequential import FORETELL_FROM, Sequential, sequential_test

if TYPE_CHECKING:
    from plumbline.preferences.turn import Facet
    from plumbline.recipe_annotate import ArenaSection

AGAINST_BASELINE = ("win_rate", "at_equal_length", "at_equal_length_why_not", "without_one", "sequential")
"""What a row has of a policy that was compared with the baseline; null in the baseline's own row."""

ALPHA = 0.05
RESAMPLES = 500


def leaderboard_of(facet: Facet, section: ArenaSection) -> dict[str, Any]:
    """The leaderboard of a project's votes, as the recipe's section asks for it."""
    votes = read_votes(facet.store, facet.project)
    return leaderboard(votes, baseline=section.baseline, cap=section.votes_per_person, margin=section.margin)


def leaderboard(
    votes: Sequence[Vote], *, baseline: str, cap: int, margin: float, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Everything that the votes say, as values that go into JSON.

    Args:
        votes: all votes, in the order in which they were given.
        baseline: the policy that the others are compared with.
        cap: votes of one person that count.
        margin: win rates within this of one half count as no difference.
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
    rows = []
    for name in names:
        row = _row(counted, name, points.get(name), places.get(name))
        own = between(counted, name, baseline)
        controlled = length_controlled(counted, name, baseline, **settings)
        left_out = without_one.get(name)
        test = sequential_test([score_of(vote, name) for vote in own], alpha=ALPHA / len(names), margin=margin)
        row |= {
            "win_rate": _as_json(win_rate(counted, name, baseline, **settings)),
            "at_equal_length": _as_json(controlled.estimate),
            "at_equal_length_why_not": controlled.why_not,
            "without_one": left_out._asdict() if left_out else None,
            "sequential": test._asdict() | {"sentence": sentence(name, baseline, test, margin)},
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


def sentence(policy: str, baseline: str, test: Sequential, margin: float) -> str:
    """The sequential verdict in words."""
    if test.verdict == "better":
        return f"Enough: {policy} is better than {baseline}."
    if test.verdict == "worse":
        return f"Enough: {policy} is worse than {baseline}."
    if test.verdict == "no difference":
        return f"Enough: {policy} and {baseline} differ by no more than {100 * margin:g} points of win rate."
    if test.more is not None:
        return (
            f"{policy} and {baseline} are not told apart yet: about {_round(test.more)} more votes of this pair, "
            "if they fall as until now."
        )
    if test.votes < FORETELL_FROM:
        return f"{policy} and {baseline} are not told apart yet: too few votes to say how many more are needed."
    return f"{policy} and {baseline} are not told apart yet: too close to say how many more are needed."


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
    verdicts = [row["sequential"]["sentence"] for row in board["policies"] if row["sequential"]]
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
    counts = Counter(vote.annotator for vote in votes)
    rows = []
    for person, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        own = [vote for vote in votes if vote.annotator == person]
        met = {name: between(own, name, baseline) for name in names}
        rows.append(
            {
                "annotator": person,
                "simulated": own[0].simulated,
                "votes": count,
                "left": _share([vote.score for vote in own]),
                "both_bad": _share([vote.both_bad for vote in own]),
                "win_rates": {name: _share([score_of(vote, name) for vote in seen]) for name, seen in met.items()},
            }
        )
    return rows


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
        _interval(row["elo"], lambda value: f"{value:+.0f}"),
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
