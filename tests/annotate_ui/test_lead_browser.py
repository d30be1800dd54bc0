"""The lead's page in a real browser: live without flicker, tabs by keyboard, actions, accessibility."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from annotate_ui.sessions import Session, Sessions
from plumbline.preferences.erasure import erase
from plumbline.preferences.records import Assignment
from plumbline.preferences.service import PreferenceService
from tests.annotate_ui.conftest import names_its_page, new_task
from tests.annotate_ui.screens import outside

pytestmark = pytest.mark.browser


@pytest.fixture
def lead(service: PreferenceService, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    read = Sessions.read

    def as_lead(self: Sessions, request: Any) -> Session | None:
        found = read(self, request)
        return found and Session(found.annotator_id, found.name, "lead")

    monkeypatch.setattr(Sessions, "read", as_lead)
    monkeypatch.setattr("plumbline.preferences.kept.REST", 0.0)
    service.set_overlap(2)
    service.add_tasks([new_task("first"), new_task("second")])
    page = open_page("Lea")
    page.goto(page.url.replace("/annotate/", "/lead/"))
    page.wait_for_selector("[data-panel=quality] .pl-tiles")
    yield page


def judge(service: PreferenceService, name: str) -> None:
    who = service.sign_in(name).annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    ranking = {card.response_id: card.position + 1 for card in work.cards}
    service.judge(work.lease_id, who, ranking, idempotency_key=work.lease_id, seconds=30)


def test_figures_come_in_while_the_page_stays_as_it_is(service: PreferenceService, lead: Any) -> None:
    assert "Nobody has judged" in lead.inner_text("[data-panel=quality]")
    judge(service, "<i>Ada</i>")
    lead.evaluate("window.scrollTo(0, 120)")
    before = lead.evaluate("window.scrollY")
    lead.evaluate("document.querySelector('pl-lead').refresh()")
    lead.wait_for_selector("text=<i>Ada</i>")  # as text
    assert lead.locator("[data-panel=quality] i").count() == 0
    assert lead.evaluate("window.scrollY") == before
    origin = lead.url.split("/lead/")[0]
    assert all(url.startswith((origin, "data:", "blob:")) for url in lead.requested)


def test_tabs_by_keyboard_and_an_action(service: PreferenceService, lead: Any) -> None:
    who = service.sign_in("Flagger").annotator_id
    work = service.lease_next(who)
    assert isinstance(work, Assignment)
    service.flag(work.lease_id, who, kind="broken", note="cut off", idempotency_key="f")
    lead.focus("#tab-quality")
    lead.keyboard.press("ArrowRight")
    lead.wait_for_selector("text=cut off")
    assert lead.evaluate("document.activeElement.id") == "tab-queue"
    lead.click("text=Hand out again")
    lead.wait_for_selector("text=No flag waits for you.")
    assert list(service.flags()) == []


def test_replies_come_into_the_panel_that_asked_and_take_nothing_that_is_being_written(
    service: PreferenceService, lead: Any
) -> None:
    ada, ben = (service.sign_in(name).annotator_id for name in ("Ada", "Ben"))
    service.control.set_pool("experts", [ada])
    service.lease_next(ada)
    answered: dict[str, Callable[[], None]] = {}

    def hold(action: str) -> None:
        """Let the server answer the next call, and its answer wait for `let_through`."""

        def once(route: Any) -> None:
            reply = route.fetch()
            answered[action] = lambda: route.fulfill(response=reply)

        lead.route(f"**/lead-work/{action}", once, times=1)

    def let_through(action: str) -> None:
        while action not in answered:
            lead.wait_for_timeout(20)
        with lead.expect_response(f"**/lead-work/{action}"):
            answered[action]()

    def written() -> list[str]:
        return lead.evaluate(  # type: ignore[no-any-return]
            "[...document.querySelectorAll('[name=members]')].filter(one => one.checked).map(one => one.value)"
        )

    lead.click("#tab-queue")
    lead.click("summary:text-is('Say who is in a pool')")
    lead.fill("#pl-pool", "experts")
    assert written() == [ada]
    lead.check(f"[name=members][value='{ben}']")
    with lead.expect_response("**/take_back") as reply:
        lead.click("[aria-label='Take back from Ada']")
    assert names_its_page(lead, reply.value.request)
    lead.wait_for_selector("[aria-label='Take back from Ada']", state="detached")
    assert lead.is_visible("#pl-pool") and written() == [ada, ben]
    lead.fill("#pl-pool", "experts of rain")
    assert written() == [ben]
    lead.fill("#pl-pool", "experts")
    lead.click("button:text-is('Set the members')")
    lead.wait_for_selector("text=The pool has 2 members.")
    assert service.control.pools() == {"experts": [ada, ben]}
    assert lead.input_value("#pl-pool") == ""

    hold("take_back")
    lead.click("[aria-label='Take back from Lea']")
    lead.click("#tab-guidelines")
    lead.fill("#pl-guideline-text", "Be fair.")
    let_through("take_back")
    lead.wait_for_selector("text=The task is back in the queue.")
    assert lead.input_value("#pl-guideline-text") == "Be fair."

    judge(service, "Ada")
    hold("decided")
    lead.click("#tab-decided")
    lead.click("#tab-quality")
    lead.click("[data-panel=quality] button[data-open=decided]")
    lead.wait_for_selector("[data-panel=decided] >> text=Only tasks that one person judged.")
    let_through("decided")
    lead.evaluate("new Promise(done => setTimeout(done))")
    assert lead.is_visible("text=Only tasks that one person judged.")


def test_a_guideline_is_previewed_and_published(service: PreferenceService, lead: Any) -> None:
    lead.click("#tab-guidelines")
    lead.fill("#pl-guideline-text", "Be **fair**.")
    lead.click("button:text-is('Preview')")
    lead.wait_for_selector("[data-preview] strong:text-is('fair')")
    assert service.guidelines.current() is None
    lead.on("dialog", lambda dialog: dialog.accept())
    lead.click("button:text-is('Publish')")
    lead.wait_for_selector("text=Version 1")
    assert service.guidelines.current() is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility_and_no_sideways_scrolling(
    service: PreferenceService, lead: Any, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for name in ("Ada", "Ben"):
        judge(service, name)
    lead.emulate_media(color_scheme=scheme)
    for tab in ("quality", "queue", "guidelines", "exports", "decided"):
        lead.click(f"#tab-{tab}")
        lead.wait_for_selector(f"[data-panel={tab}] :is(.pl-tiles, .pl-form, .pl-decided)")
        found = axe.run(lead, options={"resultTypes": ["violations"]}).response["violations"]
        faults = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in faults] == []
    lead.set_viewport_size({"width": 360, "height": 740})
    for tab in ("quality", "queue", "guidelines", "exports", "decided"):
        lead.click(f"#tab-{tab}")
        assert outside(lead) == []


def test_a_task_is_kept_for_those_who_are_ticked_and_a_decided_one_becomes_gold(
    service: PreferenceService, lead: Any
) -> None:
    service.rules = service.adjudication.rules = replace(service.rules, adjudicate_above=0.1)
    for name, best in (("Ada", "one"), ("Ben", "two"), ("Ada", "one")):  # Lea holds the first task, by her open page
        judge_best(service, service.lease_next(service.sign_in(name).annotator_id), name, best)
    judge_best(service, service.lease_adjudication(service.sign_in("Lea").annotator_id, lead=True), "Lea", "one")
    task = next(service.control.open_tasks()).task_id
    lead.click("#tab-queue")
    lead.click("summary:text-is('Keep a task for named people')")
    lead.fill("#pl-kept-task", task)
    lead.click("form[data-call=restrict] label:has-text('Ben')")
    lead.click("button:text-is('Set who may have it')")
    lead.wait_for_selector("text=kept for Ben")
    assert [one.names for one in service.control.restricted()] == [("Ben",)]
    lead.fill("#pl-kept-task", task)  # who has it already is ticked
    lead.click("form[data-call=restrict] label:has-text('Ada')")
    lead.click("button:text-is('Set who may have it')")
    lead.wait_for_selector("text=kept for Ada, Ben")
    lead.click("button:text-is('For everybody again')")
    lead.wait_for_selector("text=kept for Ada, Ben", state="detached")
    lead.click("#tab-decided")
    lead.on("dialog", lambda dialog: dialog.accept())
    lead.click("button:text-is('Make it a gold item')")
    lead.wait_for_selector(".pl-tag:text-is('gold item')")
    assert service.adjudication.settled() == []


def test_a_download_is_saved_and_an_empty_one_is_told_on_the_page(service: PreferenceService, lead: Any) -> None:
    judge(service, "Ada")
    lead.click("#tab-exports")
    lead.wait_for_selector("button[data-format=flags]:disabled")
    with lead.expect_download() as saved:
        lead.click("button:text-is('trl')")
    assert saved.value.suggested_filename == "support.trl.jsonl"
    erase(service.store, "Ada", remove_judgements=True)  # while the page stands open
    lead.click("button:text-is('dpo')")
    lead.wait_for_selector("[data-lead=error]:text-is('Nothing was judged yet, so there is nothing to download.')")
    assert len(lead.context.pages) == 1


def judge_best(service: PreferenceService, work: Any, name: str, best: str) -> None:
    """Rank the response that ends so first, the others tied behind it."""
    ranking = {card.response_id: 1 if card.text.endswith(best) else 2 for card in work.cards}
    service.judge(work.lease_id, service.sign_in(name).annotator_id, ranking, idempotency_key=work.lease_id)
