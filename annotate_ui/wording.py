"""Figures and times in words, as the pages of leads and admins show them."""

from __future__ import annotations

from datetime import datetime, timedelta

from plumbline.errors import counted
from plumbline.numbers import signed
from plumbline.preferences.quality import Figure
from plumbline.preferences.quality.forecast import Forecast


def percent(figure: Figure) -> str:
    """`69.9%`, or a dash."""
    return "–" if figure.value is None else f"{100 * figure.value:.0f}%"


def percents(figure: Figure) -> str:
    """The interval of a share: `62 to 77%`; empty where there is none."""
    return "" if figure.low is None or figure.high is None else f"{100 * figure.low:.0f} to {100 * figure.high:.0f}%"


def number(figure: Figure) -> str:
    """`0.47`, or a dash; a real minus."""
    return "–" if figure.value is None else signed(figure.value)


def numbers(figure: Figure) -> str:
    """The interval of a coefficient: `0.41 to 0.53`; empty where there is none."""
    return "" if figure.low is None or figure.high is None else f"{signed(figure.low)} to {signed(figure.high)}"


def seconds(value: float) -> str:
    """`42 s`, `3.5 min`."""
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.1f} min"


def finish(forecast: Forecast, now: datetime) -> str:
    """When all is done: `Tue 24 Nov to Thu 26 Nov`, with the hour where it is near."""
    if forecast.finish is None:
        return forecast.why_not or ""
    form = "%a %H:%M" if forecast.finish[1] - now < timedelta(days=2) else "%a %d %b"
    first, last = (when.astimezone() for when in forecast.finish)
    earliest, latest = first.strftime(form), last.strftime(form)
    if earliest == latest:
        return earliest
    return f"{earliest} to {last.strftime('%H:%M') if 'H' in form and first.date() == last.date() else latest}"


def ago(then: datetime | None, now: datetime) -> str:
    """`in 12 minutes`, `3 hours ago`, `now`."""
    if then is None:
        return ""
    minutes = round((then - now).total_seconds() / 60)
    if minutes == 0:
        return "now"
    size = abs(minutes)
    amount = (
        counted(size, "minute")
        if size < 90
        else counted(round(size / 60), "hour")
        if size < 48 * 60
        else counted(round(size / 1440), "day")
    )
    return f"in {amount}" if minutes > 0 else f"{amount} ago"
