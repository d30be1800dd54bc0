"""The pages that the head line links to, and who may see the links."""

from __future__ import annotations

from typing import NamedTuple


class Page(NamedTuple):
    """A page of the app. Whether a visitor may open it is decided there; `roles` only decides who sees the link."""

    name: str
    path: str
    roles: tuple[str, ...] = ()


PAGES = (
    Page("annotate", "/annotate/"),
    Page("arena", "/arena/"),
    Page("lead", "/lead/", ("lead", "admin")),
    Page("people", "/people", ("lead", "admin")),
)
