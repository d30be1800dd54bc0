"""What people and models wrote cannot act on the page."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate_ui import markdown
from annotate_ui.markdown import LONGEST, MARKS, MOST_MARKS, HtmlCache, safe_html, shown_blank, shown_html, shown_plain


def test_markdown_is_rendered() -> None:
    html = safe_html("**bold** and `code`\n\n1. one\n2. two\n\n| a |\n|---|\n| b |")
    assert "<strong>bold</strong>" in html
    assert "<code>code</code>" in html
    assert html.count("<li>") == 2
    assert "<td>b</td>" in html


def test_line_ends_are_kept_as_people_typed_them() -> None:
    assert re.search(r"first<br ?/?>\s*second", safe_html("first\nsecond"))


def test_line_ends_of_a_wrapped_guideline_are_white_space() -> None:
    assert safe_html("first\nsecond", keep_lines=False) == "<p>first\nsecond</p>\n"


def test_html_is_shown_as_text() -> None:
    assert safe_html("<b>hi</b>") == "<p>&lt;b&gt;hi&lt;/b&gt;</p>\n"


def test_an_image_becomes_its_description() -> None:
    html = safe_html('![a "cat" <b>](https://example.org/cat.png)')
    assert "example.org" not in html
    assert "[image:" in html
    assert "cat" in html


@pytest.mark.parametrize(
    "text",
    [
        "[click](javascript:alert(1))",
        "[click](JaVaScRiPt:alert(1))",
        "[click](data:text/html;base64,PHNjcmlwdD4=)",
        "[click](vbscript:x)",
        "<a href='javascript:alert(1)'>x</a>",
    ],
)
def test_links_lead_to_the_web_only(text: str) -> None:
    assert not re.search(r"<a [^>]*href", safe_html(text))


def test_links_tell_their_target_nothing() -> None:
    html = safe_html("[page](https://example.org/a)")
    assert 'href="https://example.org/a"' in html
    assert "noreferrer" in html
    assert 'target="_blank"' in html


ACTIVE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)>",
        "</div></article>",
        "<style>*{display:none}</style>",
        "![x](https://example.org/x.png)",
        "[x](javascript:alert(1))",
        "`",
        "```\n",
        "> ",
        "- ",
        "&lt;script&gt;",
        "<!--",
        "]]>",
        "\n\n",
    ]
)


@given(st.lists(st.one_of(ACTIVE, st.text(max_size=8)), max_size=12))
def test_no_mixture_of_fragments_makes_live_html(parts: list[str]) -> None:
    html = safe_html("".join(parts))
    tags = re.findall(r"<\s*/?\s*([a-zA-Z][^\s>/]*)([^>]*)>", html)
    active = {"script", "style", "img", "svg", "iframe", "object", "embed", "form", "input", "link", "meta", "base"}
    assert {name.lower() for name, _ in tags}.isdisjoint({*active, "div", "article", "dialog", "button"})
    assert not any(re.search(r"\bon\w+\s*=|style\s*=|src\s*=", attributes) for _, attributes in tags)


# -- what takes long ----------------------------------------------------------------------------------------------


def calls_of(text: str) -> int:
    """Calls of functions that rendering a text takes: a measure of its time that no other program disturbs."""
    calls = 0

    def count(frame: Any, event: str, function: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        safe_html(text)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize(
    "piece",
    [
        *("[", "![", "[](", "[a][", '[a](b "', "*a ", "**a_", "*_", "~~a ", "<a ", "<!--", "<http://a>", "&amp;"),
        *("\\*", "`a", "a\n\n", "# a\n", "1. a\n", "> a\n", "|a|b\n", "a|b\n-|-\n", "[a]: b\n", "  - a\n", "a  \n"),
    ],
)
def test_what_is_rendered_never_takes_long(piece: str) -> None:
    """The most that one text can take, whatever is in it, grows with its length and has an end."""
    marks = sum(map(piece.count, MARKS))
    half, whole = (piece * (number // marks) for number in (MOST_MARKS // 2, MOST_MARKS))
    assert not shown_plain(whole) and shown_plain(whole + "\n" * marks * 2)
    few, many = calls_of(half[: LONGEST // 2]), calls_of(whole[:LONGEST])
    assert many < 2_000_000
    assert many < 2.5 * few


def test_a_long_table_is_rendered_in_bounds() -> None:
    row = "|" + "a|" * (MOST_MARKS // 3 - 2) + "\n"
    assert calls_of(row + row.replace("a", "-") + row) < 2_000_000


@pytest.mark.parametrize("text", ["\u200b", " \u2060\n", "[a]: https://example.org/b"])
def test_a_text_of_which_nothing_can_be_seen_is_told(text: str) -> None:
    assert shown_blank(text)
    assert not shown_blank(f"{text}\n\n.") and not shown_blank("---") and not shown_blank("<b>")


@pytest.mark.parametrize("text", ["a" * (LONGEST + 1), "<b>[x](y)\n" * 2000])
def test_what_is_too_long_or_has_too_much_markup_is_shown_as_it_was_written(text: str) -> None:
    assert shown_plain(text)
    html = shown_html(text)
    assert html == f'<div class="pl-plain">{text.replace("<", "&lt;").replace(">", "&gt;")}</div>'
    assert shown_html("**a**") == safe_html("**a**")


def test_what_was_rendered_is_kept_up_to_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def render(text: str) -> str:
        rendered.append(text)
        return f"<p>{text}</p>"

    monkeypatch.setattr(markdown, "safe_html", render)
    cache = HtmlCache(5000)
    texts = [f"{number} {'a' * 1000}" for number in range(4)]
    for text in (texts[0], texts[1], texts[0], texts[2], texts[3], texts[0], texts[1]):
        assert cache.of(text) == f"<p>{text}</p>"
    assert rendered == [*texts, texts[1]], "of four, three fit: what was asked for longest ago went"
    assert 0 < cache.bytes <= 5000
    assert cache.of("b" * 10_000) and cache.bytes == 0
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(cache.of, texts * 50)) == {f"<p>{text}</p>" for text in texts}
    assert 0 < cache.bytes <= 5000
