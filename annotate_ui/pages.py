"""Pages of the app: a Gradio page each, mounted the same way, and opened to whoever is signed in and may see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI, Request

from annotate_ui.own_pages import OwnPage, OwnPages
from annotate_ui.sessions import Session, Sessions
from annotate_ui.theme import plumbline_theme

if TYPE_CHECKING:
    from annotate_ui.setup import Setup


@dataclass(frozen=True)
class GradioPage:
    """A page of the app.

    Attributes:
        path: such as `/annotate`.
        blocks: what is on it.
        assets: style sheets and scripts (modules) in `static/` that it loads, beside `base.css` and those of the head
            line.
        roles: who may open it; empty for everybody who is signed in.
    """

    path: str
    blocks: gr.Blocks
    assets: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset()

    def admits(self, session: Session | None) -> bool:
        """Whether a visitor may open the page."""
        return session is not None and (not self.roles or session.role in self.roles)

    @property
    def head(self) -> str:
        """What the page loads, as tags."""
        names = ("base.css", "nav.css", "nav.js", *self.assets)
        sheets = [f'<link rel="stylesheet" href="/assets/{name}">' for name in names if name.endswith(".css")]
        scripts = [f'<script type="module" src="/assets/{name}"></script>' for name in names if name.endswith(".js")]
        return "".join([*sheets, *scripts])


def add_pages(app: FastAPI, pages: Sequence[GradioPage], sessions: Sessions, setup: Setup) -> None:
    """Mount the pages. Visitors without a session are sent to sign in; those with the wrong role are told so."""
    for page in pages:
        gr.mount_gradio_app(
            app,
            page.blocks,
            path=page.path,
            auth_dependency=_name_of_visitor(page, sessions),
            theme=plumbline_theme(),
            allowed_paths=[],
            show_error=False,
            run_history=False,
            footer_links=[],
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            ssr_mode=False,
            max_file_size="1kb",
        )
    own = {page.path: OwnPage(page.roles, page.head) for page in pages}
    app.add_middleware(OwnPages, sessions=sessions, setup=setup, pages=own)


def _name_of_visitor(page: GradioPage, sessions: Sessions) -> Callable[[Request], str | None]:
    def name(request: Request) -> str | None:
        session = sessions.read(request)
        return session.name if session and page.admits(session) else None

    return name
