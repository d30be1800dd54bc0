"""What of a page lies beyond the window's edges, and what is too small for a finger."""

from __future__ import annotations

from typing import Any

# The width of the page tells nothing: Gradio's frame clips what leaves it. So boxes are measured, and the lines of
# text, which can be wider than the box that they are in. A closed sidebar waits beside the window.
COMMON = """
  const seen = (one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && !one.closest("#pl-sidebar:not(.open)");
  const told = (one, what) => `${one.localName}.${one.className} ${what}: ${one.textContent.trim().slice(0, 40)}`;
"""

OUTSIDE = """
  const scrollsOrCuts = (one) => {
    const { overflowX, textOverflow, clipPath } = getComputedStyle(one);
    return ["auto", "scroll"].includes(overflowX) || textOverflow === "ellipsis" || clipPath !== "none";
  };
  const mayLeave = (one) => one !== document.body && (scrollsOrCuts(one) || mayLeave(one.parentElement));
  const leaves = (box) => box.width > 0 && box.height > 0 && (box.right > width + 0.5 || box.left < -0.5);
  const linesOf = (one) => [...one.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).flatMap((text) => {
    const range = document.createRange();
    range.selectNodeContents(text);
    return [...range.getClientRects()];
  });
  const found = [];
  for (const one of [...document.body.querySelectorAll("*")].filter(seen)) {
    const boxes = mayLeave(one.parentElement) ? [] : [one.getBoundingClientRect()];
    const lines = mayLeave(one) ? [] : linesOf(one);
    const out = [...boxes, ...lines].find(leaves);
    if (out) found.push(told(one, `from ${out.left} to ${out.right}`));
  }
  return found;
"""

TOO_SMALL = """
  const targets = ":is(a, button, select, summary, textarea, .pl-field, label:has(input)):not(.pl-text *)";
  return [...document.querySelectorAll(targets)]
    .filter((one) => seen(one) && Math.min(one.offsetWidth, one.offsetHeight) < 44)
    .map((one) => told(one, `${one.offsetWidth} x ${one.offsetHeight}`));
"""


def outside(page: Any) -> list[str]:
    """Visible elements and lines of text that leave the window to the left or right.

    Those are passed over that are in something that scrolls by itself, are cut with an ellipsis, or are there for
    screen readers only.
    """
    return list(page.evaluate(f"width => {{{COMMON}{OUTSIDE}}}", page.viewport_size["width"]))


def too_small(page: Any) -> list[str]:
    """Visible links, buttons and fields under 44 by 44 pixels, but for links within rendered texts."""
    return list(page.evaluate(f"() => {{{COMMON}{TOO_SMALL}}}"))
