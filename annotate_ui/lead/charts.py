"""Small charts as inline SVG: their colours are the page's, and what they show is written beside them as text."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from plumbline.preferences.quality import Figure

MARGIN = 6


def interval_chart(
    figure: Figure,
    *,
    low: float = 0.0,
    high: float = 1.0,
    band: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    width: int = 220,
    height: int = 24,
) -> Markup:
    """A point with its interval on a line from `low` to `high`.

    Args:
        figure: what is shown; an undefined one shows the line alone.
        low, high: ends of the line.
        band: a range to compare with, shaded.
        marks: values to compare with, as strokes.
        width, height: in pixels.
    """
    middle = height / 2

    def x(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{MARGIN + share * (width - 2 * MARGIN):.1f}"

    parts = []
    if band:
        extent = float(x(band[1])) - float(x(band[0]))
        parts.append(
            f'<rect class="pl-band" x="{x(band[0])}" y="1" width="{extent:.1f}" height="{height - 2}" rx="3"/>'
        )
    parts.append(f'<line class="pl-axis" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>')
    parts += [f'<line class="pl-tick" x1="{x(mark)}" x2="{x(mark)}" y1="3" y2="{height - 3}"/>' for mark in marks]
    if figure.low is not None and figure.high is not None:
        ends = f'x1="{x(figure.low)}" x2="{x(figure.high)}"'
        parts.append(f'<line class="pl-interval" {ends} y1="{middle}" y2="{middle}"/>')
    if figure.value is not None:
        parts.append(f'<circle class="pl-point" cx="{x(figure.value)}" cy="{middle}" r="4"/>')
    return _svg(parts, width, height)


def bar_chart(values: Sequence[int], *, width: int = 220, height: int = 36) -> Markup:
    """Bars from 0 to the highest value, from left to right."""
    highest = max([*values, 1])
    step = width / max(len(values), 1)
    parts = [f'<line class="pl-axis" x1="0" x2="{width}" y1="{height - 0.5}" y2="{height - 0.5}"/>']
    for place, value in enumerate(values):
        if value:
            tall = max(2.0, (height - 2) * value / highest)
            box = f'x="{place * step + 1:.1f}" y="{height - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="pl-bar-of" {box} rx="1"/>')
    return _svg(parts, width, height)


def _svg(parts: Sequence[str], width: int, height: int) -> Markup:
    # Only numbers go into the parts, so that there is nothing to escape.
    return Markup(
        f'<svg class="pl-chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
