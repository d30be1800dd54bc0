"""What people and models wrote cannot act on the page."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate_ui.markdown import safe_html


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
