"""The report as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plumbline.numbers import signed
from plumbline.preferences.quality.agreement import PUBLISHED
from plumbline.preferences.quality.figures import Figure
from plumbline.preferences.quality.report import PersonQuality, QualityReport


def as_lines(report: QualityReport) -> Iterator[str]:
    """The same figures as on the lead's page."""
    progress, queue, together = report.progress, report.queue, report.agreement
    yield f"judgements   {progress.done:,} of {progress.required:,}, {progress.missing:,} left"
    yield f"pace         {_pace(report.forecast.per_hour)}"
    yield f"done by      {_finish(report)}"
    yield f"queue        {queue.open:,} open, {queue.held} held, {queue.flagged} flagged, {queue.disputed} disputed"
    yield ""
    low, high = (f"{100 * end:.0f}" for end in PUBLISHED)
    yield f"agreement of all, over {together.prompts:,} prompts that two or more people judged"
    yield f"  pairs agreed on             {_share(together.pairwise)}   (published data: {low} to {high}%)"
    yield f"  the same without ties       {_share(together.decided)}"
    yield f"  Krippendorff's alpha        {_plain(together.alpha, 2)}   (ordinal)"
    yield f"  Kendall's tau-b, mean       {_plain(together.tau, 2)}"
    if report.sampled_tasks < report.overlapping_tasks:
        yield f"  from a sample of {report.sampled_tasks:,} of {report.overlapping_tasks:,} tasks"
    if report.people:
        yield ""
        yield from _table(report.people)
        yield from (f"{one.name}: {'; '.join(one.notes)}" for one in report.people if one.notes)
        yield from _reasons(report.people)


COLUMNS = {
    "agreement": lambda one: one.agreement,
    "reliability": lambda one: one.reliability,
    "first card": lambda one: one.effects.first_wins,
    "longer wins": lambda one: one.effects.longer_wins,
    "too fast": lambda one: one.effects.too_fast,
    "same again": lambda one: one.effects.consistency,
    "checks": lambda one: one.checks,
}


def _table(people: Sequence[PersonQuality]) -> Iterator[str]:
    rows = [["name", "judged", "seconds", *COLUMNS]]
    for one in people:
        seconds = one.effects.seconds.value
        cells = [_short(of(one)) for of in COLUMNS.values()]
        name = f"{one.name} (simulated)" if one.simulated else one.name
        rows.append([name, f"{one.judged:,}", "–" if seconds is None else f"{seconds:.0f}", *cells])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first, *others]).rstrip()


def _reasons(people: Sequence[PersonQuality]) -> Iterator[str]:
    """Why a column is empty."""
    for name, of in COLUMNS.items():
        reasons = {of(one).why for one in people}
        if all(of(one).value is None for one in people):
            yield f"{name}: {'; '.join(sorted(why for why in reasons if why))}"


def _short(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    interval = "" if figure.low is None or figure.high is None else f" ({100 * figure.low:.0f}–{100 * figure.high:.0f})"
    return f"{100 * figure.value:.0f}%{interval}"


def _share(figure: Figure) -> str:
    return figure.why or "–" if figure.value is None else _noted(_short(figure), figure)


def _plain(figure: Figure, digits: int = 0) -> str:
    if figure.value is None:
        return figure.why or "–"
    said = signed(figure.value, digits)
    if figure.low is not None and figure.high is not None:
        said += f" ({signed(figure.low, digits)} to {signed(figure.high, digits)})"
    return _noted(said, figure)


def _noted(said: str, figure: Figure) -> str:
    return f"{said}, {figure.why}" if figure.why else said


def _pace(per_hour: Figure) -> str:
    return _plain(per_hour) if per_hour.value is None else f"{_plain(per_hour)} an hour of work"


def _finish(report: QualityReport) -> str:
    if report.forecast.finish is None:
        return report.forecast.why_not or "–"
    earliest, latest = (when.astimezone().strftime("%Y-%m-%d %H:%M") for when in report.forecast.finish)
    return f"{earliest} to {latest}"
