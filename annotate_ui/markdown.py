"""Markdown of prompts, responses and guidelines as HTML that cannot act: no raw HTML, no scripts, no remote images."""

from __future__ import annotations

from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}


def safe_html(text: str, *, keep_lines: bool = True) -> str:
    """Render Markdown to HTML that is safe to insert into the page.

    `keep_lines` shows single line ends as people typed them; without it they are white space, as in a wrapped file.
    HTML in the text is shown as text, images become their alternative text, links open in a new tab and tell their
    target nothing. What the renderer wrote is sanitised once more by an allow-list.
    """
    return nh3.clean(
        _parser(keep_lines).render(text),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        # What may be wider than its place is reached by keyboard, so that it can be scrolled.
        set_tag_attribute_values={"a": {"target": "_blank"}, "pre": {"tabindex": "0"}, "table": {"tabindex": "0"}},
    )


@lru_cache(maxsize=2)
def _parser(keep_lines: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": keep_lines}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image_as_text)
    return parser


def _image_as_text(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """A remote image would tell its host that somebody looks at this item, so only its description is shown."""
    alt = renderer.renderInlineAsText(tokens[index].children or [], options, env)
    return nh3.clean_text(f"[image: {alt}]" if alt else "[image]")
