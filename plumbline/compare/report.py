"""`report.html`: one file that needs neither network nor script. What models wrote is escaped, never live HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from plumbline.compare import plots
from plumbline.compare.replies import Replies
from plumbline.compare.results import SIMILAR_AT_LEAST
from plumbline.compare.samples import extremes, random_rows
from plumbline.compare.wording import JUDGES, banner, label, percent, span, verdicts

if TYPE_CHECKING:
    from plumbline.datafiles import PromptRow

REPORT = "report.html"


def write_report(
    results: dict[str, Any],
    replies: dict[str, Replies],
    prompts: Sequence[PromptRow],
    folder: Path,
    *,
    shown: int,
    seed: int,
    facts: dict[str, Any],
) -> None:
    """Write the report.

    Args:
        results: the content of `results.json`.
        replies: of every policy, for distributions and samples.
        prompts: in the order of the replies' rows.
        folder: where `report.html` goes.
        shown: prompts shown side by side, drawn at random.
        seed: decides which.
        facts: as in `compare`.
    """
    environment = Environment(
        loader=PackageLoader("plumbline.compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "percent": percent, "span": span}
    meta, names = results["meta"], list(results["policies"])
    judges: list[str] = [judge for judge in ("utility", "reward") if judge in next(iter(replies.values())).scores]
    cards = _Cards(replies, prompts, judges[0])
    page = environment.get_template("report.html.j2").render(
        title=f"{meta['run'] or 'Comparison'}: aligned against baseline",
        meta=meta,
        facts=facts,
        results=results,
        judges=judges,
        judge_words=JUDGES,
        banner=banner(meta),
        similar_at_least=SIMILAR_AT_LEAST,
        verdicts=verdicts(results, judges),
        kl=f"kl_to_{meta['baselines'][0]}",
        colours={name: number % len(plots.COLOURS) for number, name in enumerate(names)},
        figures=_figures(results, replies, judges),
        random_cards=[cards.card(row) for row in random_rows(len(prompts), shown, seed)],
        extreme_cards=_extreme_cards(cards, replies, meta["baselines"], judges[0]) if shown else [],
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _figures(results: dict[str, Any], replies: dict[str, Replies], judges: list[str]) -> list[dict[str, Any]]:
    """Each figure with its title, what to see in it, and its text for those who cannot see it."""
    policies, reference = results["policies"], results["meta"]["baselines"][0]
    rates = [row for judge in judges for row in results["comparisons"] if row["judge"] == judge]
    said = "; ".join(f"{_pair(row)} by {row['judge']} {percent(row['win_rate'])}, {span(row)}" for row in rates)
    overview = {
        "title": "Win rates",
        "svg": plots.win_rate_figure(rates, list(policies)),
        "caption": "Points are win rates, bars 95% intervals. A bar that crosses the dashed line decides nothing.",
        "alt": f"Win rates with 95% intervals. {said}.",
    }
    found = [overview, *(_distribution(results, replies, judge) for judge in judges)]
    found += [_length(results, replies, judge) for judge in judges]
    if any(f"kl_to_{reference}" in metrics for metrics in policies.values()):
        found += [_kl(policies, judge, reference) for judge in judges]
    return [figure | {"svg": Markup(figure["svg"])} for figure in found]  # our own SVG; policies' names are checked


def _distribution(results: dict[str, Any], replies: dict[str, Replies], judge: str) -> dict[str, Any]:
    return {
        "title": f"{judge.capitalize()} of the responses",
        "svg": plots.distribution_figure(replies, judge),
        "caption": f"How {judge} is spread over the responses of each policy.",
        "alt": f"Distribution of {judge} for each policy. Means: {_means(results, judge + '_mean', '.2f')}.",
    }


def _length(results: dict[str, Any], replies: dict[str, Replies], judge: str) -> dict[str, Any]:
    return {
        "title": f"{judge.capitalize()} against length",
        "svg": plots.length_figure(replies, judge),
        "caption": "Dots are responses, lines means in five bins of equal size. Where two policies' lines lie apart at "
        "the same length, the difference is not length.",
        "alt": f"{judge.capitalize()} against words of a response. Mean words: {_means(results, 'words_mean', '.0f')}.",
    }


def _means(results: dict[str, Any], key: str, form: str) -> str:
    return "; ".join(f"{label(name)} {metrics[key]:{form}}" for name, metrics in results["policies"].items())


def _pair(row: dict[str, Any]) -> str:
    return f"{label(row['policy'])} over {label(row['baseline'])}"


def _kl(policies: dict[str, dict[str, Any]], judge: str, reference: str) -> dict[str, Any]:
    key = f"kl_to_{reference}"
    said = "; ".join(
        f"{label(name)} KL {metrics[key]:.2f}, {judge} {metrics[f'{judge}_mean']:.2f}"
        for name, metrics in policies.items()
        if key in metrics
    )
    return {
        "title": f"{judge.capitalize()} against KL",
        "svg": plots.kl_figure(policies, judge, reference),
        "caption": f"What was gained for how much drift from {label(reference)}; bars are 95% intervals.",
        "alt": f"Mean {judge} against KL to {label(reference)}. {said}.",
    }


class _Cards:
    """Side-by-side samples: a prompt and the first response of each policy."""

    def __init__(self, replies: dict[str, Replies], prompts: Sequence[PromptRow], judge: str) -> None:
        self.replies, self.prompts, self.judge = replies, prompts, judge

    def card(self, row: int) -> dict[str, Any]:
        """One prompt; `best` marks the highest score by the main judge, where one is highest alone or shared."""
        top = max(own.scores[self.judge][row, 0] for own in self.replies.values())
        return {
            "prompt": self.prompts[row].prompt,
            "notes": [f"{key}: {value}" for key, value in self.prompts[row].meta.items() if isinstance(value, str)],
            "responses": [self._response(own, row, top) for own in self.replies.values()],
        }

    def _response(self, own: Replies, row: int, top: float) -> dict[str, Any]:
        return {
            "policy": own.policy,
            "text": own.texts[row][0],
            "scores": {judge: float(scores[row, 0]) for judge, scores in own.scores.items()},
            "words": int(own.words[row, 0]),
            "finished": bool(own.finished[row, 0]),
            "best": own.scores[self.judge][row, 0] == top,
        }


def _extreme_cards(
    cards: _Cards, replies: dict[str, Replies], baselines: list[str], judge: str
) -> list[dict[str, Any]]:
    found = []
    for name in (name for name in replies if name not in baselines):
        wins, losses = extremes(replies[name], replies[baselines[0]], judge)
        found.append(
            {"policy": name, "wins": [cards.card(row) for row in wins], "losses": [cards.card(row) for row in losses]}
        )
    return found
