"""The app over HTTP, without a browser: who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from annotate_ui.app import build_app
from annotate_ui.own_pages import OwnPage, OwnPages
from annotate_ui.sessions import Session
from annotate_ui.setup import Setup
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import new_task, ranks_as_shown

BASE = "http://127.0.0.1:7860"
STYLE = '<link rel="stylesheet" href="/assets/base.css">'


@pytest.fixture
def app(service: PreferenceService) -> Any:
    service.add_tasks([new_task("first"), new_task("second")])
    return build_app(service, Setup("Support"))


@pytest.fixture
def ada(app: Any) -> Iterator[Page]:
    with TestClient(app, base_url=BASE) as client:
        yield Page(client, "Ada")


@pytest.fixture
def bob(app: Any) -> Iterator[Page]:
    with TestClient(app, base_url=BASE) as client:
        yield Page(client, "Bob")


class Page:
    """Speaks to the server as the page does."""

    def __init__(self, client: TestClient, name: str) -> None:
        self.client = client
        client.post("/sign-in", data={"name": name})

    def ask(self, action: str, **message: Any) -> Any:
        return self.client.post(f"/annotate-work/{action}", json=message).json()


def lease_of(reply: dict[str, Any]) -> str:
    found = re.search(r'data-lease="([^"]+)"', reply["html"])
    assert found, reply
    return found[1]


def cards_of(reply: dict[str, Any]) -> list[str]:
    return re.findall(r'data-response="([^"]+)"', reply["html"])


def test_without_a_session_there_is_only_the_sign_in_page(app: Any) -> None:
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        assert "Your name" in client.get("/").text
        assert client.get("/annotate/").headers["location"] == "/"
        assert client.get("/annotate/config").status_code == 401
        assert client.post("/annotate-work/next", json={}).status_code == 401


def test_every_answer_forbids_foreign_content(app: Any) -> None:
    with TestClient(app, base_url=BASE) as client:
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy


def test_scripts_are_asked_for_again_by_their_tag(app: Any) -> None:
    with TestClient(app, base_url=BASE) as client:
        first = client.get("/assets/board.js")
        assert first.headers["cache-control"] == "no-cache"
        again = client.get("/assets/board.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_a_ranking_is_stored_with_the_shown_order(ada: Page, service: PreferenceService) -> None:
    task = ada.ask("next")
    cards = cards_of(task)
    ranking = dict(zip(cards, [2, 1, 1, 3], strict=True))
    after = ada.ask("judge", lease_id=lease_of(task), key="k", ranking=ranking, seconds=12.5, reason="short")
    assert lease_of(after) != lease_of(task)
    (record,) = service.judgements()
    assert list(record.shown_order) == cards
    assert ranks_as_shown(record) == [2, 1, 1, 3]
    assert (record.annotator, record.simulated) == ("Ada", False)
    assert (record.seconds, record.reason) == (12.5, "short")


def test_the_page_never_learns_a_response_s_source(ada: Page) -> None:
    assert "policy-" not in str(ada.ask("next"))


def test_the_same_key_counts_once(ada: Page, service: PreferenceService) -> None:
    task = ada.ask("next")
    message = {"lease_id": lease_of(task), "key": "same", "ranking": dict.fromkeys(cards_of(task), 1)}
    assert "error" not in ada.ask("judge", **message)
    assert "error" not in ada.ask("judge", **message)
    assert len(list(service.judgements())) == 1


def test_another_s_lease_gives_no_power(ada: Page, bob: Page, service: PreferenceService) -> None:
    task = ada.ask("next")
    forged = {"lease_id": lease_of(task), "key": "k"}
    assert bob.ask("judge", ranking=dict.fromkeys(cards_of(task), 1), **forged)["error"]
    assert bob.ask("skip", reason="x", **forged)["error"]
    assert bob.ask("flag", kind="other", **forged)["error"]
    assert bob.ask("renew", lease_id=lease_of(task))["error"]
    assert list(service.judgements()) == []


def test_an_incomplete_or_malformed_ranking_is_an_error_and_stores_nothing(
    ada: Page, service: PreferenceService
) -> None:
    task = ada.ask("next")
    sent = {"lease_id": lease_of(task), "key": "k"}
    whole = dict.fromkeys(cards_of(task), 1)
    for ranking in (
        {cards_of(task)[0]: 1},
        {**whole, "unknown": 2},
        {**whole, cards_of(task)[0]: 0},
        {},
        "first",
        None,
    ):
        assert ada.ask("judge", ranking=ranking, **sent)["error"]
    assert ada.ask("judge", ranking=whole, annotator="Bob", **sent)["error"]
    assert list(service.judgements()) == []


def test_two_annotators_never_hold_the_same_task(ada: Page, bob: Page) -> None:
    assert set(cards_of(ada.ask("next"))).isdisjoint(cards_of(bob.ask("next")))


def test_a_correction_starts_from_the_earlier_ranking_and_supersedes_it(ada: Page, service: PreferenceService) -> None:
    task = ada.ask("next")
    cards = cards_of(task)
    ada.ask("judge", lease_id=lease_of(task), key="a", ranking=dict(zip(cards, [1, 2, 3, 4], strict=True)))
    again = ada.ask("undo")
    assert cards_of(again) == cards
    assert again["task"]["begin"]["ranks"] == dict(zip(cards, [1, 2, 3, 4], strict=True))
    ada.ask("judge", lease_id=lease_of(again), key="b", ranking=dict(zip(cards, [2, 1, 3, 3], strict=True)))
    (record,) = service.judgements()
    assert ranks_as_shown(record) == [2, 1, 3, 3]
    assert len(list(service.judgements(include_superseded=True))) == 2


def test_a_correction_can_be_left_and_the_earlier_answer_stands(ada: Page, service: PreferenceService) -> None:
    task = ada.ask("next")
    ada.ask("judge", lease_id=lease_of(task), key="a", ranking=dict.fromkeys(cards_of(task), 1))
    again = ada.ask("undo")
    following = ada.ask("release", lease_id=lease_of(again))
    assert following["notice"] == "Your earlier answer stands."
    assert set(cards_of(following)).isdisjoint(cards_of(task))
    (record,) = service.judgements()
    assert ranks_as_shown(record) == [1, 1, 1, 1]


def test_what_is_handed_back_makes_room_for_another_and_comes_again(ada: Page, service: PreferenceService) -> None:
    first = ada.ask("next")
    second = ada.ask("release", lease_id=lease_of(first))
    assert second["notice"] == "Handed back." and set(cards_of(second)).isdisjoint(cards_of(first))
    assert ada.ask("release", lease_id=lease_of(first))["task"]["lease"] == lease_of(second)  # sent twice
    last = ada.ask("judge", lease_id=lease_of(second), key="a", ranking=dict.fromkeys(cards_of(second), 1))
    assert cards_of(last) == cards_of(first)
    ada.client.post("/sign-out")  # whoever goes does not keep others waiting
    assert service.control.held() == []


@pytest.mark.parametrize("wrong", ["a\0b", "a\nb", "", "x" * 201])
@pytest.mark.parametrize(
    ("action", "name"),
    [("release", "lease_id"), ("renew", "lease_id"), ("history", "before"), ("reopen", "answer_id"), ("skip", "key")],
)
def test_what_can_be_no_id_is_refused_before_a_database_sees_it(ada: Page, action: str, name: str, wrong: str) -> None:
    said = {"lease_id": "a", "reason": "b", "key": "c"} if action == "skip" else {}
    answer = ada.client.post(f"/annotate-work/{action}", json={**said, name: wrong})
    assert answer.status_code == 422


def test_there_may_be_nothing_to_undo(ada: Page) -> None:
    assert ada.ask("undo") == {"notice": "There is nothing to undo yet."}


def test_skipping_and_flagging_end_in_the_reason_why_there_is_no_more_work(
    ada: Page, service: PreferenceService
) -> None:
    first = ada.ask("next")
    second = ada.ask("skip", lease_id=lease_of(first), key="a", reason="I do not know this topic well enough")
    last = ada.ask("flag", lease_id=lease_of(second), key="b", kind="personal-data", note="a phone number")
    assert "data-lease" not in last["html"]
    assert "Nothing to rank now" in last["html"]
    progress = service.progress()
    assert (progress.skipped, progress.flagged, progress.done) == (1, 1, 0)


def test_renewing_tells_how_long_the_lease_lasts(ada: Page) -> None:
    task = ada.ask("next")
    assert 0 < ada.ask("renew", lease_id=lease_of(task))["expires_in"] <= 15 * 60


def test_the_page_names_no_other_site(ada: Page) -> None:
    """Neither Gradio's picture for link previews nor anything else; compressed or not."""
    for accepted in ("identity", "gzip, deflate, br"):
        answer = ada.client.get("/annotate/", headers={"Accept-Encoding": accepted})
        assert "content-encoding" not in answer.headers
        assert answer.headers["content-type"].startswith("text/html")
        assert "<gradio-app" in answer.text
        assert STYLE in answer.text.split("</head>")[0]  # so that nothing is seen before it
        assert "</html>" in answer.text
        named = set(re.findall(r"""(?:https?:)?//([a-z0-9-]+(?:\.[a-z0-9-]+)+)""", answer.text))
        assert named <= {"127.0.0.1"}
        assert not re.search(r"og:|twitter:", answer.text)
    sign_in = ada.client.post("/sign-out").text
    assert "Your name" in sign_in
    assert "//" not in sign_in


def test_the_page_in_our_look_keeps_every_header() -> None:
    """All of those given several times too; the length is that of what is sent."""

    async def gradio(scope: Any, receive: Any, send: Any) -> None:
        page = '<html lang="en"><head><meta property="og:image" content="x"><title>é</title></head>'
        answer = StreamingResponse(
            iter([page[:20].encode(), page[20:].encode()]),
            media_type="text/html",
            headers={"content-length": str(len(page.encode()))},
        )
        answer.set_cookie("first", "1")
        answer.set_cookie("second", "2")
        await answer(scope, receive, send)

    class Everybody:
        def read(self, request: Request) -> Session:
            return Session("a", "Ada")

    app: Any = OwnPages(gradio, cast(Any, Everybody()), Setup("Support"), {"/annotate": OwnPage((), STYLE)})
    answer = TestClient(app, base_url=BASE).get("/annotate/")
    assert [cookie.split(";")[0] for cookie in answer.headers.get_list("set-cookie")] == ["first=1", "second=2"]
    assert answer.headers["content-type"].startswith("text/html")
    badge = Session("a", "Ada").badge
    assert answer.text == f'<html lang="en" dir="ltr" data-badge="{badge}"><head><title>é</title>{STYLE}</head>'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]
