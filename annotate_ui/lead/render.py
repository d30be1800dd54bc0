"""The lead's pages as HTML. Jinja escapes every value: names, notes and texts come from people and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from annotate_ui import wording
from annotate_ui.lead.charts import bar_chart, interval_chart
from annotate_ui.markdown import safe_html
from annotate_ui.render import render_part
from plumbline.preferences.exporters import companion_of
from plumbline.preferences.formats import EXPORTED
from plumbline.preferences.quality import Figure, PersonQuality, QualityReport
from plumbline.preferences.quality.agreement import PUBLISHED
from plumbline.preferences.quality.decided import DecidedTask
from plumbline.preferences.quality.effects import WORDS_PER_MINUTE
from plumbline.preferences.quality.report import WORKING

if TYPE_CHECKING:
    from annotate_ui.setup import Setup
    from plumbline.preferences.guidelines import GuidelineVersion
    from plumbline.preferences.queue_control import FoundTask

TABS = {
    "quality": "Quality",
    "queue": "Queue",
    "guidelines": "Guidelines",
    "exports": "Exports",
    "decided": "Decided",
}

FORMATS = {
    "trl": "Pairs for TRL’s RewardTrainer and DPOTrainer: prompt, chosen, rejected, with margins.",
    "dpo": "Pairs as plain text, for other DPO trainers.",
    "kto": "Single responses with a label good or bad, for KTO.",
    "csv": "Pairs as a table; what a spreadsheet would take for a formula is text.",
    "demonstrations": "Improved responses, for supervised fine-tuning.",
    "rankings": "Every judgement as it was given; plumbline reads it back.",
    "argilla": "Records and responses for Argilla.",
    "label_studio": "Tasks with annotations for Label Studio.",
    "flags": "The flags that stand, with what was said.",
}

GOOD_ALPHA, TENTATIVE_ALPHA = 0.8, 0.667
"""Krippendorff's thresholds: reliable from 0.8, tentative conclusions from 0.667 (Content Analysis, 2004, p. 241)."""


class Measure(NamedTuple):
    """A figure on the agreement of all: its name, chart, number, interval and what to compare it with."""

    name: str
    figure: Figure
    value: str
    interval: str
    chart: Markup
    compare: str


class Column(NamedTuple):
    """A column of the table of people."""

    name: str
    what: str
    figure: Callable[[PersonQuality], Figure]
    show: Callable[[Figure], str]
    chart: Callable[[PersonQuality], Markup] | None


class Cell(NamedTuple):
    """A person's figure: number, interval, chart, and why there is none."""

    column: str
    value: str
    interval: str
    chart: Markup | None
    why: str | None
    n: int


def render_lead(setup: Setup) -> str:
    """What stays on the page: the head line, the tabs, and a panel for each."""
    return render_part("lead/shell", setup, tabs=TABS)


def render_quality(setup: Setup, report: QualityReport) -> str:
    """All figures."""
    columns = _columns(report)
    shown = [column for column in columns if any(column.figure(one).value is not None for one in report.people)]
    left_out = {column.name: _reasons(column, report.people) for column in columns if column not in shown}
    people = sorted(report.people, key=lambda one: (not one.notes, -one.judged))
    return render_part(
        "lead/quality",
        setup,
        report=report,
        measures=_measures(report),
        columns=shown,
        left_out=left_out if report.people else {},
        people=[(one, [_cell(column, one) for column in shown]) for one in people],
        by_hour=bar_chart(report.forecast.by_hour),
        finish=wording.finish(report.forecast, report.at),
        working=WORKING,
        words_per_minute=WORDS_PER_MINUTE,
        published=PUBLISHED,
    )


def render_queue(setup: Setup, *, now: datetime, **parts: Any) -> str:
    """Who holds what, what waits for the lead, and what they can set.

    Args:
        setup: how the app is set.
        now: the present moment.
        parts: `state`, `masked`, `held`, `flagged`, `disputes`, `standings`, `quiz`, `pools` and `restricted`, as the
            service gives them; `lead`, whose page it is: of what they hold themselves they are not told why.
    """
    kept_for: dict[str, list[str]] = {}
    for task in parts["restricted"]:
        for name in task.names:
            kept_for.setdefault(name, []).append(task.task_id)
    return render_part("lead/queue", setup, ago=lambda then: wording.ago(then, now), kept_for=kept_for, **parts)


def render_found(setup: Setup, tasks: Sequence[FoundTask], most: int) -> str:
    """Tasks that were looked for; of `most` there may be more."""
    return render_part("lead/found", setup, tasks=tasks, most=most)


def render_guidelines(setup: Setup, versions: Sequence[GuidelineVersion]) -> str:
    """All versions of the guideline, the newest first, and a form for the next one."""
    return render_part("lead/guidelines", setup, versions=versions, rendered=guideline_text)


def render_exports(setup: Setup, nothing: Mapping[str, str | None]) -> str:
    """A download for each format, alone or with its manifest, and the second file of those that have one.

    Args:
        setup: how the app is set.
        nothing: of each format, why there is nothing to download; None where there is.
    """
    formats = {name: FORMATS.get(name, "") for name in EXPORTED}
    second_files = [name for name in formats if companion_of(name)]
    return render_part("lead/exports", setup, formats=formats, nothing=nothing, second_files=second_files)


def guideline_text(guideline: str) -> Markup:
    """A guideline as annotators see it."""
    return Markup(f'<div class="pl-text" dir="auto">{safe_html(guideline, keep_lines=False)}</div>')


def render_decided(setup: Setup, tasks: Sequence[DecidedTask], before: int | None, annotator_id: str | None) -> str:
    """Judged tasks, each response with its mean rank and what each annotator said."""
    return render_part(
        "lead/decided", setup, tasks=tasks, before=before, annotator_id=annotator_id, seconds=wording.seconds
    )


def _measures(report: QualityReport) -> list[Measure]:
    together = report.agreement
    published = f"shaded: {100 * PUBLISHED[0]:.0f} to {100 * PUBLISHED[1]:.0f}%, as in published data"
    alpha = f"beyond chance: 0 is chance, 1 perfect; good from {GOOD_ALPHA}, tentative from {TENTATIVE_ALPHA:.2f}"
    return [
        _share_measure(
            "Pairs agreed on", together.pairwise, f"{published}; where one ties and one chooses, half counts"
        ),
        _share_measure("Pairs agreed on, without ties", together.decided, published),
        _coefficient("Krippendorff’s α, ordinal", together.alpha, alpha, (TENTATIVE_ALPHA, GOOD_ALPHA)),
        _coefficient(
            "Kendall’s τ, mean", together.tau, "how alike two orders are: 1 the same, 0 unrelated, −1 reversed", ()
        ),
    ]


def _share_measure(name: str, figure: Figure, compare: str) -> Measure:
    chart = interval_chart(figure, band=PUBLISHED)
    return Measure(name, figure, wording.percent(figure), wording.percents(figure), chart, compare)


def _coefficient(name: str, figure: Figure, compare: str, marks: Sequence[float]) -> Measure:
    lowest = -1.0 if (figure.low if figure.low is not None else figure.value or 0) < 0 else 0.0
    chart = interval_chart(figure, low=lowest, marks=marks)
    return Measure(name, figure, wording.number(figure), wording.numbers(figure), chart, compare)


def _columns(report: QualityReport) -> list[Column]:
    together = report.agreement.pairwise.value
    marks = () if together is None else (together,)

    def share(figure: Callable[[PersonQuality], Figure], at: Callable[[PersonQuality], Sequence[float]]) -> Any:
        return lambda one: interval_chart(figure(one), marks=at(one), width=72, height=14)

    def column(
        name: str, what: str, figure: Any, at: Callable[[PersonQuality], Sequence[float]] = lambda _: ()
    ) -> Column:
        return Column(name, what, figure, wording.percent, share(figure, at))

    return [
        column(
            "Agreement",
            "Pairs of responses on which they say the same as others",
            lambda one: one.agreement,
            lambda _: marks,
        ),
        column(
            "Reliability",
            "How likely what they say is right, as far as all others show it",
            lambda one: one.reliability,
        ),
        column(
            "First card",
            "How often they rank the card shown first best",
            lambda one: one.effects.first_wins,
            lambda one: () if one.effects.first_expected is None else (one.effects.first_expected,),
        ),
        column(
            "Longer wins",
            "How often they prefer the longer of two responses",
            lambda one: one.effects.longer_wins,
            lambda _: (0.5,),
        ),
        Column(
            "Time", "Time on a task: half of them took less, half more", lambda one: one.effects.seconds, _time, None
        ),
        column(
            "Too fast",
            f"Judgements given faster than {WORDS_PER_MINUTE} words a minute, which nobody reads",
            lambda one: one.effects.too_fast,
        ),
        Column(
            "Time and agreement",
            "Above 0, their slow judgements agree with others more often than the quick ones; below 0, less often",
            lambda one: one.speed_agreement,
            wording.number,
            None,
        ),
        column(
            "Same again",
            "Pairs on which they say the same when a task comes a second time",
            lambda one: one.effects.consistency,
            lambda _: marks,
        ),
        column("Checks", "Pairs that they got right in checks, whose answer is known", lambda one: one.checks),
    ]


def _cell(column: Column, one: PersonQuality) -> Cell:
    figure = column.figure(one)
    if figure.value is None:
        return Cell(column.name, "–", "", None, figure.why, figure.n)
    if column.show is _time:
        interval = f"{wording.seconds(figure.low or 0)} to {wording.seconds(figure.high or 0)}"
    else:
        interval = wording.numbers(figure) if column.show is wording.number else wording.percents(figure)
    return Cell(column.name, column.show(figure), interval, column.chart(one) if column.chart else None, None, figure.n)


def _time(figure: Figure) -> str:
    return "–" if figure.value is None else wording.seconds(figure.value)


def _reasons(column: Column, people: Sequence[PersonQuality]) -> str:
    """Why nobody has this figure: the reason that most have."""
    reasons = [column.figure(one).why or "" for one in people]
    return max(set(reasons), key=reasons.count) if reasons else ""
