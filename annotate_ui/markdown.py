"""Markdown of prompts, responses and guidelines as HTML that cannot act: no raw HTML, no scripts, no remote images."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import unicodedata
from collections import OrderedDict
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import escape

TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
TAG = re.compile(r"<[^>]*>")
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}


LONGEST = 50_000
"""Characters of the longest text that is rendered as Markdown; longer ones are shown as they were written."""

MARKS = "\n[!*_`~<>&|\\"
MOST_MARKS = 4000
"""Rendering takes its time for each character that may be markup (about 0.1 ms on a slow machine), and hardly any for
the others: a text with more `MARKS` is shown as it was written."""

CACHED_BYTES = 32 * 1024 * 1024
"""How much HTML is kept: the same responses are shown to several annotators, and again after an undo."""


def shown_html(text: str) -> str:
    """What people and models wrote as HTML that is safe to insert into the page; kept, to be shown again.

    It is rendered as Markdown, unless that could take long (see `shown_plain`).
    """
    return _CACHE.of(text)


def shown_plain(text: str) -> bool:
    """Whether a text is shown as it was written, because it is long or has very much markup."""
    return len(text) > LONGEST or sum(map(text.count, MARKS)) > MOST_MARKS


def shown_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it has marks without width alone, say, or a link that nothing names."""
    html = shown_html(text)
    return "<hr" not in html and all(unicodedata.category(char)[0] in "CMZ" for char in TAG.sub("", html))


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


class HtmlCache:
    """HTML of texts, the latest asked for, by the hash of the text; may be asked from any thread.

    Args:
        most: bytes of HTML that are kept.
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, text: str) -> str:
        """The HTML of a text."""
        key = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        html = _as_written(text) if shown_plain(text) else safe_html(text)  # others may go on meanwhile
        with self._lock:
            if key not in self._kept:
                self._kept[key] = html
                self.bytes += _bytes_of(html)
            while self.bytes > self.most:
                self.bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return html


_CACHE = HtmlCache(CACHED_BYTES)


def _bytes_of(html: str) -> int:
    return sys.getsizeof(html) + 200  # with its key and its place


def _as_written(text: str) -> str:
    return f'<div class="pl-plain">{escape(text)}</div>'


@lru_cache(maxsize=2)
def _parser(keep_lines: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": keep_lines}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image_as_text)
    return parser


def _image_as_text(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """A remote image would tell its host that somebody looks at this item, so only its description is shown."""
    alt = renderer.renderInlineAsText(tokens[index].children or [], options, env)
    return nh3.clean_text(f"[image: {alt}]" if alt else "[image]")
